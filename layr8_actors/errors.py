"""Every exception that layr8_actors raises, in one tree under :class:`Layr8Error`; over 400 lines, because it is one.

They live in a module of their own, below all others, so that any layer may raise any of them without an import loop.
One module, though it has more than 400 lines: whoever looks for what may be raised finds all of it here.
Each one says what to do about it, and none ever carries an API key.
"""

from __future__ import annotations

import math

__all__ = (
    "ActorDied",
    "ActorNotRunning",
    "AlreadyConnected",
    "CallTimeout",
    "CallingSelf",
    "ChannelClosed",
    "ChildAlreadyPresent",
    "ChildAlreadyStarted",
    "ChildNotFound",
    "ChildRestarting",
    "ChildRunning",
    "ChildStartError",
    "ConnectFailed",
    "Disconnected",
    "FrameTooDeep",
    "FrameTooLarge",
    "HandlerTimeout",
    "InvalidBody",
    "InvalidOption",
    "JoinRejected",
    "JoinTimeout",
    "Layr8Error",
    "LocalProtocolError",
    "MailboxFull",
    "MalformedFrame",
    "MalformedMessage",
    "MaxChildrenReached",
    "MessageNotStored",
    "NameTaken",
    "NotConnected",
    "ProblemReportError",
    "ProtocolError",
    "RemoteProtocolError",
    "ReplyTimeout",
    "RequestTimeout",
    "RestartLimitExceeded",
    "ServerReject",
    "StoreClosed",
    "StoreCorrupt",
    "StoreFailed",
    "StoreFull",
    "StoreLocked",
    "StoreReadOnly",
    "StoreUnreachable",
    "StoreVersion",
    "SupervisionError",
    "SupervisorNotRunning",
    "TopicDown",
    "TransportClosed",
    "UnknownRequest",
)


_MOST_SHOWN = 300
"""Characters of a node's own words in an error's text; ours: the longest reason of a node on record has about 100."""


class Layr8Error(Exception):
    """The root of every error of this package; catch it to catch them all."""


# --- options ----------------------------------------------------------------------------------------------------------


class InvalidOption(Layr8Error, ValueError):
    """An option or argument is not allowed; correct the call, nothing was started.

    It is a :class:`ValueError` too, because it is always the caller's own value that is at fault. The value itself is
    never shown, only its type: an option may be a secret.
    """

    def __init__(self, option: str, value: object, allowed: str) -> None:
        self.option = option
        self.value_type = type(value).__name__
        self.allowed = allowed
        super().__init__(f"{option}: got a value of type {self.value_type}; allowed: {allowed}")


# --- the wire ---------------------------------------------------------------------------------------------------------


class ProtocolError(Layr8Error):
    """Somebody broke the rules of Phoenix Channels V2; see the two subclasses for who."""


class LocalProtocolError(ProtocolError):
    """Our side asked for something that the protocol does not allow, such as a push on a topic that is not joined.

    It is a bug of the caller and never a reason to reconnect.
    """


class RemoteProtocolError(ProtocolError):
    """The node sent something that the protocol does not allow; the frame is refused, the connection is kept."""


class MalformedFrame(RemoteProtocolError):
    """One frame of the node is not a Phoenix V2 frame (not JSON, wrong arity, wrong types, cut short)."""


class FrameTooLarge(MalformedFrame):
    """One frame is larger than the limit; raise ``max_message_size`` if the node may send such frames.

    One of more than 250,000 arrays and objects is too large whatever its size.
    """


class FrameTooDeep(MalformedFrame):
    """One frame nests deeper than the limit, which no DIDComm message needs."""


class TransportClosed(Layr8Error):
    """The socket is gone: closed by the peer, dropped by the network, or closed by us.

    ``code`` is the WebSocket close code (RFC 6455 section 7.4), 1006 where no close frame came. It is not a
    :class:`Disconnected`, because it speaks of a socket and not of a request: ``on_disconnect`` gets it, and callers
    of the channel see it as a ``__cause__``.
    """

    def __init__(self, code: int = 1006, reason: str = "", *, detail: str = "") -> None:
        self.code = code
        self.reason = reason
        self.detail = detail
        text = f"the connection was closed with code {code}"
        if reason:
            text += f" ({reason!r})"
        if detail:
            text += f": {detail}"
        super().__init__(text)


class TopicDown(Layr8Error):
    """The node crashed or closed the topic, or stopped answering on it, while the socket lives on; it is joined anew.

    ``on_disconnect`` gets it, and callers of the channel see it as a ``__cause__``.
    """


# --- the channel ------------------------------------------------------------------------------------------------------


class ConnectFailed(Layr8Error):
    """The node could not be reached, or refused the upgrade; nothing is left behind, and connect may be called again.

    ``status`` is the HTTP status of a refusal (403: Phoenix does not say whether key, vsn or origin was wrong), or
    ``None`` where no HTTP answer came. ``url`` has no query, hence no key.
    """

    def __init__(self, url: str, detail: str, *, status: int | None = None) -> None:
        self.url = url
        self.detail = detail
        self.status = status
        super().__init__(f"cannot connect to {url}: {detail}")

    @property
    def permanent(self) -> bool:
        """True for HTTP 401 and 403: another attempt with the same key meets the same answer."""
        return self.status in (401, 403)


