"""Our framing against the parser of websockets itself, and against its server: any bytes, cut anywhere."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from fuzz.frames import LARGEST, ours, reference, written
from layr8_actors.transport.framing import InboundFrames, masked_frames


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, mask: bool = False, width: int = 0) -> bytes:
    """A frame as a server should write it, or should not; ``width`` takes a longer length field than needed."""
    size = len(payload)
    code = max(0 if size < 126 else 2 if size < 65536 else 8, width)
    second = {0: size, 2: 126, 8: 127}[code]
    head = bytes((opcode | rsv | (0x80 if fin else 0), second | (0x80 if mask else 0)))
    return head + (size.to_bytes(code, "big") if code else b"") + (b"\x00" * 4 if mask else b"") + payload


texts = st.text(max_size=30).map(str.encode)
long_texts = st.integers(0, 5 * LARGEST).map(lambda size: ("ü" * size).encode()[:size])
payloads = texts | st.binary(max_size=30) | long_texts
widths = st.sampled_from([0, 0, 0, 2, 8])
whole = st.builds(frame, st.sampled_from([1, 1, 1, 2]), texts, width=widths)
large = st.builds(frame, st.sampled_from([1, 2]), long_texts, width=widths)
fragment = st.builds(frame, st.sampled_from([0, 0, 0, 1, 2]), payloads, fin=st.booleans(), width=widths)
control = st.builds(frame, st.sampled_from([0x9, 0xA]), st.binary(max_size=125))
close = st.builds(
    lambda code, text: frame(0x8, code.to_bytes(2, "big") + text), st.sampled_from([1000, 1012, 4000, 1005, 7]), texts
)
broken = st.one_of(
    st.builds(frame, st.integers(0, 15), payloads, fin=st.booleans(), rsv=st.sampled_from([0, 0x10, 0x20, 0x40])),
    st.builds(frame, st.integers(0, 15), payloads, fin=st.booleans(), mask=st.booleans(), width=widths),
    st.just(frame(0x8, b"")),
    st.just(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"),
    st.just(b"\x89\x7f\xff"),
    st.binary(max_size=20),
)
fragmented = st.lists(payloads | texts, min_size=1, max_size=4).map(
    lambda parts: b"".join(frame(0 if at else 1, part, fin=at == len(parts) - 1) for at, part in enumerate(parts))
)
streams = st.lists(
    st.one_of(whole, whole, whole, large, fragmented, fragment, control, close, broken), max_size=10
).map(b"".join)


@settings(max_examples=300)
@given(streams, st.lists(st.integers(0, 4000), max_size=12), st.integers(1, 6), st.booleans(), st.booleans())
@example(b"\x83", [], 1, False, True)
@example(b"\x83\x7e", [], 1, False, True)
@example(b"\x81\xfe", [1], 1, False, False)
@example(b"\x81\x02a", [], 1, False, True)
@example(b"\x01\x01a\x81\x01b", [], 6, False, False)
@example(b"\x01\x01a\x88\x02\x03\xe8\x81\x01b", [], 6, False, True)
@example(b"\x81\x01\xff\x88\x02\x03\xe8", [], 6, True, True)
def test_any_stream_cut_anywhere_is_to_us_what_it_is_to_websockets(
    data: bytes, cuts: list[int], at_once: int, closing: bool, end: bool
) -> None:
    assert ours(data, cuts, at_once, closing=closing, end=end) == reference(data, closing=closing, end=end)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_any_bytes_at_all_are_to_us_what_they_are_to_websockets(data: bytes, cuts: list[int], end: bool) -> None:
    assert ours(data, cuts, 3, closing=False, end=end) == reference(data, closing=False, end=end)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 300_000])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000, 65536, 10**7])
def test_messages_of_all_lengths_arrive_however_they_are_cut(size: int, step: int) -> None:
    if size > 1000 and step < 1000:
        step *= 5000
    text, data = "ü" * (size // 2) + "x" * (size % 2), os.urandom(size)
    stream = frame(1, text.encode()) + frame(2, data) + frame(9, b"?") + frame(1, b"end")
    frames = InboundFrames(10**6)
    got: list[str | bytes] = []
    for at in range(0, len(stream), step):
        frames.feed(stream[at : at + step])
        while frames.pending:
            got += frames.take(100)
    assert got == [text, data, "end"]
    assert written(b"".join(frames.to_send())) == [(0xA, b"?")]


def test_a_bytearray_that_was_fed_gives_messages_that_do_not_change() -> None:
    data = bytearray(frame(2, b"abc") + frame(1, b"text"))
    frames = InboundFrames(100)
    frames.feed(data)
    got = frames.take(10)
    data[:] = b"\x00" * len(data)
    assert got == [b"abc", "text"]
    assert [type(message) for message in got] == [bytes, str]


def test_no_more_frames_are_gone_through_at_once_than_asked_for() -> None:
    frames = InboundFrames(100)
    frames.feed(frame(1, b"a") * 5 + frame(9, b"") * 3 + frame(1, b"b"))
    assert [len(frames.take(2)) for _ in range(5)] == [2, 2, 1, 0, 1]
    assert not frames.pending


def test_the_library_is_there_only_while_it_has_something_to_remember() -> None:
    frames = InboundFrames(100)
    assert frames._library is None
    for data in (frame(9, b"ping"), frame(0, b"b"), frame(1, b"whole")):
        if data[0] == 0x80:
            frames.feed(frame(1, b"a", fin=False))
            frames.take(9)
            frames.to_send()
            assert frames._library is not None
        frames.feed(data)
        frames.take(9)
        frames.to_send()
        assert frames._library is None
        assert frames.open
    frames.send_close(1000, "")
    frames.to_send()
    assert not frames.open


def test_bytes_behind_a_close_frame_are_not_kept() -> None:
    frames = InboundFrames(100)
    frames.feed(frame(8, b"\x03\xe8") + frame(1, b"late"))
    assert frames.take(10) == []
    frames.feed(b"x" * 1000)
    assert not frames.pending


# --- writing ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200)), max_size=20))
def test_what_is_framed_is_what_a_server_reads(batch: list[str | bytes]) -> None:
    assert written(b"".join(masked_frames(batch))) == [
        (1, message.encode()) if isinstance(message, str) else (2, message) for message in batch
    ]


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 131072, 131073, 400_000])
def test_messages_of_all_lengths_are_framed_in_order_and_long_ones_are_not_copied_together(size: int) -> None:
    batch: list[Any] = ["first", "x" * size, b"y" * size, bytearray(b"z"), memoryview(b"last")]
    pieces = masked_frames(batch)
    assert written(b"".join(pieces)) == [
        (1, b"first"),
        (1, b"x" * size),
        (2, b"y" * size),
        (2, b"z"),
        (2, b"last"),
    ]
    assert len(pieces) == (1 if size <= 126 else 3 if size <= 131072 else 5)


def test_each_frame_has_a_masking_key_of_its_own_out_of_urandom(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return bytes(range(1, size + 1))

    monkeypatch.setattr(os, "urandom", urandom)
    (piece,) = masked_frames(["\x00" * 4, b"\x00" * 200])
    assert asked == [8]
    assert piece[2:6] == b"\x01\x02\x03\x04" == piece[6:10]
    assert piece[14:18] == b"\x05\x06\x07\x08" == piece[18:22]


@pytest.mark.parametrize("bad", [3, None, "\ud800"])
def test_what_is_no_message_is_refused_whole(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"str or bytes|surrogates"):
        masked_frames(["good", bad])
