"""What a join says of the DID it binds: the ``did_spec`` and the rules a node holds it to, checked before dialling."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidOption

__all__ = ("build_did_spec", "derive_child_did", "join_payload")

_MODES = ("Create", "Require", "Update")
_STORAGES = ("ephemeral", "persistent")
_STRING_KEYS = ("label", "controller", "parentDid", "childNameSource")
_KNOWN_KEYS = ("mode", "storage", "type", "verificationMethods", *_STRING_KEYS)
_PURPOSES = ("authentication", "assertionMethod", "keyAgreement", "capabilityInvocation", "capabilityDelegation")

# The three purposes that every Layr8 SDK asks for by default.
_DEFAULT_PURPOSES = ("authentication", "assertionMethod", "keyAgreement")

# Crockford's base32 in lower case: 12 characters are 60 bits, the name that the SDKs give a child nobody named.
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_CHILD_NAME_LENGTH = 12


def derive_child_did(agent_did: str, parent_did: str) -> str:
    """Check that ``agent_did`` is a child of ``parent_did``, or name one; done once, so that reconnects keep the name.

    Args:
        agent_did: the DID given, or ``""`` to have one derived.
        parent_did: the DID that the child is borrowed from.

    Returns:
        ``agent_did``, or ``<parent_did>:<12 characters of Crockford's base32>`` where it was blank.

    Raises:
        InvalidOption: ``agent_did`` is not ``<parent_did>:<one segment>``, which every node refuses for good.
    """
    if not agent_did:
        source = random.SystemRandom()
        return f"{parent_did}:{''.join(source.choice(_CROCKFORD) for _ in range(_CHILD_NAME_LENGTH))}"
    prefix, _, segment = agent_did.rpartition(":")
    if prefix != parent_did or not segment:
        raise InvalidOption(
            "agent_did", agent_did, "with a parentDid: <parentDid>:<one segment without a colon>, or ''"
        )
    return agent_did


def build_did_spec(did_spec: Mapping[str, Any] | None, agent_did: str) -> dict[str, Any]:
    """Complete ``did_spec`` with the defaults of the Layr8 SDKs and refuse what a node would refuse.

    Args:
        did_spec: the caller's keys, which win over the defaults; ``None`` for the defaults alone. Optional keys that
            are empty strings are left out, because a node reads ``""`` as a value.
        agent_did: the DID that the channel binds, or ``""``.

    Returns:
        A new dict, ready for the wire. ``storage`` is the caller's where given; else ``ephemeral`` for a blank DID or
        a borrowed one (``parentDid``), and ``persistent`` for a DID of one's own, so that the node does not sweep it
        while the agent is away.

    Raises:
        InvalidOption: a key is unknown or its value is not allowed; the error names the key.
    """
    if did_spec is None:
        did_spec = {}
    if not isinstance(did_spec, Mapping):
        raise InvalidOption("did_spec", did_spec, "a mapping, or None for the default")
    for key in did_spec:
        if key == "parentRole":
            raise InvalidOption("did_spec['parentRole']", did_spec[key], "nothing: a node refuses a join that names it")
        if key not in _KNOWN_KEYS:
            raise InvalidOption("did_spec", key, f"keys out of {', '.join(_KNOWN_KEYS)}; got the key {key!r}")
    for key in _STRING_KEYS:
        if not isinstance(did_spec.get(key, ""), str):
            raise InvalidOption(f"did_spec[{key!r}]", did_spec[key], "a str")
    borrowed = bool(did_spec.get("parentDid"))
    spec: dict[str, Any] = {
        "mode": _one_of(did_spec, "mode", _MODES, "Create"),
        "storage": _one_of(did_spec, "storage", _STORAGES, "persistent" if agent_did and not borrowed else "ephemeral"),
        "type": _one_of(did_spec, "type", ("plugin",), "plugin"),
        "verificationMethods": _verification_methods(did_spec.get("verificationMethods")),
    }
    spec.update({key: did_spec[key] for key in _STRING_KEYS if did_spec.get(key)})
    return spec


def join_payload(did_spec: Mapping[str, Any], protocols: tuple[str, ...]) -> dict[str, Any]:
    """The payload of ``phx_join``.

    Args:
        did_spec: as completed by :func:`build_did_spec`.
        protocols: URIs of the protocols to bind, or ``"*"``.

    Returns:
        A new dict; ``delegation_refresh`` only where a parent is named, because a join without one must not change.
    """
    payload: dict[str, Any] = {"payload_types": list(protocols), "reply_protocol": True, "did_spec": dict(did_spec)}
    if did_spec.get("parentDid"):
        payload["delegation_refresh"] = True
    return payload


def _one_of(did_spec: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str) -> str:
    value = did_spec.get(key, default)
    if not isinstance(value, str) or value not in allowed:
        raise InvalidOption(f"did_spec[{key!r}]", value, " | ".join(allowed))
    return value


def _verification_methods(methods: object) -> list[dict[str, Any]]:
    if methods is None:
        return [{"purpose": purpose} for purpose in _DEFAULT_PURPOSES]
    allowed = f"a list of mappings with a purpose out of {', '.join(_PURPOSES)}"
    if isinstance(methods, (str, bytes)) or not isinstance(methods, (list, tuple)):
        raise InvalidOption("did_spec['verificationMethods']", methods, allowed)
    for method in methods:
        if not isinstance(method, Mapping) or method.get("purpose") not in _PURPOSES:
            raise InvalidOption("did_spec['verificationMethods']", method, allowed)
    return [dict(method) for method in methods]
