"""Any WebSocket message into the serializer: a frame that survives the round trip, or a typed error that holds nothing.

The first byte picks the limits and the kind of message; the rest is the message.
"""

from __future__ import annotations

from layr8_actors.errors import FrameTooDeep, FrameTooLarge, LocalProtocolError, MalformedFrame
from layr8_actors.phoenix import Frame, Serializer

__all__ = ("check",)

_ROOMY = Serializer()
_TIGHT = Serializer(max_size=256, max_depth=4)
_LONGEST_ERROR = 400


def check(data: bytes) -> None:
    """Decode one message, and what comes of it once more."""
    choice, message = data[:1], data[1:]
    serializer = _TIGHT if choice in (b"T", b"B", b"P") else _ROOMY
    try:
        if choice in (b"p", b"P"):
            frame = serializer.decode_push(message)
        elif choice in (b"b", b"B"):
            frame = serializer.decode(message)
        else:
            # What wsproto hands up is valid UTF-8; a stray lone surrogate is what another adapter might let through.
            frame = serializer.decode(message.decode("utf-8", "surrogatepass" if choice == b"s" else "replace"))
    except MalformedFrame as error:
        _assert_harmless(error)
        return
    except UnicodeDecodeError as error:
        _assert_ours(error, message)
        return
    assert len(message) <= serializer.max_size
    if choice in (b"p", b"P"):
        assert serializer.decode_push(serializer.encode_push(frame)) == frame
    elif choice in (b"b", b"B"):
        assert serializer.decode(_encode_binary(serializer, message[0], frame)) == frame
    else:
        _assert_text_round_trip(frame)


def _encode_binary(serializer: Serializer, kind: int, frame: Frame) -> bytes:
    if kind == 1:
        return serializer.encode_reply(frame)
    return serializer.encode_broadcast(frame) if kind == 2 else serializer.encode_server_push(frame)


def _assert_text_round_trip(frame: Frame) -> None:
    try:
        text = _ROOMY.encode(frame)
    except LocalProtocolError as error:
        raise AssertionError("what was read cannot be written") from error
    assert _ROOMY.decode(text) == frame


def _assert_harmless(error: MalformedFrame) -> None:
    """It is of the documented types, it is short, and it holds on to neither the message nor an exception that does."""
    assert type(error) in (MalformedFrame, FrameTooLarge, FrameTooDeep)
    assert len(str(error)) < _LONGEST_ERROR
    assert error.__cause__ is None
    assert error.__context__ is None, "the context holds the message"


def _assert_ours(error: UnicodeDecodeError, message: bytes) -> None:
    """It comes from this module's own decoding of the input, for not even surrogatepass takes all bytes."""
    assert error.object == message
