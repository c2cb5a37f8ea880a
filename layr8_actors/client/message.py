"""DIDComm v2 plaintext messages: what a handler gets and returns; read without loss, whatever a sender put in."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from ..errors import InvalidBody, InvalidOption, LocalProtocolError, MalformedMessage
from .attachment import Attachment, parse_attachments
from .ids import new_id

__all__ = ("Message", "MessageContext", "SenderCredential", "TraceContext", "parse_message")

T = TypeVar("T")

_ALWAYS: Final = ("id", "type", "from", "to", "body")
_TEXTS: Final = ("id", "type", "from_", "thid", "pthid")
_WRITTEN_AS_THEY_ARE: Final = (dict, list, str, int, float, bool, type(None))
_STR: Final = frozenset((str,))
_READ: Final = frozenset((*_ALWAYS, "thid", "pthid", "created_time", "expires_time", "attachments", "trace_context"))


class TraceContext(msgspec.Struct, frozen=True):
    """W3C Trace Context, which a reply inherits from what it answers.

    Args:
        traceparent: version, trace id, parent id and flags.
        tracestate: what vendors add; ``""`` for nothing.
        extra: all other fields, as they came or as they shall go out.
    """

    traceparent: str
    tracestate: str = ""
    extra: Mapping[str, Any] = {}

    def to_json(self) -> dict[str, Any]:
        """Return the trace context as it goes out; what was read comes out as it came in."""
        state = {"tracestate": self.tracestate} if self.tracestate else {}
        return {**self.extra, "traceparent": self.traceparent, **state}


class SenderCredential(msgspec.Struct, frozen=True):
    """One thing that the node vouches for about a sender.

    Args:
        id: of the credential's subject.
        name: of the subject, for people.
    """

    id: str = ""
    name: str = ""


class MessageContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the node says of an inbound message, beside the message.

    Args:
        recipient: the DID that it was delivered to.
        authorized: whether the node found the sender authorized; False too where it did not say.
        sender_credentials: what it vouches for; older nodes write it in camelCase.
    """

    recipient: str = ""
    authorized: bool = False
    sender_credentials: tuple[SenderCredential, ...] = ()


