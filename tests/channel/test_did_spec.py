"""The join's did_spec and payload: defaults, what wins, what is left out, and what is refused before dialling."""

from __future__ import annotations

import re
from typing import Any

import pytest

from layr8_actors.channel.did_spec import build_did_spec, derive_child_did, join_payload
from layr8_actors.errors import InvalidOption

PARENT = "did:web:node.test:parent"


def test_the_default_names_mode_type_three_purposes_and_persistent_storage_for_a_did_of_ones_own() -> None:
    assert build_did_spec(None, "did:web:node.test:alice") == {
        "mode": "Create",
        "storage": "persistent",
        "type": "plugin",
        "verificationMethods": [
            {"purpose": "authentication"},
            {"purpose": "assertionMethod"},
            {"purpose": "keyAgreement"},
        ],
    }


@pytest.mark.parametrize(
    ("did_spec", "agent_did", "storage"),
    [
        (None, "", "ephemeral"),
        ({}, "did:web:node.test:alice", "persistent"),
        ({"parentDid": PARENT}, f"{PARENT}:child", "ephemeral"),
        ({"storage": "ephemeral"}, "did:web:node.test:alice", "ephemeral"),
        ({"storage": "persistent"}, "", "persistent"),
        ({"storage": "persistent", "parentDid": PARENT}, f"{PARENT}:child", "persistent"),
    ],
)
def test_storage_is_the_callers_or_follows_from_the_did(
    did_spec: dict[str, Any] | None, agent_did: str, storage: str
) -> None:
    assert build_did_spec(did_spec, agent_did)["storage"] == storage


def test_the_callers_keys_win_and_empty_optional_keys_are_left_out() -> None:
    methods = [{"purpose": "authentication", "type": "Ed25519", "id": "k1"}]
    spec = build_did_spec(
        {"mode": "Require", "label": "Alice", "controller": "", "verificationMethods": methods}, "did:web:node.test:a"
    )
    assert spec["mode"] == "Require"
    assert spec["label"] == "Alice"
    assert spec["verificationMethods"] == methods
    assert "controller" not in spec
    assert "parentDid" not in spec


@pytest.mark.parametrize(
    ("did_spec", "names"),
    [
        ({"mode": "Delete"}, "did_spec['mode']"),
        ({"storage": 1}, "did_spec['storage']"),
        ({"type": "agent"}, "did_spec['type']"),
        ({"label": None}, "did_spec['label']"),
        ({"parentRole": "x"}, "did_spec['parentRole']"),
        ({"parent_did": PARENT}, "parent_did"),
        ({"verificationMethods": "authentication"}, "did_spec['verificationMethods']"),
        ({"verificationMethods": [{"purpose": "sign"}]}, "did_spec['verificationMethods']"),
        ([("mode", "Create")], "did_spec"),
    ],
)
def test_a_spec_that_a_node_would_refuse_is_refused_by_name(did_spec: Any, names: str) -> None:
    with pytest.raises(InvalidOption, match=re.escape(names)):
        build_did_spec(did_spec, "")


def test_a_child_that_nobody_named_gets_twelve_characters_of_crockford_base32() -> None:
    child = derive_child_did("", PARENT)
    assert re.fullmatch(re.escape(PARENT) + r":[0-9abcdefghjkmnpqrstvwxyz]{12}", child)
    assert derive_child_did("", PARENT) != child


@pytest.mark.parametrize("agent_did", [PARENT, f"{PARENT}:", f"{PARENT}:a:b", "did:web:node.test:other:a"])
def test_a_did_that_is_not_one_segment_beneath_its_parent_is_refused(agent_did: str) -> None:
    with pytest.raises(InvalidOption, match="agent_did"):
        derive_child_did(agent_did, PARENT)


def test_the_join_payload_asks_for_delegation_refresh_only_with_a_parent() -> None:
    protocols = ("https://didcomm.org/basicmessage/2.0",)
    spec = build_did_spec(None, "did:web:node.test:alice")
    assert join_payload(spec, protocols) == {
        "payload_types": ["https://didcomm.org/basicmessage/2.0"],
        "reply_protocol": True,
        "did_spec": spec,
    }
    borrowed = build_did_spec({"parentDid": PARENT}, f"{PARENT}:child")
    assert join_payload(borrowed, protocols)["delegation_refresh"] is True
