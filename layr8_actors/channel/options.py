"""What a user may set on a channel, checked when it is set; every default says where it comes from."""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from typing import Any, Literal, get_args

from ..errors import InvalidOption, LocalProtocolError
from ..otp import Backoff, Supervisor
from ..otp.validation import checked_count, checked_seconds
from ..phoenix import Frame, Serializer
from ..telemetry import Hook, log_event
from ..transport import Connector, Endpoint, Secret, TransportName, connector_named
from ..transport.endpoint import checked_url
from ..transport.hidden_arguments import hide_arguments
from .did_spec import build_did_spec, derive_child_did

__all__ = ("ApiKeyProvider", "Callbacks", "ChannelOptions", "checked_protocols")

RESTART_BACKOFF = Backoff(initial=1.0, maximum=30.0, factor=2.0, jitter=0.5, reset_after=30.0, first_delay=0.0)
"""Delays before an actor's restart: the channel's own 1 s -> 30 s, but at once the first time (OTP)."""

_TRANSPORTS = "'auto' | 'websockets' | 'trio-websocket' | a Connector"
_DID = re.compile(r"did:[a-z0-9]+:[A-Za-z0-9._:%-]+")  # W3C DID Core, section 3.1
_URI = re.compile(r"[\x21-\x7e]+")  # RFC 3986: ASCII without spaces

ApiKeyProvider = Callable[[], Awaitable[str]]
"""An async function that returns the API key to use; it is asked before every dial, so that keys may rotate."""

OnMessage = Callable[[Any], object]
OnDisconnect = Callable[[Exception], object]
OnReconnect = Callable[[], object]
OnPush = Callable[[str, Any], object]
OnJoin = Callable[[dict[str, Any]], object]


@dataclasses.dataclass(frozen=True, slots=True)
class Callbacks:
    """The user's functions, each sync or async; what they raise is reported and changes nothing.

    ``on_message`` calls are made one at a time, in the order of arrival; so are those of ``on_join`` and ``on_push``,
    in one lane with them. ``on_disconnect`` and ``on_reconnect`` run one at a time in a lane of their own, so that a
    slow ``on_message`` does not hold them up.

    Args:
        on_message: gets the decoded payload of each inbound ``message``; ``None`` to read them from
            :meth:`Channel.messages` instead.
        on_disconnect: gets the typed error that ended a joined link, once per drop.
        on_reconnect: is called without arguments, once per rejoin.
        on_push: gets event and payload of each inbound push of another event than ``message``, such as
            ``delegated_credentials``; ``None`` ignores them. It needs an ``on_message``.
        on_join: gets the node's response to each join, the first included, before what comes under that join; not for
            a join that a later one has overtaken before anything came. It needs an ``on_message``.
    """

    on_message: OnMessage | None = None
    on_disconnect: OnDisconnect | None = None
    on_reconnect: OnReconnect | None = None
    on_push: OnPush | None = None
    on_join: OnJoin | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not callable(value):
                raise InvalidOption(f"callbacks.{field.name}", value, "a function, an async function, or None")
        if self.on_message is None and (self.on_push or self.on_join) is not None:
            raise InvalidOption("callbacks.on_message", None, "a function, where there is an on_push or an on_join")


@dataclasses.dataclass(frozen=True, slots=True)
class AtOnceCallbacks(Callbacks):
    """For the library's own: messages need not pass through Inbox, each of whose two tasks takes a pass of Trio's loop.

    Args:
        take_at_once: gets each payload before ``on_message``, in the task that has read it, while none waits for that.
            It does all that is to be done and returns True; or nothing at all and False, where it would have to wait.
    """

    take_at_once: Callable[[Any], bool] | None = None


