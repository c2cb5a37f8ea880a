"""What a frame costs without a socket: ours by hand against the parser and the writer of websockets, in one run.

    python bench/framing.py

The limit is a share of what websockets takes for the same frames in the same run, since no two machines are alike.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from layr8_actors.transport.framing import NODE, InboundFrames, masked_frames

SIZES = {620: 420, 4_400: 60, 65_856: 4}
"""Bytes of a message, as one of 300 B, 4 KB and 64 KB has on the wire, and how many of them one read gives."""
LIMIT = 0.5
"""Of websockets' time, at the smallest size: measured are 0.10 for reading and 0.27 for writing."""


def cost(body: Callable[[], object], frames: int) -> float:
    """Microseconds per frame, the best of five."""
    times = max(1, 4_000 // frames)
    return min(timeit.repeat(body, number=times, repeat=5)) / times / frames * 1e6


def main() -> None:
    """Measure, print a table, and fail where the smallest messages are over the limit."""
    library = ClientProtocol(NODE, state=State.OPEN, max_size=32 * 1024 * 1024)
    over = []
    print("| bytes | read: ours, us | websockets | write: ours, us | websockets |")
    print("|---|---|---|---|---|")
    for size, count in SIZES.items():
        stream = bytes(Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)) * count
        batch = ["x" * size] * count
        ours = InboundFrames(8 * 1024 * 1024)

        def read(ours: InboundFrames = ours, stream: bytes = stream) -> list[str | bytes]:
            ours.feed(stream)
            return ours.take(4096)

        def read_by_library(stream: bytes = stream) -> list[str]:
            library.receive_data(stream)
            return [str(frame.data, "utf-8") for frame in library.events_received() if isinstance(frame, Frame)]

        def write_by_library(batch: list[str] = batch) -> bytes:
            for message in batch:
                library.send_text(message.encode())
            return b"".join(library.data_to_send())

        assert len(read()) == len(read_by_library()) == count
        reading, parsing = cost(read, count), cost(read_by_library, count)
        writing, serializing = cost(lambda batch=batch: masked_frames(batch), count), cost(write_by_library, count)
        print(f"| {size} | {reading:.2f} | {parsing:.2f} | {writing:.2f} | {serializing:.2f} |")
        if size == min(SIZES) and max(reading / parsing, writing / serializing) > LIMIT:
            over.append(f"{size} B: {reading / parsing:.2f} and {writing / serializing:.2f} of websockets' time")
    if over:
        raise SystemExit(f"over the limit of {LIMIT}: {'; '.join(over)}")


if __name__ == "__main__":
    main()
