"""The peer's control frames, with the key taken out of them before a WebSocket library sees them.

trio-websocket logs each close reason and each ping payload at DEBUG, through a logger of its own: only what never comes
to it cannot stand there. So the stream beneath it walks over the frames (RFC 6455 section 5.2): messages pass as they
are, unread, and a control frame (at most 125 bytes, never fragmented) is held until it is whole.
"""

from __future__ import annotations

from .redaction import SHORTEST_KEY, redact_bytes
from .secret import Secret

__all__ = ("ControlFrames",)

_CONTROL = 0x08  # the bit that the opcodes of close, ping and pong have, and those of data frames have not


class ControlFrames:
    """Passes the bytes of a server on, and rewrites the control frames among them that hold the key.

    Args:
        key: what to look for.

    From the first breach of the framing on, bytes pass as they are: the library ends the link at the same one.
    """

    __slots__ = ("_held", "_key", "_off", "_rest")

    def __init__(self, key: Secret) -> None:
        self._key = key
        self._off = len(key.reveal()) < SHORTEST_KEY
        self._rest = 0  # bytes to come of the data frame that the last chunk ended in
        self._held = b""

    def feed(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return what of ``data``, and of what was held back before, can be passed on now; never blocks.

        Args:
            data: bytes of the stream, cut anywhere.

        Returns:
            The bytes, without an unfinished frame head or control frame at their end; maybe none.
        """
        if self._off:
            return data
        if self._rest >= len(data):
            self._rest -= len(data)
            return data
        if self._held:
            data = self._held + data
        position, self._rest, self._held = self._rest, 0, b""
        size = len(data)
        passed = bytearray()
        start = 0  # of what is not in `passed` yet
        while position < size:
            end = _end_of_frame(data, position, size)
            if end < 0:
                self._off = True
                break
            if data[position] & _CONTROL or end == 0:
                if not 0 < end <= size:
                    self._held = bytes(data[position:])
                    break
                payload = bytes(data[position + 2 : end])
                redacted = redact_bytes(payload, self._key)
                if redacted != payload:
                    passed += data[start:position]
                    passed += bytes((data[position], len(redacted)))
                    passed += redacted
                    start = end
            elif end > size:
                self._rest = end - size
            position = end
        if not passed and not self._held:
            return data
        passed += data[start : size - len(self._held)]
        return passed


def _end_of_frame(data: bytes | bytearray, position: int, size: int) -> int:
    """Where the frame ends that begins at ``position``: 0 where its head is not whole, -1 where it breaks the rules."""
    if size - position < 2:
        return 0
    length = data[position + 1]
    if length < 126:  # the mask bit is not set, and the length stands in the second byte itself
        return position + 2 + length
    if length > 127 or data[position] & _CONTROL:
        return -1
    head = position + (4 if length == 126 else 10)
    if size < head:
        return 0
    return head + int.from_bytes(data[position + 2 : head], "big")
