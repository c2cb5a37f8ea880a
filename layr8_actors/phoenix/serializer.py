"""Between frames and WebSocket messages: the V2 JSON serializer of Phoenix, text and binary, both directions.

A text message is decoded in one pass by one typed decoder: reading a header first and the payload later would scan the
bytes twice. A message that is no frame is refused with a typed error that says what is wrong with it and where, and
never quotes it: what a peer sent may be private, or large, or meant for a log reader.

The layouts of binary messages are in :mod:`.binary`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import msgspec

from layr8_actors.errors import FrameTooDeep, FrameTooLarge, InvalidOption, LocalProtocolError, MalformedFrame

from .binary import read_fields, write_fields
from .frames import PHX_REPLY, SHALLOW, DeepFrame, Frame
from .writable import TOO_DEEP, tracked_within, unwritable, without_enums

__all__ = ("MAX_CONTAINERS", "MAX_DEPTH", "MAX_SIZE", "Serializer")

MAX_SIZE: Final = 8 * 1024 * 1024
"""Bytes of one message. Phoenix has no bound of its own, so this one only keeps a peer from filling the memory: eight
times the largest message of the recorded transcripts (``huge_1mb``)."""

MAX_DEPTH: Final = 64
"""Levels of arrays and objects in one payload; DIDComm messages nest less than 10, Python's recursion ends at 1000."""

MAX_CONTAINERS: Final = 250_000
"""Arrays and objects in one text message. Ours: of 8 MiB of brackets, Python would make millions, for seconds in which
nothing else runs; these take a tenth of one. The largest message of the transcripts has a few dozen."""

_PUSH: Final = 0
_REPLY: Final = 1
_BROADCAST: Final = 2

_FIELDS_OF_PUSH: Final = ("join_ref", "ref", "topic", "event")
_FIELDS_OF_SERVER_PUSH: Final = ("join_ref", "topic", "event")
_FIELDS_OF_REPLY: Final = ("join_ref", "ref", "topic", "status")
_FIELDS_OF_BROADCAST: Final = ("topic", "event")

_ALLOWED: Final = "None, bool, int, finite float, str, UUID, list, tuple, dict with str keys, and enums of these"

_LONG: Final = 1024  # Characters above which a walk over the payload is cheaper than to count brackets.

# All are stateless: one of each serves every serializer.
_SHALLOW_DECODER: Final = msgspec.json.Decoder(Frame)
_DECODER: Final = msgspec.json.Decoder(DeepFrame)
_ENCODER: Final = msgspec.json.Encoder()

_dumps: Callable[[Any, Any, int], bytes] | None
try:
    from orjson import OPT_PASSTHROUGH_DATACLASS, OPT_PASSTHROUGH_DATETIME, OPT_PASSTHROUGH_SUBCLASS, dumps as _dumps

    # What is passed through goes to a function that we do not give, and so is refused.
    _strict = OPT_PASSTHROUGH_DATACLASS | OPT_PASSTHROUGH_DATETIME | OPT_PASSTHROUGH_SUBCLASS
except ImportError:
    _dumps, _strict = None, 0  # it comes with the extra `fast`, and does nothing but make encoding faster


