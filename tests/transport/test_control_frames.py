"""Control frames lose the key, everything else passes untouched, however the bytes are cut."""

from __future__ import annotations

import itertools
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from layr8_actors.transport import Secret
from layr8_actors.transport.control_frames import ControlFrames

KEY = "needle/4711"


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    head = bytes((opcode | (0x80 if fin else 0),))
    if len(payload) < 126:
        return head + bytes((len(payload),)) + payload
    if len(payload) < 65536:
        return head + b"\x7e" + len(payload).to_bytes(2, "big") + payload
    return head + b"\x7f" + len(payload).to_bytes(8, "big") + payload


def feed(data: bytes, cuts: list[int], key: str = KEY) -> bytes:
    """What is passed on of a stream cut at these places."""
    frames = ControlFrames(Secret(key))
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return b"".join(bytes(frames.feed(data[a:b])) for a, b in itertools.pairwise(places) if a != b)


SAID = [KEY.encode(), quote(KEY, safe="").encode(), b"bmVlZGxlLzQ3MTE"]
payloads = st.builds(
    lambda before, said, after: before + said + after,
    st.binary(max_size=30),
    st.sampled_from([b"", *SAID]),
    st.binary(max_size=30),
)
data_frames = st.builds(
    frame,
    st.sampled_from([0x0, 0x1, 0x2]),
    payloads | st.integers(0, 400).map(lambda size: (KEY.encode() * 40)[:size]),
    fin=st.booleans(),
)
control_frames = st.builds(frame, st.sampled_from([0x8, 0x9, 0xA]), payloads)


@given(st.lists(data_frames | control_frames, max_size=8), st.lists(st.integers(0, 4000), max_size=12))
def test_data_frames_pass_as_they_are_and_control_frames_without_the_key(frames: list[bytes], cuts: list[int]) -> None:
    def expected(one: bytes) -> bytes:
        if not one[0] & 0x08:
            return one
        payload = one[2:]
        for said in SAID:
            payload = payload.replace(said, b"***")
        return frame(one[0] & 0x0F, payload)

    assert feed(b"".join(frames), cuts) == b"".join(map(expected, frames))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_any_bytes_at_all_come_out_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    assert feed(data, cuts) == feed(data, [])


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 300_000])
def test_messages_of_all_lengths_pass_with_the_key_in_them(size: int) -> None:
    data = frame(0x2, (KEY.encode() * (size // 5 + 1))[:size])
    end = frame(0x8, b"\x03\xe8" + KEY.encode())
    for cuts in ([], [1], [2, 3], [4, 9, 10, 11], [size, size + 5], [size + 12, size + 13]):
        assert feed(data + end, cuts) == data + frame(0x8, b"\x03\xe8***")


@pytest.mark.parametrize(
    "breach",
    [
        b"\x88\x7e\x00\x01x",  # a control frame with an extended length
        b"\x81\x84abcd1234",  # a masked frame, which only a client may send
    ],
)
def test_from_a_breach_of_the_framing_on_bytes_pass_as_they_are(breach: bytes) -> None:
    data = breach + frame(0x8, b"\x03\xe8" + KEY.encode())
    assert feed(data, []) == data


def test_a_control_frame_that_never_ends_holds_no_more_than_its_own_125_bytes() -> None:
    frames = ControlFrames(Secret(KEY))
    assert frames.feed(b"\x81\x02hi\x88\x7d" + b"x" * 124) == b"\x81\x02hi"
    assert frames.feed(b"x") == b"\x88\x7d" + b"x" * 125


def test_a_key_too_short_to_look_for_costs_nothing() -> None:
    data = frame(0x8, b"\x03\xe8short")
    assert ControlFrames(Secret("short")).feed(data) is data
