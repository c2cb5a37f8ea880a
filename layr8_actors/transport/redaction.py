"""The key in what a peer says: found in the forms in which it can come back, and replaced before anybody reads it.

What a peer was sent, it can send back: in a close reason, in the reason of a refusal, in a header. Found are the key as
it is, percent-encoded in either case of hex (as it stands in the request's query), in Base64, and with the backslashes
that JSON, Elixir and Python write. A peer that disguises it in another way is not found out: this is a guard against
echoes, not against malice.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote, quote_plus

from .secret import Secret

__all__ = ("SHORTEST_KEY", "redact", "redact_all", "redact_bytes")

SHORTEST_KEY = 6
"""Characters; a shorter key is a test's, and the gaps it left in words would tell it."""

_SHOWN = "***"
_ESCAPE = re.compile("%[0-9A-F]{2}")


def redact(text: str, key: Secret) -> str:
    """A text of foreign origin with every occurrence of the key replaced by ``***``.

    Args:
        text: what the peer said.
        key: left alone where it has fewer than :data:`SHORTEST_KEY` characters.
    """
    if len(text) < SHORTEST_KEY:
        return text  # most words of a node: ok, error, nothing
    return _without(text, _forms(key.reveal()))


def redact_all(texts: Iterable[str], key: Secret) -> tuple[str, ...]:
    """The same for many texts at once, which a node may make a million of.

    Args:
        texts: what the peer said.
        key: as in :func:`redact`.
    """
    forms = _forms(key.reveal())
    return tuple(_without(text, forms) for text in texts)


def redact_bytes(data: bytes, key: Secret) -> bytes:
    """The same for bytes, in which the key stands as UTF-8."""
    for form in _forms(key.reveal()):
        data = data.replace(form.encode("utf-8", "surrogatepass"), _SHOWN.encode())
    return data


def _without(text: str, forms: Sequence[str]) -> str:
    for form in forms:
        text = text.replace(form, _SHOWN)
    return text


def _forms(key: str) -> list[str]:
    # No regular expression: the module `re` would keep it, and the key with it, in a cache of the whole process.
    if len(key) < SHORTEST_KEY:
        return []
    raw = key.encode("utf-8", "surrogatepass")
    quoted = [quote(raw, safe=""), quote(raw), quote_plus(raw), quote(key, safe="", errors="replace")]
    lower = [_ESCAPE.sub(lambda found: found[0].lower(), form) for form in quoted]
    coded = [encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)]
    escaped = [repr(key)[1:-1], json.dumps(key)[1:-1], json.dumps(key, ensure_ascii=False)[1:-1]]
    # The longest first: a shorter form must not cut a longer one in two.
    return sorted({key, *quoted, *lower, *coded, *escaped}, key=len, reverse=True)