class JoinTimeout(ConnectFailed):
    """The socket opened, but the node did not answer ``phx_join`` within ``join_timeout`` seconds."""


class JoinRejected(Layr8Error):
    """The node answered ``phx_join`` with an error.

    ``permanent`` tells whether the same join can ever succeed: correct the DID, its spec, the protocols or the key
    where it is true, try again later where it is false. ``reason`` is what the node said, without the key; the text
    shows the first 300 characters of it, on one line.
    """

    def __init__(self, reason: str, permanent: bool) -> None:
        self.reason = reason
        self.permanent = permanent
        advice = "correct the options, then connect again" if permanent else "it may pass, try again"
        super().__init__(f"the node refused the join: {_one_line(reason) or 'no reason given'} ({advice})")


def _one_line(text: str) -> str:
    """What a node said, so that no length and no line break of it upsets a log."""
    shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"
    return shown if shown.isprintable() else repr(shown)[1:-1]


class AlreadyConnected(Layr8Error):
    """connect was called with other protocols than those the channel has joined with; close it and open another.

    Or join was called with a DID that is joined on the channel already; leave it first.
    Of a client: it runs already, so it can be neither started a second time nor given another handler.
    """


class NotConnected(Layr8Error):
    """There is no joined topic at the moment, so nothing was sent; wait for on_reconnect, or call connect."""


class Disconnected(Layr8Error):
    """The link, the topic or the router went away before the reply came.

    ``written`` is False where the request certainly never reached the wire and may simply be sent again, True where
    the node may have acted on it.
    """

    def __init__(self, detail: str, *, written: bool) -> None:
        self.detail = detail
        self.written = written
        known = "the request was written, the node may have acted on it" if written else "the request was never written"
        super().__init__(f"{detail}; {known}")


class ReplyTimeout(Layr8Error, TimeoutError):
    """No reply came within ``reply_timeout`` seconds; ``written`` as in :class:`Disconnected`.

    It is a :class:`TimeoutError` too, so that generic retry code treats it as one.
    """

    def __init__(self, seconds: float, *, written: bool) -> None:
        self.seconds = seconds
        self.written = written
        known = "the request was written, the node may have acted on it" if written else "the request was never written"
        super().__init__(f"no reply within {seconds:g} s; {known}")


class ChannelClosed(Layr8Error):
    """The channel has ended, by close or for the reason in ``__cause__``; open a new one."""


# --- the client -------------------------------------------------------------------------------------------------------


class ServerReject(Layr8Error):
    """The node refused a message: it was not delivered, and the same message will be refused again.

    ``reason`` is what the node said, without the key; the text shows the first 300 characters of it.
    """

    def __init__(self, reason: str, *, message_id: str = "") -> None:
        self.reason = reason
        self.message_id = message_id
        super().__init__(f"the node refused the message: {_one_line(reason) or 'no reason given'}")


class ProblemReportError(Layr8Error):
    """The answer to a request is a problem report (DIDComm v2, report-problem 2.0).

    ``code`` tells what kind of problem it is (``e.`` an error, ``w.`` a warning), such as ``e.m.authz.denied``.
    ``comment`` is for people, with ``{1}`` and so on replaced by the report's own ``args``. Both are a peer's words.
    """

    def __init__(self, code: str, comment: str, arguments: tuple[str, ...] = ()) -> None:
        self.code = code
        self.comment = comment
        self.arguments = arguments
        super().__init__(f"the request was answered with a problem report: {_one_line(code)}: {_one_line(comment)}")


