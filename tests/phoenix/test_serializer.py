"""Frames to WebSocket messages and back: text, binary, limits and everything that is no frame."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import gc
import json
import math
import sys
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from layr8_actors.errors import FrameTooDeep, FrameTooLarge, InvalidOption, LocalProtocolError, MalformedFrame
from layr8_actors.phoenix import MAX_CONTAINERS, MAX_DEPTH, MAX_SIZE, Frame, Serializer, serializer as serializer_module
from layr8_actors.phoenix.serializer import _brackets_outside_strings

SERIALIZER = Serializer()

SECRET = "hunter2"


def nested(depth: int, *, objects: bool = False) -> Any:
    """A value whose arrays or objects nest this deep."""
    value: Any = 0
    for _ in range(depth):
        value = {"a": value} if objects else [value]
    return value


def push_of(payload: Any) -> Frame:
    return Frame("1", "2", "t", "e", payload)


# --- text: decoding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('["1","2","t","e",{"a":[1]}]', Frame("1", "2", "t", "e", {"a": [1]})),
        (' [ null , null , "t" , "e" , null ] ', Frame(None, None, "t", "e", None)),
        ('[1,2,"t","e",3.5]', Frame(1, 2, "t", "e", 3.5)),
        ('[null,"2",42,"phx_reply",{}]', Frame(None, "2", 42, "phx_reply", {})),
        ('["1","2","t","e",{},"extra",[{}]]', Frame("1", "2", "t", "e", {})),
        ('["1","2","t","e",{"a":1,"a":2}]', Frame("1", "2", "t", "e", {"a": 2})),
        ('["1","2","t","e",100000000000000000000000000000]', Frame("1", "2", "t", "e", 10**29)),
        ('["1","2","日本","e","\\ud83d\\ude00 ✓"]', Frame("1", "2", "日本", "e", "😀 ✓")),
        ('["","","","",""]', Frame("", "", "", "", "")),
    ],
)
def test_a_text_message_that_is_a_frame_is_decoded(text: str, frame: Frame) -> None:
    assert SERIALIZER.decode(text) == frame


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ("hunter2", "JSON is malformed: invalid character"),
        ("\ufeff[1]", "JSON is malformed"),
        ('["1","2","t","e",{}', "truncated"),
        ('["1","2","t","e",{}] ["hunter2"]', "trailing characters"),
        ('["1","2","t","hunter2"]', "at least length 5, got 4"),
        ("[]", "at least length 5, got 0"),
        ('"hunter2"', "Expected `array`, got `str`"),
        ("null", "Expected `array`, got `null`"),
        ('{"topic":"hunter2"}', r"got `object` \(an object is a V1 frame: is vsn=2.0.0 in the URL\?\)"),
        ('  {"topic":"hunter2"}', "V1 frame"),
        ('[true,"2","t","e",{}]', r"Expected `int \| str \| null`, got `bool` - at `\$\[0\]`"),
        ('["1",2.5,"t","e",{}]', r"got `float` - at `\$\[1\]`"),
        ('["1",{"hunter2":1},"t","e",{}]', r"got `object` - at `\$\[1\]`"),
        ('["1","2",null,"e",{}]', r"got `null` - at `\$\[2\]`"),
        ('["1","2","t",null,{}]', r"got `null` - at `\$\[3\]`"),
        ('["1","2","t",7,{}]', r"got `int` - at `\$\[3\]`"),
        ('["1","2","t","e",NaN]', "JSON is malformed: invalid character"),
        ('["1","2","t","e",-Infinity]', "JSON is malformed: invalid character"),
        ('["1","2","t","e",1e999]', "Number out of range"),
        ('["1","2","t","e",' + "9" * 5000 + "]", "Integer value out of range"),
        ('["1","2","t","e",{"hunter2":' + "9" * 5000 + "}]", "Integer value out of range"),
        ('["1","2","t","e","hunter2 \\ud800 and more text"]', "utf-16 surrogate pair"),
        ('["1","2","t","e","\\udc00 hunter2 and more text"]', "utf-16 surrogate pair"),
        ('["1","2","t","e","\ud800 hunter2"]', "a lone surrogate"),
        ('["1","2","t","e",{"\ud800":"hunter2"}]', "a lone surrogate"),
    ],
)
def test_a_text_message_that_is_no_frame_is_refused_without_quoting_it(text: str, says: str) -> None:
    with pytest.raises(MalformedFrame, match=says) as caught:
        SERIALIZER.decode(text)
    assert SECRET not in str(caught.value)
    # Nor does it drag the message along in the error that it was made from.
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_decoding_leaves_frames_that_are_no_array_to_the_error_and_not_to_the_caller() -> None:
    assert not issubclass(MalformedFrame, ValueError)
    assert issubclass(FrameTooLarge, MalformedFrame)
    assert issubclass(FrameTooDeep, MalformedFrame)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_largest_text_message_allowed_is_counted_in_bytes_of_utf8() -> None:
    head, tail = '["1","2","t","e","', '"]'
    serializer = Serializer(max_size=len(head) + len(tail) + 30)
    for character in ("a", "é", "✓", "😀"):
        size = len(character.encode())
        fits = head + character * (30 // size) + tail
        assert serializer.decode(fits).payload == character * (30 // size)
        with pytest.raises(FrameTooLarge, match=r"a message of \d+ bytes; at most 50 are accepted"):
            serializer.decode(head + character * (30 // size + 1) + tail)


def test_a_large_message_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(FrameTooLarge):
        Serializer(max_size=10).decode("not JSON, " * 10)
    with pytest.raises(FrameTooLarge):
        Serializer(max_size=10).decode("\ud800" * 10)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":[', "]}")])
def test_a_message_of_more_containers_than_the_limit_is_refused_before_they_are_made(
    opening: str, closing: str
) -> None:
    each = len([character for character in opening if character in "[{"])

    def message(containers: int) -> str:
        return '["1",null,"t","e",[' + ",".join([opening + closing] * (containers // each)) + "]]"

    assert SERIALIZER.decode(message(MAX_CONTAINERS - 2)).event == "e"
    with pytest.raises(FrameTooLarge, match="arrays and objects; at most 250000 are accepted"):
        SERIALIZER.decode(message(MAX_CONTAINERS))


def test_brackets_in_strings_are_no_containers() -> None:
    text = "[{" * 200_000 + '\\"[' * 10
    frame = Frame("1", None, "t", "e", {text: [text]})
    assert SERIALIZER.decode(SERIALIZER.encode(frame)) == frame
    with pytest.raises(MalformedFrame):
        SERIALIZER.decode('["1",null,"t","e","' + "[" * 300_000)  # a string without an end


@given(
    st.recursive(st.text(alphabet='[{"\\a'), lambda inner: st.lists(inner) | st.dictionaries(st.text('"[\\'), inner))
)
@settings(max_examples=50)
def test_containers_are_counted_exactly_whatever_stands_in_strings(payload: Any) -> None:
    def containers(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + sum(map(containers, value.values()))
        return 1 + sum(map(containers, value)) if isinstance(value, list) else 0

    assert _brackets_outside_strings(json.dumps(payload)) == containers(payload)


def test_binary_messages_have_the_same_bound_in_both_directions() -> None:
    serializer = Serializer(max_size=8)
    assert serializer.decode(b"\x02\x01\x01te123").payload == b"123"
    assert serializer.decode_push(b"\x00\x00\x00\x01\x01te1").payload == b"1"
    for decode in (serializer.decode, serializer.decode_push):
        with pytest.raises(FrameTooLarge, match="a message of 9 bytes; at most 8 are accepted"):
            decode(b"\x02\x01\x01te1234")


@pytest.mark.parametrize("objects", [False, True])
def test_a_payload_may_nest_as_deep_as_the_limit_and_no_deeper(objects: bool) -> None:
    serializer = Serializer(max_depth=5)
    for depth in range(6):
        text = json.dumps(["1", "2", "t", "e", nested(depth, objects=objects)])
        assert serializer.decode(text).payload == nested(depth, objects=objects)
    with pytest.raises(FrameTooDeep, match="arrays and objects nest deeper than 5 levels"):
        serializer.decode(json.dumps(["1", "2", "t", "e", nested(6, objects=objects)]))


def test_brackets_that_do_not_nest_are_no_depth() -> None:
    serializer = Serializer(max_depth=3)
    payload = {"text": "[[[[[[{{{{{{", "rows": [{"id": number} for number in range(100)]}
    assert serializer.decode(json.dumps(["1", "2", "t", "e", payload])).payload == payload
    assert serializer.decode('["1","2","t","e","[[[[[["]').payload == "[[[[[["


@pytest.mark.parametrize("size", [0, 1000, 300_000])
@pytest.mark.parametrize("objects", [False, True])
def test_a_payload_that_nests_deeper_than_most_is_decoded_like_any_other(objects: bool, size: int) -> None:
    for depth in (*range(13), 63, 64):
        payload = nested(depth - 1, objects=objects) if depth else 0
        payload = {"deep": payload, "text": "x" * size} if depth else "x" * size
        frame = SERIALIZER.decode(json.dumps(["1", "2", "t", "e", payload, "extra"]))
        assert type(frame) is Frame
        assert frame == Frame("1", "2", "t", "e", payload)
    too_deep = {"deep": nested(64, objects=objects), "text": "x" * size}
    with pytest.raises(FrameTooDeep):
        SERIALIZER.decode(json.dumps(["1", "2", "t", "e", too_deep]))


NUMBERS = ("0", "-0", "-0.0", "1e2", "1E400", "0.1e-400", "18446744073709551616", "9223372036854775808", "1" * 500)
ODD = (*NUMBERS, "NaN", "01", "1.", "tru", "null", "true", '"2026-11-24T00:00:00Z"', '"\\ud800"', '"\\u00"', "1" * 5000)


@pytest.mark.parametrize("wrap", ["%s", "[%s]", '{"a":%s}', '{"a":1,"a":%s}', "[[[[[[[[[%s]]]]]]]]]"])
@pytest.mark.parametrize("value", ODD)
def test_a_payload_reads_as_json_says_whatever_decoder_is_asked(value: str, wrap: str) -> None:
    text = wrap % value
    try:
        expected = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        with pytest.raises(MalformedFrame):
            SERIALIZER.decode(f'["1","2","t","e",{text}]')
    else:
        found = SERIALIZER.decode(f'["1","2","t","e",{text}]').payload
        assert repr(found) == repr(expected)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_nesting_without_end_is_an_error_and_not_a_crash(opening: str) -> None:
    with pytest.raises(FrameTooDeep):
        SERIALIZER.decode('["1","2","t","e",' + opening * 100_000)


def test_a_limit_above_what_the_stack_carries_still_ends_in_a_typed_error() -> None:
    serializer = Serializer(max_depth=10**6)
    depth = sys.getrecursionlimit() * 20
    with pytest.raises(FrameTooDeep):
        serializer.decode('["1","2","t","e",' + "[" * depth + "]" * depth + "]")
    with pytest.raises(LocalProtocolError, match="nesting deeper"):
        serializer.encode(push_of(nested(depth)))


def test_the_defaults_are_what_the_documentation_says() -> None:
    serializer = Serializer()
    assert (serializer.max_size, serializer.max_depth) == (MAX_SIZE, MAX_DEPTH) == (8 * 1024 * 1024, 64)


@pytest.mark.parametrize("option", ["max_size", "max_depth"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "8", None])
def test_a_wrong_limit_is_refused_by_name_and_type(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"{option}: got a value of type {type(value).__name__}; allowed: a posi"):
        Serializer(**{option: value})


# --- text: encoding ---------------------------------------------------------------------------------------------------


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Plain(enum.Enum):
    ONE = 1


class Nested(enum.Enum):
    ONE = {"ids": (1, Colour.RED)}  # noqa: RUF012 - a value like any other


class Deep(enum.Enum):
    ONE = [[[1]]]  # noqa: RUF012 - likewise


DEEP = Deep.ONE


class Wrong(enum.Enum):
    DAY = datetime.date(2026, 1, 1)


class Ratio(float, enum.Enum):
    HALF = 0.5


class SubStr(str):
    pass


class SubInt(int):
    pass


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Record:
    x: int = 1


class Struct(msgspec.Struct):
    x: int = 1


def test_a_frame_is_written_as_compact_json() -> None:
    frame = Frame("1", "2", "plugins:é", "message", {"a": [1, 2.5, None, True], "b": "✓"})
    assert SERIALIZER.encode(frame) == '["1","2","plugins:é","message",{"a":[1,2.5,null,true],"b":"✓"}]'


@pytest.mark.parametrize(
    ("payload", "written"),
    [
        (None, None),
        (False, False),
        (10**29, 10**29),
        ((1, (2,), ()), [1, [2], []]),
        (Point(1, 2), [1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (Colour.RED, "red"),
        ({"level": Level.HIGH}, {"level": 3}),
        ({Colour.RED: 1}, {"red": 1}),
        ([Ratio.HALF], [0.5]),
        ([Plain.ONE, {"nested": Nested.ONE}], [1, {"nested": {"ids": [1, "red"]}}]),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_what_plainly_is_json_is_written(payload: Any, written: Any) -> None:
    assert json.loads(SERIALIZER.encode(push_of(payload))) == ["1", "2", "t", "e", written]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "a float that is not finite"),
        (math.inf, "a float that is not finite"),
        (-math.inf, "a float that is not finite"),
        (b"hunter2", "a value of type bytes"),
        (bytearray(b"hunter2"), "a value of type bytearray"),
        (memoryview(b"hunter2"), "a value of type memoryview"),
        ({"hunter2"}, "a value of type set"),
        (frozenset(), "a value of type frozenset"),
        (datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "a value of type datetime"),
        (decimal.Decimal("1.5"), "a value of type Decimal"),
        (Record(), "a value of type Record"),
        (Struct(), "a value of type Struct"),
        (Wrong.DAY, "a value of type date"),
        ({uuid.UUID(int=1): 1}, "a dict with a key of type UUID"),
        (msgspec.Raw(b"garbage"), "a value of type Raw"),
        (object(), "a value of type object"),
        ({1: "hunter2"}, "a dict with a key of type int"),
        ({None: 1}, "a dict with a key of type NoneType"),
        (SubStr("hunter2"), "type SubStr is unsupported"),
        (SubInt(1), "type SubInt is unsupported"),
        pytest.param(10**5000, "Exceeds the limit", id="an integer of 5001 digits"),
        ("hunter2 \ud800", "a lone surrogate"),
        ({"\ud800": "hunter2"}, "a lone surrogate"),
    ],
)
def test_what_is_no_json_is_refused_by_type_and_never_by_value(value: Any, says: str) -> None:
    for payload in (value, [value], {"outer": {"inner": [1, value]}}):
        with pytest.raises(LocalProtocolError, match=says) as caught:
            SERIALIZER.encode(push_of(payload))
        assert "allowed: None, bool, int, finite float, str, UUID, list, tuple, dict with str keys, and enums" in str(
            caught.value
        )
        assert SECRET not in str(caught.value)
        assert caught.value.__context__ is None


def test_a_value_that_contains_itself_is_refused_at_once() -> None:
    itself: list[Any] = []
    itself.extend([itself, itself])
    with pytest.raises(LocalProtocolError, match="nesting deeper than the limit, or a value that contains itself"):
        SERIALIZER.encode(push_of(itself))


@pytest.mark.parametrize("objects", [False, True])
def test_what_we_write_nests_no_deeper_than_what_we_read(objects: bool) -> None:
    serializer = Serializer(max_depth=5)
    assert serializer.decode(serializer.encode(push_of(nested(5, objects=objects)))).payload == nested(
        5, objects=objects
    )
    with pytest.raises(LocalProtocolError, match="nesting deeper than the limit"):
        serializer.encode(push_of(nested(6, objects=objects)))


# --- binary -----------------------------------------------------------------------------------------------------------


def test_the_two_layouts_of_a_push_differ_by_the_ref() -> None:
    frame = Frame("11", "2", "top", "ev", b"data")
    assert SERIALIZER.encode_push(frame) == b"\x00\x02\x01\x03\x02" + b"11" + b"2" + b"top" + b"ev" + b"data"
    assert SERIALIZER.decode_push(SERIALIZER.encode_push(frame)) == frame
    assert SERIALIZER.encode_server_push(frame) == b"\x00\x02\x03\x02" + b"11" + b"top" + b"ev" + b"data"
    assert SERIALIZER.decode(SERIALIZER.encode_server_push(frame)) == Frame("11", None, "top", "ev", b"data")


def test_a_reply_carries_its_status_where_a_push_has_its_event() -> None:
    frame = Frame("1", "2", "t", "phx_reply", {"status": "error", "response": b"\x00\xff"})
    assert SERIALIZER.encode_reply(frame) == b"\x01\x01\x01\x01\x05" + b"12t" + b"error" + b"\x00\xff"
    assert SERIALIZER.decode(SERIALIZER.encode_reply(frame)) == frame


def test_a_broadcast_has_neither_ref_nor_join_ref() -> None:
    frame = Frame(None, None, "t", "ev", b"")
    assert SERIALIZER.encode_broadcast(frame) == b"\x02\x01\x02" + b"t" + b"ev"
    assert SERIALIZER.decode(SERIALIZER.encode_broadcast(frame)) == frame


def test_null_refs_are_empty_on_the_wire_and_integers_their_digits() -> None:
    reply = Frame(None, 7, "t", "phx_reply", {"status": "ok", "response": b""})
    assert SERIALIZER.decode(SERIALIZER.encode_reply(reply)) == Frame(None, "7", "t", "phx_reply", reply.payload)
    unanswered = Frame(None, None, "t", "phx_reply", {"status": "ok", "response": b""})
    assert SERIALIZER.decode(SERIALIZER.encode_reply(unanswered)) == unanswered
    # A server reads what a client left empty as the empty string, as Phoenix does.
    assert SERIALIZER.decode_push(SERIALIZER.encode_push(Frame(None, None, "t", "e", b""))) == Frame(
        "", "", "t", "e", b""
    )


@pytest.mark.parametrize("character", ["a", "é", "✓"])
def test_a_field_has_room_for_255_bytes_of_utf8(character: str) -> None:
    fits = character * (255 // len(character.encode()))
    for field, frame in (
        ("join_ref", Frame(fits, "2", "t", "e", b"")),
        ("ref", Frame("1", fits, "t", "e", b"")),
        ("topic", Frame("1", "2", fits, "e", b"")),
        ("event", Frame("1", "2", "t", fits, b"")),
    ):
        assert SERIALIZER.decode_push(SERIALIZER.encode_push(frame)) == frame
        over = msgspec.structs.replace(frame, **{field: fits + character})
        with pytest.raises(LocalProtocolError, match=rf"{field} has 25[678] bytes of UTF-8; .* room for 255"):
            SERIALIZER.encode_push(over)


def test_a_long_status_is_refused_by_its_name() -> None:
    with pytest.raises(LocalProtocolError, match="status has 256 bytes"):
        SERIALIZER.encode_reply(Frame("1", "2", "t", "phx_reply", {"status": "x" * 256, "response": b""}))


def test_a_field_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="topic has a lone surrogate"):
        SERIALIZER.encode_push(Frame("1", "2", "\ud800", "e", b""))


@pytest.mark.parametrize("payload", [b"data", bytearray(b"data"), memoryview(b"data")])
def test_any_bytes_like_payload_is_written(payload: Any) -> None:
    assert SERIALIZER.encode_broadcast(Frame(None, None, "t", "e", payload)) == b"\x02\x01\x01tedata"


@pytest.mark.parametrize("payload", [None, "data", {}, 7])
def test_a_binary_message_needs_a_payload_of_bytes(payload: Any) -> None:
    says = f"has to be bytes, not {type(payload).__name__}"
    for encode in (SERIALIZER.encode_push, SERIALIZER.encode_server_push, SERIALIZER.encode_broadcast):
        with pytest.raises(LocalProtocolError, match=says):
            encode(Frame("1", "2", "t", "e", payload))
    with pytest.raises(LocalProtocolError, match=says):
        SERIALIZER.encode_reply(Frame("1", "2", "t", "phx_reply", {"status": "ok", "response": payload}))


@pytest.mark.parametrize("payload", [None, b"", {}, {"status": "ok"}, {"status": 1, "response": b""}])
def test_a_binary_reply_needs_a_status_and_a_response(payload: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r'has to be \{"status": str, "response": bytes\}'):
        SERIALIZER.encode_reply(Frame("1", "2", "t", "phx_reply", payload))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "an empty binary message"),
        (b"\x03\x01\x01te", r"unknown kind 3; known: 0 \(push\), 1 \(reply\), 2 \(broadcast\)"),
        (b"[1]", "unknown kind 91"),
        (b"\x00\x01\x01", "a binary message of 3 bytes; kind 0 has a header of 4"),
        (b"\x01\x01\x01\x01", "a binary message of 4 bytes; kind 1 has a header of 5"),
        (b"\x02", "a binary message of 1 bytes; kind 2 has a header of 3"),
        (b"\x00\x01\x02\x03" + b"1" + b"tt" + b"ev", "cut short: event ends at byte 10, the message at 9"),
        (b"\x00\xff\x02\x03" + b"1", "cut short: join_ref ends at byte 259, the message at 5"),
        (b"\x01\x01\x01\x01\x02" + b"12t" + b"o", "cut short: status ends"),
        (b"\x02\x02\x01" + b"\xff\xfe" + b"e", "a binary message whose topic is not UTF-8"),
        (b"\x02\x03\x01" + b"\xed\xa0\x80" + b"e", "a binary message whose topic is not UTF-8"),
    ],
)
def test_a_binary_message_that_is_no_frame_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(MalformedFrame, match=says) as caught:
        SERIALIZER.decode(data)
    assert caught.value.__context__ is None  # a UnicodeDecodeError holds the message


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "an empty binary message"),
        (b"\x01\x01\x01\x01\x02" + b"12tok", r"of kind 1; a client may send only 0 \(push\)"),
        (b"\x00\x01\x01\x01", "a binary message of 4 bytes; kind 0 has a header of 5"),
        (b"\x00\x01\x01\x01\x02" + b"12te", "cut short: event ends at byte 10, the message at 9"),
    ],
)
def test_a_server_refuses_what_is_no_push(data: bytes, says: str) -> None:
    with pytest.raises(MalformedFrame, match=says):
        SERIALIZER.decode_push(data)


# --- properties -------------------------------------------------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(_TEXT, children, max_size=4),
    max_leaves=20,
)
_REFS = st.none() | _TEXT | st.integers(-(2**80), 2**80)
_FRAMES = st.builds(Frame, _REFS, _REFS, _TEXT | st.integers(-(2**80), 2**80), _TEXT, _JSON)
_FIELD = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_SETTINGS = settings(max_examples=150, deadline=None)


@_SETTINGS
@given(_FRAMES)
def test_text_frames_survive_the_round_trip(frame: Frame) -> None:
    text = SERIALIZER.encode(frame)
    assert SERIALIZER.decode(text) == frame
    assert json.loads(text) == [frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload]


# Whatever a program may hand over, JSON or not, and long enough for each way in which the fast encoder looks at it.
_LEAF = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("null [[{{ x" * 200)
    | st.uuids() | st.sampled_from([Colour.RED, Level.HIGH, Plain.ONE, Nested.ONE, Wrong.DAY, Ratio.HALF, DEEP])
    | st.sampled_from([SubStr("a"), SubInt(1), Point(1, 2), Record(), Struct(), b"a", {1}, decimal.Decimal(1), 2**64])
    | st.dates() | st.just(math.nan)
)  # fmt: skip
_KEY = st.text(max_size=3) | st.sampled_from([Colour.RED, SubStr("k"), 1, None, "\ud800", "null"])
_ANYTHING = st.recursive(
    _LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(_KEY, inner, max_size=4) | st.dictionaries(st.text(), inner).map(collections.OrderedDict)
    | st.builds(lambda value, times: [value] * times, inner, st.integers(1, 5)),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.skipif(serializer_module._dumps is None, reason="orjson is not installed, so there is but one way")
@settings(max_examples=200, deadline=None)
@given(_ANYTHING, st.sampled_from([1, 2, 3, 4, 64]), st.booleans())
def test_whether_orjson_is_installed_changes_nothing(payload: Any, max_depth: int, collect: bool) -> None:
    if collect:
        gc.collect(0)  # tuples of atoms are untracked then
    serializer = Serializer(max_depth=max_depth)
    outcomes: list[Any] = []
    for encode in (serializer.encode, serializer._encode_exactly):
        try:
            outcomes.append(json.loads(encode(push_of(payload))))
        except LocalProtocolError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("wrap", [lambda inner: (inner,), lambda inner: [inner], lambda inner: {"a": inner}])
@pytest.mark.parametrize("padding", ["", "x" * 2000])
def test_the_fast_encoder_counts_levels_that_the_collector_does_not_track(wrap: Any, padding: str) -> None:
    leaves: list[Any] = [1, (), [], {}, {"a": 1}, (1, (2,))]
    for leaf in leaves:
        for levels in range(1, 7):
            payload: Any = leaf
            for _ in range(levels):
                payload = wrap(payload)
            payload = {"padding": padding, "payload": payload}
            gc.collect(0)  # where all of it still is
            serializer = Serializer(max_depth=5)
            outcomes: list[str] = []
            for encode in (serializer.encode, serializer._encode_exactly):
                try:
                    outcomes.append(encode(push_of(payload)))
                except LocalProtocolError as error:
                    outcomes.append(str(error))
            assert outcomes[0] == outcomes[1]


@_SETTINGS
@given(_FIELD, _FIELD, _FIELD, _FIELD, st.binary(max_size=100))
def test_binary_frames_survive_the_round_trip(join_ref: str, ref: str, topic: str, event: str, data: bytes) -> None:
    push = Frame(join_ref, ref, topic, event, data)
    assert SERIALIZER.decode_push(SERIALIZER.encode_push(push)) == push
    server_push = Frame(join_ref or None, None, topic, event, data)
    assert SERIALIZER.decode(SERIALIZER.encode_server_push(server_push)) == server_push
    reply = Frame(join_ref or None, ref or None, topic, "phx_reply", {"status": event, "response": data})
    assert SERIALIZER.decode(SERIALIZER.encode_reply(reply)) == reply
    broadcast = Frame(None, None, topic, event, data)
    assert SERIALIZER.decode(SERIALIZER.encode_broadcast(broadcast)) == broadcast


@_SETTINGS
@given(st.text(max_size=60) | _JSON.map(json.dumps) | st.lists(_JSON, max_size=7).map(json.dumps))
def test_decoding_any_text_gives_a_frame_or_a_typed_error(text: str) -> None:
    try:
        frame = SERIALIZER.decode(text)
    except MalformedFrame:
        return
    assert [frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload] == json.loads(text)[:5]


@_SETTINGS
@given(st.binary(max_size=60) | st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(0, 2), st.binary()))
def test_decoding_any_bytes_gives_a_frame_or_a_typed_error(data: bytes) -> None:
    for decode in (SERIALIZER.decode, SERIALIZER.decode_push):
        try:
            frame = decode(data)
        except MalformedFrame:
            continue
        payload = frame.payload["response"] if frame.event == "phx_reply" and data[0] == 1 else frame.payload
        assert data.endswith(payload)


@_SETTINGS
@given(st.lists(st.sampled_from(['"', "\\", "[", "]", "{", "}", '"a":', "1", ",", " "]), max_size=40).map("".join))
def test_the_depth_bound_is_exact_on_any_payload(payload: str) -> None:
    def depth(value: Any) -> int:
        if not isinstance(value, (list, dict)):
            return 0
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)

    serializer = Serializer(max_depth=2)
    try:
        expected = depth(json.loads(payload))
    except ValueError:
        with pytest.raises(MalformedFrame):
            serializer.decode(f'["1","2","t","e",[{payload}, not JSON]]')
        return
    if expected > 2:
        with pytest.raises(FrameTooDeep):
            serializer.decode(f'["1","2","t","e",{payload}]')
    else:
        assert depth(serializer.decode(f'["1","2","t","e",{payload}]').payload) == expected


@_SETTINGS
@given(_JSON)
def test_the_depth_bound_is_the_same_for_reading_and_writing(payload: Any) -> None:
    serializer = Serializer(max_depth=2)
    text = SERIALIZER.encode(push_of(payload))
    try:
        serializer.encode(push_of(payload))
    except LocalProtocolError:
        with pytest.raises(FrameTooDeep):
            serializer.decode(text)
    else:
        assert serializer.decode(text).payload == payload