NO_CONTEXT: Final = MessageContext()


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A DIDComm v2 plaintext message; immutable, :meth:`replace` makes a changed copy. ``repr`` shows no body.

    Args:
        type: the URI of the message's type, protocol and name, such as ``https://didcomm.org/trust-ping/2.0/ping``.
        body: any JSON value, a msgspec Struct or a dataclass; see :meth:`body_as`.
        to: the DIDs it goes to.
        from_: the sender's DID; filled in when it is sent.
        id: unique; a fresh UUID by default.
        thid: the thread it belongs to; ``""`` where it begins one.
        pthid: the thread that its thread was begun in.
        created_time: epoch seconds, where the sender says so.
        expires_time: epoch seconds after which the sender has no use for an answer; nothing here acts on it.
        attachments: in order; ``None`` where what came could not be read, which ``unread`` explains.
        trace_context: a reply has that of its request unless it has one of its own.
        extra: all other fields, as they came or as they shall go out; and as they came those that are ``unread``.
        context: what the node says of an inbound message.
        unread: fields of an inbound message that could not be read, each with the reason; they cost nothing else.
    """

    type: str
    body: Any = {}
    to: tuple[str, ...] | list[str] = ()
    from_: str = ""
    id: str = msgspec.field(default_factory=new_id)
    thid: str = ""
    pthid: str = ""
    created_time: int | None = None
    expires_time: int | None = None
    attachments: tuple[Attachment, ...] | list[Attachment] | None = ()
    trace_context: TraceContext | None = None
    extra: Mapping[str, Any] = {}
    context: MessageContext = NO_CONTEXT
    unread: Mapping[str, str] = {}

    def __repr__(self) -> str:
        thread = f" thid={self.thid!r}" if self.thid else ""
        return f"<Message {self.type!r} id={self.id!r}{thread} from={self.from_!r} to={list(self.to)!r}>"

    @property
    def thread(self) -> str:
        """The thread it belongs to or begins: ``thid``, else its own id (DIDComm v2, section "Threading")."""
        return self.thid or self.id

    @property
    def protocol(self) -> str:
        """The type without its last segment, which is what a node routes by."""
        return self.type.rpartition("/")[0]

    def replace(self, **changes: Any) -> Message:
        """Return a copy with some fields changed.

        Args:
            changes: the fields, by the names above.
        """
        return msgspec.structs.replace(self, **changes)

    def reply(self, type: str, body: Any = None, **fields: Any) -> Message:
        """Make an answer: to the sender, in the same thread, with the same trace context.

        Args:
            type: of the answer.
            body: of the answer; ``None`` for an empty one.
            fields: any other fields of it.
        """
        body = {} if body is None else body
        if fields:
            return Message(type=type, body=body, **fields).answering(self)
        to = (self.from_,) if self.from_ else ()
        return Message(type=type, body=body, to=to, thid=self.thread, trace_context=self.trace_context)

    def answering(self, request: Message) -> Message:
        """Return a copy in which what is empty is filled as the contract has it for replies; itself if nothing is.

        Args:
            request: what it answers: ``to`` becomes its sender, ``thid`` its thread, ``trace_context`` its own.
        """
        to = self.to or ((request.from_,) if request.from_ else ())
        thid = self.thid or request.thread
        trace_context = self.trace_context or request.trace_context
        if to is self.to and thid is self.thid and trace_context is self.trace_context:
            return self
        return self.replace(to=to, thid=thid, trace_context=trace_context)

    def body_as(self, kind: builtins.type[T]) -> T:
        """Return the body as a type of yours, checked.

        Args:
            kind: a msgspec Struct, a dataclass, a TypedDict, or whatever msgspec converts JSON values into.

        Raises:
            InvalidBody: it does not fit; raised by a handler, it is told to the sender as any other failure.
        """
        try:
            return msgspec.convert(self.body, kind)
        except msgspec.ValidationError as error:
            raise InvalidBody(f"the body of {self.type}: {error}") from None

    def to_plaintext(self) -> dict[str, Any]:
        """Return the message as it goes out: a new dict with all fields that it has, those in ``extra`` included.

        Raises:
            InvalidOption: ``to`` is no list, for a str would go out as its letters; or another field is no str, or
                ``id`` or ``type`` is empty, for no response would find its request by them.
            LocalProtocolError: the body is an object that msgspec cannot turn into JSON values.
        """
        return self.written()

    def written(
        self,
        from_: str = "",
        thid: str = "",
        to: Sequence[str] = (),
        trace_context: TraceContext | None = None,
    ) -> dict[str, Any]:
        """Return the message as it goes out, with what is empty filled; no copy of it is made.

        Args:
            from_: in place of an empty one.
            thid: likewise.
            to: likewise.
            trace_context: likewise.

        Raises:
            Layr8Error: as :meth:`to_plaintext`.
        """
        # Last of all once more the field itself, so that what is empty and of a wrong type is refused.
        from_, thid, to = self.from_ or from_ or self.from_, self.thid or thid or self.thid, self.to or to or self.to
        if not isinstance(to, (tuple, list)):
            raise InvalidOption("to", to, "a list of DIDs, such as ['did:web:...']")
        texts = (self.id, self.type, from_, thid, self.pthid)
        if not _STR.issuperset(map(builtins.type, texts)) or not self.id or not self.type:
            _refuse_text(texts)
        body = self.body
        if not isinstance(body, _WRITTEN_AS_THEY_ARE):
            try:
                body = msgspec.to_builtins(body)
            except TypeError as error:
                raise LocalProtocolError(f"the body is nothing that JSON can hold: {error}") from None
        out: dict[str, Any] = {
            "id": self.id,
            "type": self.type,
            "from": from_,
            "to": list(to),
            "body": {} if body is None else body,
        }
        if thid:
            out["thid"] = thid
        if self.pthid:
            out["pthid"] = self.pthid
        if self.created_time is not None:
            out["created_time"] = self.created_time
        if self.expires_time is not None:
            out["expires_time"] = self.expires_time
        if self.attachments:
            out["attachments"] = [attachment.to_json() for attachment in self.attachments]
        trace_context = self.trace_context or trace_context
        if trace_context is not None:
            out["trace_context"] = trace_context.to_json()
        for name, value in self.extra.items():
            if not out.get(name):  # what stands there is either another field or one that was not read
                out[name] = value
        return out


def _refuse_text(texts: tuple[object, ...]) -> None:
    for name, value in zip(_TEXTS, texts, strict=True):
        if not isinstance(value, str) or (not value and name in _ALWAYS):
            raise InvalidOption(name, value, "a str; of id and type a non-empty one")


def parse_message(plaintext: object, context: object = None) -> Message:
    """Read an inbound message.

    Only what nobody could act on is refused. Any other field that is not what DIDComm v2 says is left out, named in
    ``unread``, and kept in ``extra`` as it came.

    Args:
        plaintext: the DIDComm plaintext, decoded.
        context: what the node says of it, if anything.

    Raises:
        MalformedMessage: it is no object, or its id or type is no non-empty str.
    """
    try:
        plain = msgspec.convert(plaintext, _Plain)
    except msgspec.ValidationError:
        return _parse_any(plaintext, context)
    if not plain.id or not plain.type:
        return _parse_any(plaintext, context)
    return Message(
        id=plain.id,
        type=plain.type,
        from_=plain.from_,
        to=plain.to,
        body={} if plain.body is None else plain.body,
        thid=plain.thid,
        pthid=plain.pthid,
        created_time=plain.created_time,
        expires_time=plain.expires_time,
        context=_parse_context(context),
    )


class _Plain(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Most messages are like that, and to read them so takes a third of the time; all others are read one by one."""

    id: str
    type: str
    from_: str = msgspec.field(name="from", default="")
    to: tuple[str, ...] = ()
    body: Any = None
    thid: str = ""
    pthid: str = ""
    created_time: int | None = None
    expires_time: int | None = None


