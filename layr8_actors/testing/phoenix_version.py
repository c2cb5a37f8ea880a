"""What differs between Phoenix versions on the wire, and the two serializers a Phoenix socket picks from.

The facts are those of the recorded transcripts (tests/conformance/transcripts) for 1.7.24, 1.8.11 and 1.8.12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from ..errors import InvalidOption, MalformedFrame
from ..phoenix import PHX_REPLY, Frame, Ref, Serializer

__all__ = ("NodeSerializer", "PhoenixVersion", "V1Serializer", "V2Serializer", "phoenix_version", "serializer_for")

_HUGE: Final = 1 << 40
# A node has no limit of its own (Bandit and Cowboy have none by default); CloudNode's max_message_size sets one.
# A message that came in nests deeper when it goes out again, inside of context and plaintext.
_DEPTH_IN: Final = 256
_DEPTH_OUT: Final = 300


@dataclass(frozen=True, slots=True)
class PhoenixVersion:
    """One column of the table of join_ref rules.

    Args:
        name: the version, such as ``"1.7.24"``.
        checks_join_ref: whether a push whose join_ref is not the channel's is dropped without an answer (since 1.8.3).
        accepts_null_join_ref: whether a null join_ref always passes where join_refs are checked, on ``phx_leave`` too
            (since 1.8.12).
        error_payload: the payload of ``phx_error`` (since 1.8.10 with a reason).
        disconnect_code: the close code of an admin's ``disconnect`` broadcast (1001 since 1.8.8).
    """

    name: str
    checks_join_ref: bool
    accepts_null_join_ref: bool
    error_payload: Mapping[str, str]
    disconnect_code: int

    def handles_push(self, join_ref: Ref, joined_with: Ref) -> bool:
        """Whether a push with ``join_ref`` reaches a channel that was joined with ``joined_with``."""
        if not self.checks_join_ref or join_ref == joined_with:
            return True
        if self.accepts_null_join_ref:
            return join_ref is None
        # 1.8.3 to 1.8.11 compare only where the join itself carried a join_ref.
        return joined_with is None

    def handles_leave(self, join_ref: Ref, joined_with: Ref) -> bool:
        """Whether a ``phx_leave`` with ``join_ref`` ends a channel that was joined with ``joined_with``."""
        return join_ref == joined_with or (self.accepts_null_join_ref and join_ref is None)


_CRASH: Final = {"reason": "channel_crash"}

_VERSIONS: Final = {
    version.name: version
    for version in (
        PhoenixVersion("1.7.24", False, False, {}, 1000),
        PhoenixVersion("1.8.11", True, False, _CRASH, 1001),
        PhoenixVersion("1.8.12", True, True, _CRASH, 1001),
    )
}


def phoenix_version(name: str) -> PhoenixVersion:
    """Return the rules of a version.

    Raises:
        InvalidOption: the version is none of ``1.7.24``, ``1.8.11`` and ``1.8.12``, those that were recorded.
    """
    version = _VERSIONS.get(name)
    if version is None:
        raise InvalidOption("phoenix", name, "one of " + ", ".join(map(repr, _VERSIONS)))
    return version


class NodeSerializer(Protocol):
    """What a socket decodes and encodes with; picked by the ``vsn`` of the upgrade."""

    def decode(self, data: str | bytes) -> Frame:
        """Return the frame in a client's message; MalformedFrame where Phoenix's socket process would crash (1011)."""
        ...

    def encode(self, frame: Frame) -> str | bytes:
        """Return a frame as a message to the client; a payload of bytes makes a binary one."""
        ...


class V2Serializer:
    """``vsn=2.0.x``: arrays of five, and binary pushes (Phoenix.Socket.V2.JSONSerializer)."""

    def __init__(self) -> None:
        self._decoder = Serializer(max_size=_HUGE, max_depth=_DEPTH_IN)
        self._encoder = Serializer(max_size=_HUGE, max_depth=_DEPTH_OUT)

    def decode(self, data: str | bytes) -> Frame:
        if isinstance(data, bytes):
            return self._decoder.decode_push(data)
        return self._decoder.decode(data)

    def encode(self, frame: Frame) -> str | bytes:
        payload = frame.payload
        if frame.event == PHX_REPLY and isinstance(payload, dict) and isinstance(payload.get("response"), bytes):
            return self._encoder.encode_reply(frame)
        if isinstance(payload, bytes):
            if frame.join_ref is None and frame.ref is None:
                return self._encoder.encode_broadcast(frame)
            return self._encoder.encode_server_push(frame)
        return self._encoder.encode(frame)


class V1Serializer:
    """``vsn=1.0.x``, and no vsn at all: objects without join_ref (Phoenix.Socket.V1.JSONSerializer)."""

    def decode(self, data: str | bytes) -> Frame:
        if isinstance(data, bytes):
            raise MalformedFrame("a binary message, which the V1 serializer does not know")
        try:
            value: Any = msgspec.json.decode(data)
            topic, event, payload, ref = (value[key] for key in ("topic", "event", "payload", "ref"))
        except (msgspec.DecodeError, ValueError, RecursionError, TypeError, KeyError, IndexError):
            raise MalformedFrame("not a V1 message with topic, event, payload and ref") from None
        if not isinstance(topic, str) or not isinstance(event, str):
            raise MalformedFrame("a V1 message whose topic or event is no string")
        return Frame(value.get("join_ref"), ref, topic, event, payload)

    def encode(self, frame: Frame) -> str | bytes:
        # V1 knows no join_ref, so phx_close and phx_error carry that of the join, which is null there.
        message = {"topic": frame.topic, "event": frame.event, "payload": frame.payload, "ref": frame.ref}
        return msgspec.json.encode(message).decode()


def serializer_for(vsn: str | None) -> NodeSerializer | None:
    """Return the serializer that a ``vsn`` selects, or ``None`` where Phoenix refuses the upgrade with 403.

    Args:
        vsn: the parameter as sent. Absent means ``1.0.0``; ``~> 2.0.0`` and ``~> 1.0.0`` match; ``2`` and ``2.1.0`` do
            not (``Phoenix.Socket.Transport``).
    """
    parts = ("1.0.0" if vsn is None else vsn).split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    if parts[1] != "0":
        return None
    if parts[0] == "2":
        return V2Serializer()
    return V1Serializer() if parts[0] == "1" else None
