"""The frames of RFC 6455 section 5, written and read by a client: the common ones by hand, all others by websockets.

Nearly every frame of a node is a whole message, unmasked and final. Such frames are cut out of the bytes here, for a
tenth of what a parser of all frames costs. websockets stays the authority for all rules of the protocol: it gets every
other frame, and nothing but whole frames from their first byte on, so that to it the stream is one in which nobody
sent a whole message. It decides about control frames, fragments, reserved bits, sizes and the close handshake.

Sans-I/O: bytes in, messages out, and the other way round.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Sequence

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from .link_end import LinkEnd

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without a wheel of it
    from websockets.utils import apply_mask

__all__ = ("NODE", "SILENT", "InboundFrames", "masked_frames")

NODE = parse_uri("ws://node.invalid/")
"""Stands for any node: the library needs a URL only for the upgrade, and the one with the key in it is none of its."""

SILENT = logging.Logger("websockets", logging.CRITICAL + 1)  # noqa: LOG001 - one of the hierarchy could be heard
"""Belongs to no hierarchy: at DEBUG the library would log every frame, and a peer may echo the key in one."""

# The most bytes of UTF-8 that a character takes: a limit counts the characters of a text, the library its bytes.
_BYTES_PER_CHARACTER = 4
# Frames are joined until they have so many bytes, and a longer one is not joined at all. A write costs some 10 us, as
# much as copying some 100 KiB; and what malloc has to map anew for each join costs four times as much a byte.
_JOINED = 64 * 1024

_TEXT_FRAME, _BINARY_FRAME = _WHOLE = 0x81, 0x82  # first bytes: final, no reserved bit, and the opcode
_TEXT, _BINARY = Opcode.TEXT, Opcode.BINARY
_OPCODES = frozenset(Opcode)

_SHORT = struct.Struct("!BB4s").pack
_MEDIUM = struct.Struct("!BBH4s").pack
_LONG = struct.Struct("!BBQ4s").pack


def masked_frames(batch: Sequence[str | bytes]) -> list[bytes]:
    """Frame messages, each with a masking key of its own out of the operating system's randomness (section 5.3).

    Args:
        batch: ``str`` for text, bytes for binary.

    Returns:
        The frames in order, joined to one piece but for long ones.

    Raises:
        ValueError: a message is neither, or text that is no Unicode (``UnicodeEncodeError``).
    """
    pieces: list[bytes] = []
    parts: list[bytes] = []
    keys = os.urandom(4 * len(batch))
    at = joined = 0
    for message in batch:
        if isinstance(message, str):
            first, data = _TEXT_FRAME, message.encode()
        elif isinstance(message, bytes | bytearray | memoryview):
            first, data = _BINARY_FRAME, bytes(message)
        else:
            raise ValueError(f"a message is str or bytes, not {type(message).__name__}")  # noqa: TRY004 - as documented
        key = keys[at : at + 4]
        at += 4
        size = len(data)
        if size < 126:
            parts.append(_SHORT(first, 128 | size, key))
        elif size < 65536:
            parts.append(_MEDIUM(first, 254, size, key))
        else:
            parts.append(_LONG(first, 255, size, key))
        data = apply_mask(data, key)
        if size > 2 * _JOINED:
            pieces += (b"".join(parts), data)
            parts, joined = [], 0
            continue
        parts.append(data)
        joined += size
        if joined >= _JOINED:
            pieces.append(b"".join(parts))
            parts, joined = [], 0
    if parts:
        pieces.append(b"".join(parts))
    return pieces


class InboundFrames:
    """Makes messages of a node's bytes, however these are cut.

    Args:
        largest: what a message may have, as ``len()`` counts it.
    """

    __slots__ = (
        "_chunk",
        "_fragments",
        "_held",
        "_lacking",
        "_largest",
        "_library",
        "_owed",
        "_position",
        "_refused",
        "over",
    )

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._chunk: bytes | bytearray = b""
        self._position = 0
        # The beginning of a whole message, or of a frame's head, that the last chunk ended in, and what it lacks.
        self._held: bytearray | None = None
        self._lacking = 0  # 0 while the head is not whole
        self._owed = 0  # what the library still has to get of the frame that it has the beginning of
        # Not as frames, of which each takes 300 bytes, were it empty.
        self._fragments: tuple[Opcode, bytearray] | None = None
        # There while it has something to remember: most links have nothing but whole messages, hence no use for it.
        self._library: ClientProtocol | None = None
        self.over = False
        """True once no more messages come: after a close frame, a breach of the protocol, or the end of the stream."""
        self._refused: LinkEnd | None = None  # by us, where the library had no objection

    # --- bytes in ----------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """True while :meth:`take` has not been through all the bytes that were fed."""
        return self._position < len(self._chunk)

    def feed(self, data: bytes | bytearray) -> None:
        """Put bytes behind those that were fed before, all of which must have been taken; dropped once it is over.

        Args:
            data: bytes of the stream, which nobody changes afterwards.
        """
        assert not self.pending
        if not self.over:
            self._chunk, self._position = data, 0

    def end(self) -> None:
        """The stream has ended; idempotent. What was fed before must have been taken."""
        self.library.receive_eof()
        self.over = True
        self._chunk, self._position, self._held = b"", 0, None

    # --- messages out ------------------------------------------------------------------------------------------------

    def take(self, frames: int) -> list[str | bytes]:
        """Parse what was fed.

        Args:
            frames: the most frames to go through, of whatever kind.

        Returns:
            Whole messages in order. None at all does not say that none are there: while :attr:`pending` is true, call
            it again.
        """
        messages: list[str | bytes] = []
        if self._owed or self._held is not None:
            self._go_on(messages)
        chunk, position, largest = self._chunk, self._position, self._largest
        last = -1 if self.over else len(chunk) - 1
        whole = -1 if self._fragments else _TEXT_FRAME
        try:
            for _ in range(frames):
                if position >= last:
                    break
                # Whole messages of less than 64 KiB, that is nearly all of them, are parsed here and nowhere else.
                length = chunk[position + 1]
                if length == 126 and position + 3 <= last:
                    length = chunk[position + 2] << 8 | chunk[position + 3]
                    start = position + 4
                elif length > 125:
                    start = last + 2  # beyond what is there
                else:
                    start = position + 2
                stop = start + length
                if stop - 1 <= last and length <= largest and chunk[position] == whole:
                    messages.append(chunk[start:stop].decode())
                    position = stop
                else:
                    position = self._uncommon(messages, chunk, position)
                    if self.over:
                        break
                    whole = -1 if self._fragments else _TEXT_FRAME
        except UnicodeDecodeError:
            self._refuse(1007, "a text message is not UTF-8")
        if position == last and not self.over:
            position = self._hold(chunk, position, 0)
        if position > last or self.over:
            chunk, position = b"", 0  # it would be kept for as long as the link is idle
        self._chunk, self._position = chunk, position
        return messages

    def _uncommon(self, messages: list[str | bytes], chunk: bytes | bytearray, position: int) -> int:
        """Deal with a frame of any kind of which two bytes are there, and return where it, or what is there, ends."""
        end = len(chunk)
        first, length, start = chunk[position], chunk[position + 1], position + 2
        if length > 127 or first & 0x0F not in _OPCODES:
            self._pass_on(messages, chunk[position:])  # masked, or of no known kind: the library fails on two bytes
            return end
        if length > 125:
            start += 2 if length == 126 else 8
            if start > end:
                return self._hold(chunk, position, 0)
            length = int.from_bytes(chunk[position + 2 : start], "big")
        stop = start + length
        if first in _WHOLE and self._fragments is None and length <= self._largest * _BYTES_PER_CHARACTER:
            if stop > end:
                return self._hold(chunk, position, stop - end)
            self._deliver(messages, first, memoryview(chunk)[start:stop])
            return stop
        self._owed = max(stop - end, 0)
        self._pass_on(messages, chunk[position : min(stop, end)])
        return min(stop, end)

    def _hold(self, chunk: bytes | bytearray, position: int, lacking: int) -> int:
        self._held = bytearray(memoryview(chunk)[position:])
        self._lacking = lacking
        return len(chunk)

    def _go_on(self, messages: list[str | bytes]) -> None:
        """Give the frame that the last chunk ended in what of it stands in this one."""
        chunk, held = self._chunk, self._held
        if not chunk:
            return
        if held is None:
            self._position = min(self._owed, len(chunk))
            self._owed -= self._position
            self._pass_on(messages, chunk[: self._position])
        elif not self._lacking:
            self._held = None
            self._chunk = bytes(held) + chunk
        else:
            self._position = min(self._lacking, len(chunk))
            self._lacking -= self._position
            held += memoryview(chunk)[: self._position]
            if not self._lacking:
                self._held = None
                head = 2 if held[1] < 126 else 4 if held[1] == 126 else 10
                self._deliver(messages, held[0], memoryview(held)[head:])

    def _deliver(self, messages: list[str | bytes], first: int, data: memoryview) -> None:
        try:
            message = str(data, "utf-8") if first == _TEXT_FRAME else bytes(data)
        except UnicodeDecodeError:
            self._refuse(1007, "a text message is not UTF-8")
            return
        if len(message) > self._largest:
            self._refuse(1009, self._too_big)
            return
        messages.append(message)

    def _refuse(self, code: int, reason: str) -> None:
        self._refused = LinkEnd(code, reason)
        self.over = True
        self.library.fail(code, reason)

    # --- what websockets decides about -------------------------------------------------------------------------------

    @property
    def library(self) -> ClientProtocol:
        """The state of the link, and who writes control frames; made anew after :meth:`to_send` let the last one go."""
        if self._library is None:
            size = self._largest * _BYTES_PER_CHARACTER
            self._library = ClientProtocol(NODE, state=State.OPEN, max_size=size, logger=SILENT)
        return self._library

    @property
    def open(self) -> bool:
        """False once a close frame was sent or received, or the stream has ended: no message may be sent then."""
        return self._library is None or self._library.state is State.OPEN

    @property
    def closed(self) -> bool:
        """True once the stream has ended."""
        return self._library is not None and self._library.state is State.CLOSED

    @property
    def refused(self) -> bool:
        """True where a message was refused here, and not by the library."""
        return self._refused is not None

    def ending(self) -> LinkEnd | None:
        """How it ended, in the peer's own words; ``None`` while it has not, and where the stream just ended."""
        library = self.library
        received, failure, sent = library.close_rcvd, library.parser_exc, library.close_sent
        if received is not None:  # also where the library objects, because it cut a fragmented message off
            return LinkEnd(received.code, received.reason)
        if isinstance(failure, PayloadTooBig):
            return LinkEnd(1009, self._too_big)
        if failure is not None and not isinstance(failure, EOFError) and sent is not None:
            return LinkEnd(sent.code, sent.reason)
        return self._refused

    @property
    def _too_big(self) -> str:
        return f"a message exceeds the limit of {self._largest} bytes"

    def send_close(self, code: int, reason: str) -> None:
        """Have a close frame written; no message may be sent after it.

        Args:
            code: the close code.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: no frame may carry this code.
        """
        try:
            self.library.send_close(code, reason)
        except ProtocolError as error:
            raise ValueError(str(error)) from None

    def to_send(self) -> list[bytes]:
        """What is to be written for the protocol's own sake, pongs and close frames; each is returned once."""
        library = self._library
        if library is None:
            return []
        # At the end of a frame, with nothing begun, nothing distinguishes it from a new one; and it takes 4 KiB.
        if library.state is State.OPEN and not (self.over or self._owed or self._fragments):
            self._library = None
        return [data for data in library.data_to_send() if data]  # an empty one stands for the end of the stream

    def _pass_on(self, messages: list[str | bytes], data: bytes | bytearray) -> None:
        library = self.library
        library.receive_data(data)
        for frame in library.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode > _BINARY:
                continue  # a control frame, dealt with
            begun = self._fragments or (frame.opcode, bytearray())
            begun[1].extend(frame.data)
            self._fragments = None if frame.fin else begun
            if frame.fin:
                first = _TEXT_FRAME if begun[0] is _TEXT else _BINARY_FRAME
                self._deliver(messages, first, memoryview(begun[1]))
        self.over = self.over or library.parser_exc is not None or library.close_rcvd is not None