class RequestTimeout(Layr8Error, TimeoutError):
    """No response came within the request's ``timeout``; the other side may still act on it. Nothing waits for it now.

    It is a :class:`TimeoutError` too, so that generic retry code treats it as one.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no response within {seconds:g} s; the other side may have acted on the request")


class HandlerTimeout(Layr8Error, TimeoutError):
    """A handler was not done within its deadline and was cancelled; make it faster, or give it a longer ``timeout``."""

    def __init__(self, message_type: str, seconds: float) -> None:
        self.message_type = message_type
        self.seconds = seconds
        super().__init__(f"the handler of {_one_line(message_type)} was not done within {seconds:g} s")


class MalformedMessage(RemoteProtocolError):
    """What came as a message is no DIDComm message: no object, or without an ``id`` or a ``type`` that is a string."""


class InvalidBody(Layr8Error, ValueError):
    """A body is not what ``body_as`` was asked for, or an attachment cannot be decoded; the text says where.

    Raised by a handler, it is told to the sender as any other failure of a handler is.
    """


# --- supervision and actors -------------------------------------------------------------------------------------------


class SupervisionError(Layr8Error):
    """The root of what supervisors and actors raise."""


class ChildStartError(SupervisionError):
    """A child did not start; ``__cause__`` is what it raised, and the children started before it were stopped again."""

    def __init__(self, supervisor: str, child_id: str, detail: str) -> None:
        self.supervisor = supervisor
        self.child_id = child_id
        super().__init__(f"child {child_id!r} of supervisor {supervisor!r} did not start: {detail}")


class RestartLimitExceeded(SupervisionError):
    """A supervisor gave up; ``__cause__`` is the last failure of the child that used up the budget.

    It is an error on purpose where OTP exits with ``shutdown``: a parent with a transient child must not take a
    subtree that gave up for one that finished. ``max_seconds`` is ``math.inf`` where it was ``max_attempts``, failures
    in a row of one child, that ran out.
    """

    def __init__(self, supervisor: str, child_id: str, max_restarts: int, max_seconds: float) -> None:
        self.supervisor = supervisor
        self.child_id = child_id
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        span = "in a row" if max_seconds == math.inf else f"within {max_seconds:g} s"
        super().__init__(
            f"supervisor {supervisor!r} gave up: child {child_id!r} needed more than {max_restarts} restarts {span}"
        )


class SupervisorNotRunning(SupervisionError):
    """The supervisor has not started, is stopping, or has ended (OTP: noproc)."""


class ChildNotFound(SupervisionError):
    """The supervisor has no child of that id."""


class ChildAlreadyStarted(SupervisionError):
    """A child of that id runs already; ``handle`` is it."""

    def __init__(self, child_id: str, handle: object) -> None:
        self.child_id = child_id
        self.handle = handle
        super().__init__(f"child {child_id!r} is already started")


class ChildAlreadyPresent(SupervisionError):
    """A child of that id is known but not running; restart_child or delete_child it."""


class MaxChildrenReached(SupervisionError):
    """A dynamic supervisor has as many children as it may have; nothing was started (Elixir: ``:max_children``)."""

    def __init__(self, supervisor: str, max_children: int) -> None:
        self.supervisor = supervisor
        self.max_children = max_children
        super().__init__(f"supervisor {supervisor!r} has its {max_children} children; terminate one first")


class NameTaken(SupervisionError):
    """Somebody else holds the name in this registry; ``holder`` is it (OTP: ``{already_started, Pid}``)."""

    def __init__(self, name: object, holder: object) -> None:
        self.name = name
        self.holder = holder
        super().__init__(f"the name {name!r} is taken; use its holder, or another name")


class ChildRunning(SupervisionError):
    """The child runs, so it can be neither restarted nor deleted; terminate_child it first."""


class ChildRestarting(SupervisionError):
    """The child waits for its next restart, so it can be neither restarted nor deleted; terminate_child it first."""


class ActorNotRunning(SupervisionError):
    """The actor called has no running incarnation (OTP: noproc)."""


class ActorDied(SupervisionError):
    """The actor ended before it answered; ``__cause__`` is the exception it ended with, if any.

    Each caller gets an instance of its own, so that tracebacks of different callers never mix.
    """


class CallTimeout(SupervisionError, TimeoutError):
    """The actor did not answer in time; it lives on, and its late answer is dropped."""


class CallingSelf(SupervisionError):
    """Somebody waits for what in turn waits for it: an actor's handler that calls or stops the actor itself, a child's
    start that asks its own supervisor for something, a shielded cleanup that asks for its own end. Use cast, or let
    another task ask.
    """


class MailboxFull(SupervisionError):
    """The mailbox has no room; wait for room with ``await ref.cast(...)``, or drop the message."""


class UnknownRequest(SupervisionError):
    """The actor called does not know this request; it lives on."""


# --- durable queues ---------------------------------------------------------------------------------------------------


class StoreFailed(Layr8Error):
    """A store of messages could not do what it was asked for; nothing was done, see the subclasses for what to do.

    ``where`` is the file, or the address without its password. ``permanent`` tells whether the same call can ever
    succeed without somebody seeing to the store.
    """

    permanent: bool = True

    def __init__(self, where: str, detail: str) -> None:
        self.where = where
        self.detail = detail
        super().__init__(f"{where}: {detail}")


class MessageNotStored(Layr8Error):
    """A message came and could not be stored, so it was not accepted; its cause is the StoreFailed that says why."""


class StoreClosed(StoreFailed):
    """The store is not open: use it inside its ``async with`` block."""


class StoreCorrupt(StoreFailed):
    """The file is damaged, or is no store of this package; move it away, keep it, and restore a copy."""


class StoreVersion(StoreFailed):
    """The store was written by another version of this package, or needs a newer SQLite or Redis; see the text."""


class StoreReadOnly(StoreFailed):
    """The file, its folder or the server does not allow writing; correct the permissions."""


class StoreFull(StoreFailed):
    """There is no room left on the disk, or in the server's memory; it passes once there is."""

    permanent = False


class StoreLocked(StoreFailed):
    """Another process kept the file to itself for longer than the busy timeout; it may pass, try again."""

    permanent = False


class StoreUnreachable(StoreFailed):
    """The server did not answer, or the link to it broke; whether it acted is open, and it may pass, try again.

    Where a put was answered by this, put the same id again: it is stored once.
    """

    permanent = False