class Serializer:
    """Decodes and encodes WebSocket messages of Phoenix Channels V2.

    It holds two limits and no state, so one may serve any number of sockets. Nothing here checkpoints.

    Args:
        max_size: the largest message accepted, in bytes (text: of UTF-8); default :data:`MAX_SIZE`.
        max_depth: how deep arrays and objects of a payload may nest, counting the payload itself as level one when
            it is one; default :data:`MAX_DEPTH`. It holds for encoding too.

    Raises:
        InvalidOption: a limit is not a positive integer; correct it.
    """

    __slots__ = ("_short", "max_depth", "max_size")

    def __init__(self, *, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> None:
        for option, value in (("max_size", max_size), ("max_depth", max_depth)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidOption(option, value, "a positive integer")
        self.max_size = max_size
        self.max_depth = max_depth
        # Characters up to which a shallow text can pass no limit: a character takes four bytes at the most, and each
        # level a bracket to open and one to close.
        self._short = min(max_size // 4, MAX_CONTAINERS, MAX_CONTAINERS if max_depth >= SHALLOW else 2 * max_depth)

    # --- decoding -----------------------------------------------------------------------------------------------------

    def decode(self, data: str | bytes) -> Frame:
        """Return the frame in one WebSocket message from a server.

        Args:
            data: a text message as ``str``, a binary one as ``bytes``.

        Returns a frame. Of a text message the payload is what the JSON says, the last of equal keys winning. Of a
        binary push or broadcast it is ``bytes``; of a binary reply ``{"status": str, "response": bytes}``. A ref that
        is empty in a binary message is ``None``, because Phoenix writes a null ref so.

        Raises:
            FrameTooLarge: the message is larger than ``max_size``, or has more than :data:`MAX_CONTAINERS` arrays and
                objects.
            FrameTooDeep: its payload nests deeper than ``max_depth``.
            MalformedFrame: it is no frame: not JSON (``NaN``, lone surrogates and integers that Python cannot read
                included), not an array, too short, a field of the wrong type, a binary message cut short or of an
                unknown kind. Drop the message; neither the socket nor the topics are touched by it.
        """
        if isinstance(data, str):
            if len(data) <= self._short:
                try:
                    return _SHALLOW_DECODER.decode(data)
                except (msgspec.DecodeError, UnicodeError, RecursionError):
                    pass  # what is wrong with it is said below, or that it only nests deeper than most
            return self._decode_text(data)
        self._check_size(len(data))
        if not data:
            raise MalformedFrame("an empty binary message")
        kind = data[0]
        if kind == _PUSH:
            (join_ref, topic, event), payload = read_fields(data, _FIELDS_OF_SERVER_PUSH)
            return Frame(join_ref or None, None, topic, event, payload)
        if kind == _REPLY:
            (join_ref, ref, topic, status), payload = read_fields(data, _FIELDS_OF_REPLY)
            return Frame(join_ref or None, ref or None, topic, PHX_REPLY, {"status": status, "response": payload})
        if kind == _BROADCAST:
            (topic, event), payload = read_fields(data, _FIELDS_OF_BROADCAST)
            return Frame(None, None, topic, event, payload)
        raise MalformedFrame(f"a binary message of unknown kind {kind}; known: 0 (push), 1 (reply), 2 (broadcast)")

    def decode_push(self, data: bytes) -> Frame:
        """Return the frame in one binary message from a client, the only kind that a client may send: a push.

        Args:
            data: the binary message.

        An empty ref stays the empty string, as it does in Phoenix (which refuses it from 1.8.3 on).

        Raises:
            FrameTooLarge: the message is larger than ``max_size``.
            MalformedFrame: it is cut short, or not a push; Phoenix closes the socket with 1011 then.
        """
        self._check_size(len(data))
        if not data:
            raise MalformedFrame("an empty binary message")
        if data[0] != _PUSH:
            raise MalformedFrame(f"a binary message of kind {data[0]}; a client may send only 0 (push)")
        (join_ref, ref, topic, event), payload = read_fields(data, _FIELDS_OF_PUSH)
        return Frame(join_ref, ref, topic, event, payload)

    def _decode_text(self, text: str) -> Frame:
        size = len(text)
        if size > self.max_size or (size * 4 > self.max_size and not text.isascii()):
            self._check_size(len(text.encode("utf-8", "surrogatepass")))
        # Counting takes its time on a long text, and a short one cannot hold so many.
        if size > MAX_CONTAINERS and text.count("[") + text.count("{") > MAX_CONTAINERS:
            brackets = _brackets_outside_strings(text)
            if brackets > MAX_CONTAINERS:
                raise FrameTooLarge(
                    f"a message of {brackets} arrays and objects; at most {MAX_CONTAINERS} are accepted"
                )
        if size > self._short and self.max_depth >= SHALLOW:
            with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                return _SHALLOW_DECODER.decode(text)
        problem: MalformedFrame
        try:
            frame = _DECODER.decode(text).plain()
        except RecursionError:
            problem = self._too_deep()
        except UnicodeError:
            problem = MalformedFrame("a text message with a lone surrogate, which UTF-8 cannot carry")
        except msgspec.DecodeError as error:
            # msgspec names types and positions, never values, so its text is safe to show.
            problem = MalformedFrame(f"not a frame [join_ref, ref, topic, event, payload]: {error}{_hint(text)}")
        else:
            # What the collector does not track, of what was decoded, is a leaf or a container of leaves: one level.
            if (
                self._may_be_too_deep(text)
                and not tracked_within(self.max_depth - 1, frame.payload)
                and _deeper_than(self.max_depth, frame.payload)
            ):
                raise self._too_deep()
            return frame
        # Raised here and not above: an exception's context would carry the message along.
        raise problem

    def _may_be_too_deep(self, text: str) -> bool:
        # Each level takes a bracket to open and one to close, so most frames, which are short, need no walk. For a long
        # one to count takes longer than to walk.
        size = len(text)
        if size <= 2 * self.max_depth:
            return False
        return size > _LONG or text.count("[") + text.count("{") - 1 > self.max_depth

    def _check_size(self, size: int) -> None:
        if size > self.max_size:
            raise FrameTooLarge(f"a message of {size} bytes; at most {self.max_size} are accepted")

    def _too_deep(self) -> FrameTooDeep:
        return FrameTooDeep(f"arrays and objects nest deeper than {self.max_depth} levels")

    # --- encoding -----------------------------------------------------------------------------------------------------

    def encode(self, frame: Frame) -> str:
        """Return a frame as the compact JSON of a text message, in either direction.

        Args:
            frame: its payload is made of ``None``, ``bool``, ``int``, finite ``float``, ``str``, ``list``, ``tuple``
                (written as an array) and ``dict`` with ``str`` keys; subclasses of the last three are written as what
                they are subclasses of, an enum as its value, and a ``uuid.UUID`` as its string.

        Raises:
            LocalProtocolError: the payload holds something else. Dates, decimals, sets, dataclasses and bytes are
                refused on purpose, though msgspec would write them: the other side would read back strings, arrays and
                objects. Convert them first; a payload that is bytes goes through :meth:`encode_push`. ``NaN`` and the
                infinities are no JSON. Also raised for lone surrogates, for integers that Python refuses to print,
                and for nesting deeper than ``max_depth`` (which a value that contains itself is).
        """
        if _dumps is not None:
            payload = frame.payload
            try:
                text = _dumps((frame.join_ref, frame.ref, frame.topic, frame.event, payload), None, _strict).decode()
            except (TypeError, RecursionError):
                text = ""  # what is wrong with it, or that nothing is, comes out below
            # It writes a float that is not finite as null, and has a limit of its own for the levels. To search from
            # the right takes CPython half to a third of what `in` takes.
            if text and text.rfind("null") < 0 and (not self._may_be_too_deep(text) or self._is_shallow(payload, text)):
                return text
        return self._encode_exactly(frame)

    def _is_shallow(self, payload: Any, text: str) -> bool:
        # What the collector does not track is a dict with no container in it but such tuples, or a tuple with none but
        # such tuples: one level, and one for each array that the text may have.
        levels = self.max_depth - 1
        at = text.find("[")
        while at >= 0 and levels > 0:  # a text of 1 MB is searched in a tenth of the time that counting in it takes
            levels -= 1
            at = text.find("[", at + 1)
        return tracked_within(levels, payload)

    def _encode_exactly(self, frame: Frame) -> str:
        try:
            problem = unwritable(frame.payload, self.max_depth)
            if problem is None:
                try:
                    return _ENCODER.encode(frame).decode()
                except TypeError:
                    plain = msgspec.structs.replace(frame, payload=without_enums(frame.payload))
                    return _ENCODER.encode(plain).decode()
        except RecursionError:
            problem = TOO_DEEP
        except UnicodeError:
            problem = "a str with a lone surrogate, which UTF-8 cannot carry"
        except (TypeError, ValueError) as error:
            problem = str(error)
        # Raised here and not above: an exception's context would carry the payload along.
        raise LocalProtocolError(f"the payload cannot be written as JSON: {problem}; allowed: {_ALLOWED}")

    def encode_push(self, frame: Frame) -> bytes:
        """Return a client's push as a binary message (kind 0 with a ref); its payload has to be ``bytes``.

        Raises:
            LocalProtocolError: the payload is not bytes, or a field has more than 255 bytes of UTF-8.
        """
        return write_fields(
            _PUSH, _FIELDS_OF_PUSH, (frame.join_ref, frame.ref, frame.topic, frame.event), frame.payload
        )

    def encode_server_push(self, frame: Frame) -> bytes:
        """Return a server's push as a binary message (kind 0 without a ref); its payload has to be ``bytes``.

        Raises:
            LocalProtocolError: as :meth:`encode_push`.
        """
        return write_fields(_PUSH, _FIELDS_OF_SERVER_PUSH, (frame.join_ref, frame.topic, frame.event), frame.payload)

    def encode_reply(self, frame: Frame) -> bytes:
        """Return a server's reply as a binary message (kind 1); its payload is ``{"status": str, "response": bytes}``.

        Raises:
            LocalProtocolError: as :meth:`encode_push`, or the payload is of another shape.
        """
        payload = frame.payload
        if not isinstance(payload, dict) or not isinstance(payload.get("status"), str) or "response" not in payload:
            raise LocalProtocolError('the payload of a binary reply has to be {"status": str, "response": bytes}')
        fields = (frame.join_ref, frame.ref, frame.topic, payload["status"])
        return write_fields(_REPLY, _FIELDS_OF_REPLY, fields, payload["response"])

    def encode_broadcast(self, frame: Frame) -> bytes:
        """Return a server's broadcast as a binary message (kind 2); its payload has to be ``bytes``.

        Raises:
            LocalProtocolError: as :meth:`encode_push`.
        """
        return write_fields(_BROADCAST, _FIELDS_OF_BROADCAST, (frame.topic, frame.event), frame.payload)


def _hint(text: str) -> str:
    # The commonest cause of all: without vsn=2.0.0 in its URL, Phoenix speaks V1, whose frames are objects.
    return " (an object is a V1 frame: is vsn=2.0.0 in the URL?)" if text[:64].lstrip()[:1] == "{" else ""


def _brackets_outside_strings(text: str) -> int:
    # By split, whose time does not depend on what stands there: a regular expression would search the rest of the text
    # anew for each quotation mark that has no partner.
    bare = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    return bare.count("[") + bare.count("{")


def _deeper_than(limit: int, payload: Any) -> bool:
    """Walk the containers of a decoded payload level by level, so that no nesting can exhaust the stack."""
    level = [payload] if type(payload) in (dict, list) else []
    while level:
        if limit == 0:
            return True
        limit -= 1
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
    return False