@hide_arguments
@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ChannelOptions:
    """Everything a channel is made from; immutable, and safe to print.

    Args:
        ws_url: the node's socket, such as ``wss://node.example.com/plugin_socket/websocket``; http(s) is turned into
            ws(s).
        api_key: the key, or an async function that is asked for it before every dial.
        agent_did: the DID to bind; ``""`` asks the node for an ephemeral one.
        callbacks: the user's functions.
        did_spec: keys of the join's ``did_spec`` that win over the defaults (:func:`build_did_spec`).
        heartbeat_interval: seconds between heartbeats. 30: phoenix.js, and half of the 60 s after which a Phoenix
            server closes an idle socket.
        heartbeat_timeout: seconds that a heartbeat may stay unanswered before the link is dropped; ``None`` for the
            interval itself, as phoenix.js has it.
        connect_timeout: seconds for DNS, TCP, TLS and upgrade together. 10: all Layr8 SDKs.
        join_timeout: seconds for the answer to ``phx_join``. 10: phoenix.js and the Python SDK.
        reply_timeout: seconds for a reply, waiting for room and writing included. 15: the Python and Node SDKs.
        close_timeout: seconds for the last writes, the leave and the close handshake. 5: OTP's default shutdown.
        backoff: delays between attempts to reconnect. 1 s doubling to 30 s: all Layr8 SDKs; the jitter and the reset
            only after 30 s of a standing join are ours, against herds and flapping nodes.
        auth: where the key travels: ``"query"`` (all released nodes) or ``"header"`` (``x-api-key``).
        ssl_context: for wss; ``None`` for :func:`ssl.create_default_context`, made once for all channels of a process
            that name their transport.
        max_message_size: bytes of the largest message accepted. 8 MiB: Phoenix has no limit, the largest recorded
            message is 1 MB.
        inbox_capacity: messages that may wait for the user before reading stops. 1024: ours, about 1 MB of typical
            messages.
        inbox_bytes: bytes that they may have together before reading stops; ``None`` for twice ``max_message_size``,
            16 MiB by default. Ours: one message of the largest size is at work while the next is read. At least
            ``max_message_size``, because a bound that one message reaches would stop the reading at each.
        outbox_capacity: frames that may wait for the writer before senders wait. 1024: ours, likewise.
        max_restarts: restarts of the channel's actors allowed within ``max_seconds``. 3: Elixir's Supervisor.
        max_seconds: length of that window in seconds. 5: Elixir's Supervisor. It has to be longer than the delays
            before that many restarts (0, 1, 2, 4, ... 30 s), or the budget could never be spent.
        transport: ``"auto"``, ``"websockets"``, ``"trio-websocket"``, or a connector of your own. Auto is websockets
            where the extra ``fast`` is installed.
        on_event: gets every event of the channel and its supervisor; the default logs them.
    """

    ws_url: str
    api_key: str | ApiKeyProvider = dataclasses.field(repr=False)
    agent_did: str = ""
    callbacks: Callbacks = Callbacks()
    did_spec: Mapping[str, Any] | None = None
    heartbeat_interval: float = 30.0
    heartbeat_timeout: float | None = None
    connect_timeout: float = 10.0
    join_timeout: float = 10.0
    reply_timeout: float = 15.0
    close_timeout: float = 5.0
    backoff: Backoff = Backoff(initial=1.0, maximum=30.0, factor=2.0, jitter=0.5, reset_after=30.0)
    auth: Literal["query", "header"] = "query"
    ssl_context: ssl.SSLContext | None = dataclasses.field(default=None, repr=False)
    max_message_size: int = 8 * 1024 * 1024
    inbox_capacity: int = 1024
    inbox_bytes: int | None = None
    outbox_capacity: int = 1024
    max_restarts: int = 3
    max_seconds: float = 5.0
    transport: TransportName | Connector = "auto"
    on_event: Hook = dataclasses.field(default=log_event, repr=False)

    def __post_init__(self) -> None:
        # A frozen dataclass is completed through object.__setattr__. Key and URL are made safe to print before anything
        # can raise: `self` is a local of this frame, which a traceback shows.
        key, url = _wrapped(self.api_key), checked_url(self.ws_url)
        object.__setattr__(self, "api_key", Secret("") if isinstance(key, InvalidOption) else key)
        object.__setattr__(self, "ws_url", "" if isinstance(url, InvalidOption) else url)
        for checked in (key, url):
            if isinstance(checked, InvalidOption):
                raise checked
        if not isinstance(self.agent_did, str) or (self.agent_did and not _DID.fullmatch(self.agent_did)):
            raise InvalidOption("agent_did", self.agent_did, "a DID such as 'did:web:...', or '' for an ephemeral one")
        if not isinstance(self.callbacks, Callbacks):
            raise InvalidOption("callbacks", self.callbacks, "Callbacks(...)")
        if self.did_spec is not None:
            self._check_did_spec()
        numbers = _numbers_of(self)
        # Once for all channels that have the same ones; what is no plain number is none of those that were good before.
        check = _check_numbers if _PLAIN.issuperset(map(type, numbers)) else _check_numbers.__wrapped__
        check(*numbers)
        if not isinstance(self.backoff, Backoff):
            raise InvalidOption("backoff", self.backoff, "Backoff(...)")
        if self.auth not in ("query", "header"):
            raise InvalidOption("auth", self.auth, "'query' | 'header'")
        if self.ssl_context is not None and not isinstance(self.ssl_context, ssl.SSLContext):
            raise InvalidOption("ssl_context", self.ssl_context, "ssl.SSLContext, or None")
        if isinstance(self.transport, str):
            if self.transport not in get_args(TransportName):
                raise InvalidOption("transport", self.transport, _TRANSPORTS)
            connector_named(self.transport)  # so that a library that is not there is missed here and not by a dial
        elif not callable(getattr(self.transport, "open", None)):
            raise InvalidOption("transport", self.transport, _TRANSPORTS)
        if not callable(self.on_event):
            raise InvalidOption("on_event", self.on_event, "a function that takes one event")

    def _check_did_spec(self) -> None:
        spec = build_did_spec(self.did_spec, self.agent_did)
        try:
            Serializer().encode(Frame(None, None, "plugins:", "phx_join", spec))
        except LocalProtocolError as error:
            raise InvalidOption("did_spec", self.did_spec, f"plain JSON values; {error}") from None
        if "parentDid" in spec:
            object.__setattr__(self, "agent_did", derive_child_did(self.agent_did, spec["parentDid"]))
        # What the caller changes later is not ours.
        object.__setattr__(self, "did_spec", dict(self.did_spec or {}))

    def __repr__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}
        shown["ws_url"] = self.public_url
        return f"ChannelOptions({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def public_url(self) -> str:
        """``ws_url`` without its query: what error texts and reprs show, since a key may stand in there by mistake."""
        return self.ws_url.partition("?")[0]

    @property
    def heartbeat_timeout_s(self) -> float:
        """Seconds that a heartbeat may stay unanswered, with the default filled in."""
        return self.heartbeat_interval if self.heartbeat_timeout is None else self.heartbeat_timeout

    @property
    def inbox_bytes_bound(self) -> int:
        """Bytes that may wait for the user before reading stops, with the default filled in."""
        return 2 * self.max_message_size if self.inbox_bytes is None else self.inbox_bytes

    async def endpoint(self) -> Endpoint:
        """Where to dial now, with the key that is valid now.

        Returns:
            The endpoint, whose key prints as ``***``.

        Raises:
            InvalidOption: the provider returned something that is not a non-empty str.
            Exception: whatever the provider raised.

        Checkpoints only if the provider does; cancellation leaves nothing behind.
        """
        key = await _asked(self.api_key)
        if isinstance(key, InvalidOption):
            raise key
        return Endpoint(
            url=self.ws_url,
            api_key=key,
            auth=self.auth,
            ssl_context=self.ssl_context,
            max_message_size=self.max_message_size,
            open_timeout=self.connect_timeout,
        )


