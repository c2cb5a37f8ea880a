"""Messages and attachments: what is written, what is read, and that reading loses nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from layr8_actors import Attachment, InvalidBody, LocalProtocolError, MalformedMessage, Message, TraceContext
from layr8_actors.client import SenderCredential, parse_message
from tests.client.agents import ALICE, BOB, REQUEST, RESPONSE

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

FULL: dict[str, Any] = {
    "id": "m1",
    "type": REQUEST,
    "from": BOB,
    "to": [ALICE, "did:web:node.test:carol"],
    "body": {"n": [1, None, {"deep": True}]},
    "thid": "t",
    "pthid": "p",
    "created_time": 1516269022,
    "expires_time": 1516385931,
    "attachments": [
        {"id": "a", "media_type": "application/vc+jwt", "data": {"jws": "e.y.s"}},
        {
            "description": "d",
            "filename": "f",
            "format": "x",
            "lastmod_time": 7,
            "byte_count": 3,
            "data": {"base64": "AAEC"},
        },
        {"data": {"json": None}},
        {"data": {"links": ["https://x.org/1"], "hash": "h"}},
    ],
    "trace_context": {"traceparent": TRACEPARENT, "tracestate": "a=b"},
    "please_ack": ["m1"],
    "lang": "de",
    "from_prior": "jwt",
}


def test_every_field_of_the_contract_is_read() -> None:
    message = parse_message(FULL)

    assert (message.id, message.type, message.from_) == ("m1", REQUEST, BOB)
    assert message.to == (ALICE, "did:web:node.test:carol")
    assert (message.thid, message.pthid, message.thread, message.protocol) == (
        "t",
        "p",
        "t",
        REQUEST.rpartition("/")[0],
    )
    assert (message.created_time, message.expires_time) == (1516269022, 1516385931)
    assert message.trace_context == TraceContext(TRACEPARENT, "a=b")
    assert message.extra == {"please_ack": ["m1"], "lang": "de", "from_prior": "jwt"}
    assert message.unread == {}
    assert message.attachments is not None
    jws, encoded, null, linked = message.attachments
    assert (jws.id, jws.media_type, jws.jws, jws.json) == ("a", "application/vc+jwt", "e.y.s", msgspec.UNSET)
    assert (encoded.description, encoded.filename, encoded.format) == ("d", "f", "x")
    assert (encoded.lastmod_time, encoded.byte_count, encoded.content()) == (7, 3, b"\x00\x01\x02")
    assert null.json is None
    assert (linked.links, linked.hash) == (("https://x.org/1",), "h")


def test_what_was_read_is_written_as_it_came() -> None:
    assert parse_message(FULL).to_plaintext() == FULL


def test_a_new_message_has_a_fresh_id_and_writes_only_what_it_has() -> None:
    first, second = Message(type=REQUEST, to=[BOB]), Message(type=REQUEST)

    assert first.id != second.id
    assert first.to_plaintext() == {"id": first.id, "type": REQUEST, "from": "", "to": [BOB], "body": {}}
    assert Message(type=REQUEST, body=None).to_plaintext()["body"] == {}


def test_ids_are_uuids_of_version_4_and_no_two_are_the_same() -> None:
    ids = [Message(type=REQUEST).id for _ in range(200)]
    assert len(set(ids)) == 200
    assert {(uuid.UUID(id).version, str(uuid.UUID(id))) for id in ids} == {(4, id) for id in ids}


FORKING = """
import os
from layr8_actors import Message

Message(type="x/y")
child = os.fork()
if child:
    os.waitpid(child, 0)