def _parse_any(plaintext: object, context: object) -> Message:
    if not isinstance(plaintext, dict):
        raise MalformedMessage("the plaintext of a message is not an object")
    id, type = plaintext.get("id"), plaintext.get("type")
    if not isinstance(id, str) or not id:
        raise MalformedMessage("a message has no id that is a str")
    if not isinstance(type, str) or not type:
        raise MalformedMessage("a message has no type that is a str")
    unread: dict[str, str] = {}
    fields: dict[str, Any] = {}
    for name, attribute in (("from", "from_"), ("thid", "thid"), ("pthid", "pthid")):
        value = plaintext.get(name)
        if isinstance(value, str):
            fields[attribute] = value
        elif value is not None:
            unread[name] = "not a str"
    to = plaintext.get("to")
    if isinstance(to, list) and _STR.issuperset(map(builtins.type, to)):  # JSON has no subclasses of str
        fields["to"] = tuple(to)
    elif to is not None:
        unread["to"] = "not a list of str"
    for name in ("created_time", "expires_time"):
        value = plaintext.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            fields[name] = value
        elif value is not None:
            unread[name] = "not a whole number"
    if plaintext.get("attachments") is not None:
        attachments = parse_attachments(plaintext["attachments"])
        if isinstance(attachments, str):
            unread["attachments"] = attachments
            fields["attachments"] = None
        else:
            fields["attachments"] = attachments
    trace = plaintext.get("trace_context")
    if trace is not None:
        fields["trace_context"] = read = _parse_trace(trace)
        if read is None:
            unread["trace_context"] = "no object with a traceparent that is a str"
    body = plaintext.get("body")
    if unread or not plaintext.keys() <= _READ:
        fields["extra"] = {name: value for name, value in plaintext.items() if name not in _READ or name in unread}
    return Message(
        id=id,
        type=type,
        body={} if body is None else body,
        context=_parse_context(context),
        unread=unread,
        **fields,
    )


def _parse_trace(value: object) -> TraceContext | None:
    if not isinstance(value, dict) or not isinstance(value.get("traceparent"), str) or not value["traceparent"]:
        return None
    state = value.get("tracestate")
    read = state if isinstance(state, str) else ""
    known = ("traceparent", "tracestate") if read else ("traceparent",)
    return TraceContext(value["traceparent"], read, {name: field for name, field in value.items() if name not in known})


class _Known(msgspec.Struct, gc=False):
    """Likewise, what most nodes say of most messages."""

    recipient: str
    authorized: bool
    sender_credentials: list[Any]


def _parse_context(value: object) -> MessageContext:
    try:
        known = msgspec.convert(value, _Known)
    except msgspec.ValidationError:
        return _parse_any_context(value)
    credentials = tuple(map(_parse_credential, known.sender_credentials)) if known.sender_credentials else ()
    return MessageContext(recipient=known.recipient, authorized=known.authorized, sender_credentials=credentials)


def _parse_any_context(value: object) -> MessageContext:
    if not isinstance(value, dict):
        return NO_CONTEXT
    recipient = value.get("recipient")
    credentials = value.get("sender_credentials", value.get("senderCredentials"))
    return MessageContext(
        recipient=recipient if isinstance(recipient, str) else "",
        authorized=value.get("authorized") is True,
        sender_credentials=tuple(
            _parse_credential(entry) for entry in (credentials if isinstance(credentials, list) else ())
        ),
    )


def _parse_credential(entry: object) -> SenderCredential:
    subject = entry.get("credential_subject", entry.get("credentialSubject")) if isinstance(entry, dict) else None
    if not isinstance(subject, dict):
        return SenderCredential()
    id, name = subject.get("id"), subject.get("name", subject.get("label"))
    return SenderCredential(id if isinstance(id, str) else "", name if isinstance(name, str) else "")
