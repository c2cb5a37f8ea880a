"""Any bytes of a node, cut anywhere, into our framing: to us they are what they are to websockets' own parser.

The first four bytes say how the rest is cut, how many frames are taken at once, whether we have sent a close frame
before, and whether the stream ends behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from layr8_actors.transport.framing import NODE, SILENT, InboundFrames

__all__ = ("LARGEST", "check", "ours", "reference", "written")

LARGEST = 200
_HEAD = 4


def check(data: bytes) -> None:
    """Read a stream both ways, and compare."""
    if len(data) < _HEAD:
        return
    cut, at_once, flags, seed = data[:_HEAD]
    stream = data[_HEAD:]
    random = Random(seed)
    cuts = range(cut, len(stream), cut) if cut > 127 else [random.randrange(4096) for _ in range(cut)]
    closing, end = bool(flags & 1), bool(flags & 2)
    mine = ours(stream, cuts, at_once % 8 + 1, closing=closing, end=end)
    theirs = reference(stream, closing=closing, end=end)
    assert mine == theirs, f"{mine} is not {theirs}"


def written(data: bytes) -> list[tuple[int, bytes]]:
    """Opcodes and payloads of what a client wrote, as a server understands it."""
    server = ServerProtocol(state=State.OPEN, max_size=None, logger=SILENT)
    server.receive_data(data)
    assert server.parser_exc is None
    return [(int(event.opcode), bytes(event.data)) for event in server.events_received() if isinstance(event, Frame)]


def reference(data: bytes, *, closing: bool, end: bool) -> dict[str, Any]:
    """What websockets makes of it alone, asked after each byte, with our limits on whole messages."""
    library = ClientProtocol(NODE, state=State.OPEN, max_size=LARGEST * 4, logger=SILENT)
    if closing:
        library.send_close(1000)
    messages: list[Any] = []
    refused = 0
    parts = b""
    text = False
    for byte in data:
        if library.parser_exc is not None or library.close_rcvd is not None or refused:
            break
        library.receive_data(bytes([byte]))
        for event in library.events_received():
            assert isinstance(event, Frame)
            if event.opcode > Opcode.BINARY:
                continue
            text = event.opcode is Opcode.TEXT if event.opcode else text
            parts += event.data
            if event.fin:
                message: str | bytes = parts
                parts = b""
                if text:
                    try:
                        message = bytes(message).decode()  # type: ignore[arg-type]
                    except UnicodeDecodeError:
                        refused = 1007
                if not refused and len(message) > LARGEST:
                    refused = 1009
                if refused:
                    library.fail(refused)
                else:
                    messages.append(message)
    if end:
        library.receive_eof()
    return outcome(library, messages, refused, b"".join(library.data_to_send()))


def ours(data: bytes, cuts: Sequence[int], at_once: int, *, closing: bool, end: bool) -> dict[str, Any]:
    frames = InboundFrames(LARGEST)
    sent = b""
    if closing:
        frames.send_close(1000, "")
    messages: list[Any] = []
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for first, last in itertools.pairwise(places):
        if first == last:
            continue
        frames.feed(data[first:last])
        while frames.pending:
            messages += frames.take(at_once)
            sent += b"".join(frames.to_send())
    if end:
        frames.end()
        assert frames.take(at_once) == []
    refused = frames.ending()
    code = refused.code if frames.refused and refused is not None else 0
    return outcome(frames.library, messages, code, sent + b"".join(frames.to_send()))


def outcome(library: ClientProtocol, messages: list[Any], refused: int, sent: bytes) -> dict[str, Any]:
    frames = written(sent)
    return {
        "messages": [(type(message), message) for message in messages],
        "refused": refused if library.close_rcvd is None and library.parser_exc is None else 0,
        "failure": type(library.parser_exc),
        "received": library.close_rcvd,
        "state": library.state,
        # The text of a close frame may differ, its code may not.
        "sent": [(opcode, payload[:2] if opcode == Opcode.CLOSE else payload) for opcode, payload in frames],
    }