print(Message(type="x/y").id, flush=True)
"""


def test_a_forked_process_does_not_give_the_ids_of_its_parent() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    ids = done.stdout.split()
    assert len(ids) == len(set(ids)) == 2


def test_a_message_is_immutable_and_its_text_shows_no_body() -> None:
    message = Message(type=REQUEST, body={"private": "word"}, thid="t")

    with pytest.raises(AttributeError):
        message.type = RESPONSE  # type: ignore[misc]
    assert message.replace(type=RESPONSE).body == message.body
    assert "private" not in repr(message)
    assert "word" not in repr(Attachment(json="word", media_type="text/plain"))
    assert "thid='t'" in repr(message)


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("thid", {"an": "object"}, ""),
        ("pthid", 7, ""),
        ("from", ["x"], ""),
        ("to", "did:x:y", ()),
        ("to", [1], ()),
        ("created_time", "yesterday", None),
        ("created_time", True, None),
        ("expires_time", 1.5, None),
        ("trace_context", {"traceparent": 7}, None),
        ("trace_context", "00-x", None),
    ],
)
def test_a_field_of_the_wrong_type_costs_nothing_but_itself(field: str, value: Any, read: Any) -> None:
    """B11 of the peers: an object as thid tore the connection down."""
    plaintext = {"id": "m1", "type": REQUEST, "body": 1, field: value}
    message = parse_message(plaintext)

    assert getattr(message, {"from": "from_"}.get(field, field)) == read
    assert list(message.unread) == [field]
    assert message.body == 1
    assert message.to_plaintext()[field] == value, "passed on as it came"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "not a list"),
        ("x", "not a list"),
        ([{"data": {}}, 7], "attachment 1 is not an object"),
        ([{"id": "a"}], "attachment 0 has no object data"),
        ([{"data": []}], "attachment 0 has no object data"),
    ],
)
def test_attachments_that_cannot_be_read_are_none_with_a_reason_and_the_message_is_delivered(
    value: Any, reason: str
) -> None:
    message = parse_message({"id": "m1", "type": REQUEST, "attachments": value})

    assert message.attachments is None
    assert reason in message.unread["attachments"]
    assert message.to_plaintext()["attachments"] == value


def test_the_three_states_of_attachments_are_apart() -> None:
    absent = parse_message({"id": "m1", "type": REQUEST})
    empty = parse_message({"id": "m1", "type": REQUEST, "attachments": []})
    read = parse_message({"id": "m1", "type": REQUEST, "attachments": [{"data": {"json": 1}}]})

    assert absent.attachments == empty.attachments == ()
    assert read.attachments == (Attachment(json=1),)
    assert "attachments" not in {**absent.unread, **empty.unread, **read.unread}


def test_a_bad_hint_costs_no_attachment() -> None:
    entry = {
        "id": 7,
        "filename": ["x"],
        "lastmod_time": "2026-11-24T10:00:00Z",
        "byte_count": True,
        "own": 1,
        "data": {"json": {}, "links": [1], "base64": None, "more": 2},
    }
    message = parse_message({"id": "m1", "type": REQUEST, "attachments": [entry]})

    assert message.attachments is not None
    (attachment,) = message.attachments
    assert (attachment.id, attachment.filename, attachment.byte_count, attachment.links) == (None, None, None, None)
    assert attachment.lastmod_time == "2026-11-24T10:00:00Z"
    assert attachment.extra["own"] == 1
    assert message.to_plaintext()["attachments"] == [entry]


@pytest.mark.parametrize(
    "plaintext",
    [None, [], "x", {}, {"id": "m"}, {"type": REQUEST}, {"id": 7, "type": REQUEST}, {"id": "m", "type": {}}],
)
def test_only_what_nobody_could_act_on_is_refused(plaintext: Any) -> None:
    with pytest.raises(MalformedMessage):
        parse_message(plaintext)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "from",
    "to",
    "body",
    "thid",
    "pthid",
    "created_time",
    "expires_time",
    "attachments",
    "trace_context",
    "other",
]
TRACES = st.fixed_dictionaries(
    {"traceparent": st.text(min_size=1, max_size=3)}, optional={"tracestate": JSON, "v": JSON}
)
ALWAYS: dict[str, Any] = {"from": "", "to": [], "body": {}}
LEFT_OUT: list[tuple[str, Any]] = [("thid", ""), ("pthid", ""), ("attachments", [])]


def as_text(value: Any) -> str:
    """JSON, in which true is not 1, as it is in Python."""
    return msgspec.json.encode(value, order="deterministic").decode()


@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), JSON),
    trace=st.just({}) | st.fixed_dictionaries({"trace_context": TRACES}),
    context=JSON,
)
def test_whatever_a_message_holds_it_is_read_and_written_without_loss(
    fields: dict[str, Any], trace: dict[str, Any], context: Any
) -> None:
    plaintext = {**fields, **trace, "id": "m1", "type": REQUEST}
    out = parse_message(plaintext, context).to_plaintext()

    # What is null or empty says what its absence says.
    said = {name: value for name, value in plaintext.items() if name not in FIELDS[:-1] or value is not None}
    expected = {name: value for name, value in said.items() if (name, value) not in LEFT_OUT}
    assert as_text(out) == as_text({**ALWAYS, **expected})


@given(
    entry=st.dictionaries(st.sampled_from(["id", "media_type", "lastmod_time", "byte_count", "own"]), JSON),
    data=st.dictionaries(st.sampled_from(["json", "base64", "jws", "hash", "links", "own"]), JSON),
)
def test_whatever_an_attachment_holds_it_is_read_and_written_without_loss(
    entry: dict[str, Any], data: dict[str, Any]
) -> None:
    given_entry = {**entry, "data": data}
    message = parse_message({"id": "m1", "type": REQUEST, "attachments": [given_entry]})

    assert as_text(message.to_plaintext()["attachments"]) == as_text([given_entry])


# --- context ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("credentials", "subject"),
    [
        ("sender_credentials", "credential_subject"),
        ("senderCredentials", "credentialSubject"),
        ("sender_credentials", "credentialSubject"),
    ],
)
@pytest.mark.parametrize("name", ["name", "label"])
def test_the_context_is_read_in_snake_case_and_in_the_camel_case_of_older_nodes(
    credentials: str, subject: str, name: str
) -> None:
    context = {"recipient": ALICE, "authorized": True, credentials: [{subject: {"id": BOB, name: "Bob"}}]}
    read = parse_message({"id": "m1", "type": REQUEST}, context).context

    assert (read.recipient, read.authorized) == (ALICE, True)
    assert read.sender_credentials == (SenderCredential(BOB, "Bob"),)


@pytest.mark.parametrize(
    "context",
    [None, [], "x", {}, {"recipient": 7, "authorized": "yes", "sender_credentials": {}}],
)
def test_a_context_that_says_nothing_vouches_for_nobody(context: Any) -> None:
    read = parse_message({"id": "m1", "type": REQUEST}, context).context

    assert (read.recipient, read.authorized, read.sender_credentials) == ("", False, ())


def test_credentials_of_any_shape_keep_their_places() -> None:
    entries = [7, {}, {"credential_subject": 1}, {"credential_subject": {"id": 1, "name": None}}]
    read = parse_message({"id": "m1", "type": REQUEST}, {"sender_credentials": entries}).context

    assert read.sender_credentials == (SenderCredential(),) * 4


# --- bodies ----------------------------------------------------------------------------------------------------------


class Order(msgspec.Struct):
    number: int
    lines: list[str] = []


@dataclasses.dataclass
class Note:
    text: str


def test_a_body_is_read_as_a_type_and_written_from_one() -> None:
    sent = Message(type=REQUEST, body=Order(7, ["a"])).to_plaintext()
    assert sent["body"] == {"number": 7, "lines": ["a"]}
    assert parse_message(sent).body_as(Order) == Order(7, ["a"])
    assert Message(type=REQUEST, body=Note("x")).to_plaintext()["body"] == {"text": "x"}
    assert Message(type=REQUEST, body={"text": "x"}).body_as(Note) == Note("x")


def test_a_body_that_is_no_json_is_refused_as_such() -> None:
    with pytest.raises(LocalProtocolError, match="body"):
        Message(type=REQUEST, body=object()).to_plaintext()


def test_a_body_that_does_not_fit_says_where() -> None:
    with pytest.raises(InvalidBody, match=r"\$\.number"):
        Message(type=REQUEST, body={"number": "seven"}).body_as(Order)


# --- replies ---------------------------------------------------------------------------------------------------------


def test_a_reply_goes_to_the_sender_in_the_thread_with_the_trace() -> None:
    request = parse_message(FULL)
    reply = request.reply(RESPONSE, {"ok": True}, pthid="its own")

    assert (reply.type, reply.body, reply.to, reply.thid, reply.pthid) == (
        RESPONSE,
        {"ok": True},
        (BOB,),
        "t",
        "its own",
    )
    assert reply.trace_context == request.trace_context
    assert reply.id != request.id
    assert Message(type=REQUEST, id="m9").reply(RESPONSE).thid == "m9"
    assert Message(type=REQUEST).reply(RESPONSE).to == ()


# --- attachments -----------------------------------------------------------------------------------------------------


@given(data=st.binary(max_size=40))
def test_bytes_of_an_attachment_come_back(data: bytes) -> None:
    attachment = Attachment.of_bytes(data, media_type="application/octet-stream", id="a", filename="f")

    assert attachment.content() == data
    assert "=" not in (attachment.base64 or "")
    assert attachment.byte_count == len(data)


@pytest.mark.parametrize("text", ["+/8=", "-_8", "-_8=", "+/8"])
def test_base64_is_read_in_either_alphabet_with_or_without_padding(text: str) -> None:
    assert Attachment(base64=text).content() == b"\xfb\xff"


@pytest.mark.parametrize("attachment", [Attachment(json=1), Attachment(base64="%%%"), Attachment(base64="A")])
def test_an_attachment_without_readable_base64_says_so(attachment: Attachment) -> None:
    with pytest.raises(InvalidBody):
        attachment.content()