_PLAIN = frozenset((int, float, type(None)))
_NUMBERS = (
    "heartbeat_interval",
    "heartbeat_timeout",
    "connect_timeout",
    "join_timeout",
    "reply_timeout",
    "close_timeout",
    "max_message_size",
    "inbox_capacity",
    "inbox_bytes",
    "outbox_capacity",
    "max_restarts",
    "max_seconds",
)
_numbers_of = operator.attrgetter(*_NUMBERS)


@functools.lru_cache(maxsize=64, typed=True)
def _check_numbers(*numbers: Any) -> None:
    """Check the options that are :data:`_NUMBERS`; what passes is known from then on.

    Args:
        numbers: in that order.

    Raises:
        InvalidOption: one is not allowed.
    """
    given = dict(zip(_NUMBERS, numbers, strict=True))
    interval, timeout = given["heartbeat_interval"], given["heartbeat_timeout"]
    for name in ("heartbeat_interval", "connect_timeout", "join_timeout", "reply_timeout", "close_timeout"):
        checked_seconds(name, given[name], allow_zero=False)
    if checked_seconds("heartbeat_timeout", interval if timeout is None else timeout, allow_zero=False) > interval:
        raise InvalidOption("heartbeat_timeout", timeout, "at most heartbeat_interval")
    for name in ("max_message_size", "inbox_capacity", "outbox_capacity"):
        checked_count(name, given[name], minimum=1)
    size, most = given["max_message_size"], given["inbox_bytes"]
    if checked_count("inbox_bytes", 2 * size if most is None else most, minimum=1) < size:
        raise InvalidOption("inbox_bytes", most, "at least max_message_size, or None for twice that")
    # The supervisor's own check, made here so that it fails at construction: the window must be able to fill.
    Supervisor((), max_restarts=given["max_restarts"], max_seconds=given["max_seconds"], backoff=RESTART_BACKOFF)


def _wrapped(source: object) -> Secret | Callable[..., object] | InvalidOption:
    """The key as a secret, or the error to raise from a frame that does not hold what was given."""
    if callable(source):
        return source
    key = Secret(source) if isinstance(source, str) else source
    if isinstance(key, Secret) and key.reveal().strip():
        return key
    given = "" if isinstance(key, Secret) else key
    return InvalidOption("api_key", given, "a non-empty str, or an async function that returns one")


async def _asked(source: str | Secret | ApiKeyProvider) -> Secret | InvalidOption:
    """The key of this moment; not a moment longer than needed in a local variable of ours."""
    key: object = await source() if callable(source) else source
    if isinstance(key, str):
        key = Secret(key)
    if isinstance(key, Secret) and key:
        return key
    return InvalidOption("api_key()", key, "an async function that returns a non-empty str")


def checked_protocols(protocols: object) -> tuple[str, ...]:
    """Return ``protocols`` without repetitions, in order; a set in the order of its text, which is the same each run.

    Args:
        protocols: URIs, or ``"*"``.

    Raises:
        InvalidOption: it is not a sequence of at least one non-empty str; a node refuses a join without.
    """
    allowed = "a sequence of at least one non-empty str, such as ['https://didcomm.org/basicmessage/2.0']"
    if isinstance(protocols, str | bytes) or not isinstance(protocols, Iterable):
        raise InvalidOption("protocols", protocols, allowed)
    names = list(protocols)
    if not names or not all(isinstance(name, str) and _URI.fullmatch(name) for name in names):
        raise InvalidOption("protocols", protocols, allowed)
    return tuple(dict.fromkeys(sorted(names) if isinstance(protocols, Set) else names))
