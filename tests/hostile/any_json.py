"""Strategies: what a node may say that knows the words of the wire and nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

__all__ = ("DID", "TOPIC", "join_replies", "json_values", "messages")

DID = "did:web:node.test:alice"
TOPIC = f"plugins:{DID}"

words = st.sampled_from(
    ["status", "response", "reason", "ok", "error", "did", "capabilities", "unmatched topic", "", DID]
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
"""Any JSON value, that of a reply now and then."""

join_replies = json_values | st.fixed_dictionaries({"status": words | json_values, "response": json_values})

_refs: st.SearchStrategy[Any] = st.sampled_from([None, "", "0", "1", "2", "3", "4", "99", 1, 2, -1, 10**30])
_frames = st.tuples(
    _refs,
    _refs,
    st.sampled_from([TOPIC, TOPIC, TOPIC, "plugins:", "plugins:other", "phoenix", "", 7]),
    st.sampled_from(["phx_reply", "phx_reply", "message", "phx_close", "phx_error", "phx_join", "phx_leave", "x", ""]),
    join_replies,
)
_binary = st.builds(
    lambda kind, lengths, rest: bytes((kind, *lengths)) + rest,
    st.integers(0, 3),
    st.lists(st.integers(0, 4), min_size=2, max_size=4),
    st.binary(max_size=12) | st.just(b"11" + TOPIC.encode()),
)
messages: st.SearchStrategy[str | bytes] = st.one_of(
    _frames.map(json.dumps),
    _frames.map(json.dumps),
    st.builds(lambda text, cut: text[:cut], _frames.map(json.dumps), st.integers(0, 80)),
    st.builds(lambda depth: '["1","1","t","e",' + "[" * depth + "]" * depth + "]", st.integers(60, 70)),
    json_values.map(json.dumps),
    st.text(max_size=20),
    st.binary(max_size=20),
    _binary,
)
"""Whole WebSocket messages: frames with refs that hit and miss, cut short, nested deep, binary, and plain garbage."""
