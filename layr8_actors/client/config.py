"""What a client is made from: arguments, or the environment where an argument is not given."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

from ..channel import ApiKeyProvider, Callbacks, ChannelOptions
from ..channel.options import checked_protocols
from ..errors import InvalidOption
from ..otp import Backoff
from ..otp.validation import checked_count, checked_seconds
from ..telemetry import Hook, log_event
from ..transport import Connector, Secret, TransportName
from ..transport.endpoint import checked_url
from ..transport.hidden_arguments import hide_arguments

__all__ = ("ChannelTuning", "ClientConfig")

SOCKET_PATH = "/plugin_socket/websocket"
"""Where a Layr8 node has its socket, in all SDKs."""

_NODE_URL = "LAYR8_NODE_URL"
_API_KEY = "LAYR8_API_KEY"
_AGENT_DID = "LAYR8_AGENT_DID"


class ChannelTuning(TypedDict, total=False):
    """Options of the channel underneath, by the names and with the defaults of :class:`ChannelOptions`."""

    heartbeat_interval: float
    heartbeat_timeout: float | None
    connect_timeout: float
    join_timeout: float
    reply_timeout: float
    close_timeout: float
    backoff: Backoff
    max_message_size: int
    inbox_capacity: int
    inbox_bytes: int | None
    outbox_capacity: int
    max_restarts: int
    max_seconds: float


@hide_arguments
@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """Everything a client is made from, but its handlers; immutable, and safe to print.

    What is not given, or given as ``""``, is taken from the environment where a variable is named.

    Args:
        node_url: the node, such as ``https://node.example.com``; ``LAYR8_NODE_URL``. http(s) is turned into ws(s), and
            a URL without a path gets ``/plugin_socket/websocket``.
        api_key: the key, or an async function that is asked for it before every dial; ``LAYR8_API_KEY``.
        agent_did: the DID to bind; ``LAYR8_AGENT_DID``. ``""`` asks the node for an ephemeral one, or has one derived
            from ``parent_did``, once, so that reconnects keep the name.
        protocols: to bind besides those of the handlers, for a client that only sends for instance.
        parent_did: the DID that ``agent_did`` is borrowed from, ``<parent_did>:<one segment>``.
        did_spec: as in :class:`ChannelOptions`.
        max_handlers: handlers that run at once. 64: ours; the SDKs have no bound, and 5000 messages were 5000 handlers.
        max_queued: messages that may wait for a handler before the channel's inbox is left to fill. 64: ours, one for
            each handler, since the inbox holds 1024 more.
        handler_timeout: seconds that a handler may take; each may have its own. 30: the SDKs' timeout of a request,
            after which nobody waits for what it says. ``math.inf`` for none.
        shutdown_grace: seconds that cancelled handlers have for their cleanup when the client ends. 5: OTP's default
            shutdown.
        auth: as in :class:`ChannelOptions`.
        ssl_context: likewise.
        transport: likewise.
        channel: further options of the channel.
        on_event: gets every event of the client, its channel and their supervisors; the default logs them.

    Raises:
        InvalidOption: a value is missing or not allowed; it names the argument, and the variable where there is one.
    """

    node_url: str = ""
    api_key: str | ApiKeyProvider = dataclasses.field(default="", repr=False)
    agent_did: str = ""
    protocols: Sequence[str] = ()
    parent_did: str = ""
    did_spec: Mapping[str, Any] | None = None
    max_handlers: int = 64
    max_queued: int = 64
    handler_timeout: float = 30.0
    shutdown_grace: float = 5.0
    auth: Literal["query", "header"] = "query"
    ssl_context: ssl.SSLContext | None = dataclasses.field(default=None, repr=False)
    transport: TransportName | Connector = "auto"
    channel: ChannelTuning = dataclasses.field(default_factory=ChannelTuning)
    on_event: Hook = dataclasses.field(default=log_event, repr=False)

    def __post_init__(self) -> None:
        # As in ChannelOptions: key and URL are made safe to print before anything can raise.
        key, url = _key(self.api_key), _url(self.node_url)
        object.__setattr__(self, "api_key", Secret("") if isinstance(key, InvalidOption) else key)
        object.__setattr__(self, "node_url", "" if isinstance(url, InvalidOption) else url)
        for checked in (url, key):
            if isinstance(checked, InvalidOption):
                raise checked
        if not isinstance(self.agent_did, str):
            raise InvalidOption("agent_did", self.agent_did, f"a DID, or '' for that of {_AGENT_DID}")
        given = self.agent_did
        did = given or os.environ.get(_AGENT_DID, "")
        object.__setattr__(self, "agent_did", did)
        if not isinstance(self.parent_did, str):
            raise InvalidOption("parent_did", self.parent_did, "a DID, or ''")
        if self.parent_did:
            named_by = {"childNameSource": "client" if did else "sdk"}
            if not isinstance(self.did_spec, Mapping | None):
                raise InvalidOption("did_spec", self.did_spec, "a dict, or None")
            spec = {**named_by, **(self.did_spec or {}), "parentDid": self.parent_did}
            object.__setattr__(self, "did_spec", spec)
        if self.protocols or not isinstance(self.protocols, (list, tuple, set, frozenset)):
            object.__setattr__(self, "protocols", checked_protocols(self.protocols))
        checked_count("max_handlers", self.max_handlers, minimum=1)
        checked_count("max_queued", self.max_queued, minimum=1)
        checked_seconds("handler_timeout", self.handler_timeout, allow_zero=False, allow_infinity=True)
        checked_seconds("shutdown_grace", self.shutdown_grace, allow_zero=False)
        if not isinstance(self.channel, Mapping):
            raise InvalidOption("channel", self.channel, "a dict of options of ChannelOptions")
        for name in self.channel:
            if name not in ChannelTuning.__annotations__:
                raise InvalidOption(f"channel[{name!r}]", name, ", ".join(ChannelTuning.__annotations__))
        object.__setattr__(self, "channel", {**self.channel})
        options = self._checked_options(bool(given))
        object.__setattr__(self, "agent_did", options.agent_did)  # with a parent it may have been derived just now

    def __repr__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}
        shown["node_url"] = self.public_url
        return f"ClientConfig({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _checked_options(self, did_given: bool) -> ChannelOptions:
        try:
            return self.channel_options(Callbacks(), self.on_event)
        except InvalidOption as error:
            if error.option != "agent_did" or did_given or not self.agent_did:
                raise
            allowed = error.allowed
        raise InvalidOption(f"agent_did (from {_AGENT_DID})", self.agent_did, allowed)

    @property
    def public_url(self) -> str:
        """``node_url`` without its query."""
        return self.node_url.partition("?")[0]

    def channel_options(self, callbacks: Callbacks, on_event: Hook) -> ChannelOptions:
        """Return the options of a channel for this client.

        Args:
            callbacks: what the channel calls.
            on_event: its hook.

        Raises:
            InvalidOption: an option is not allowed.
        """
        tuning: Mapping[str, Any] = self.channel
        return ChannelOptions(
            ws_url=self.node_url,
            api_key=self.api_key,
            agent_did=self.agent_did,
            callbacks=callbacks,
            did_spec=self.did_spec,
            auth=self.auth,
            ssl_context=self.ssl_context,
            transport=self.transport,
            on_event=on_event,
            **tuning,
        )


def _key(given: object) -> Any:
    """The key as a secret, the function that is asked for it, or the error to raise from a frame without either."""
    if callable(given):
        return given
    key = given if isinstance(given, Secret) else Secret(given if isinstance(given, str) else "")
    if not key and isinstance(given, str):
        key = Secret(os.environ.get(_API_KEY, ""))
    text = key.reveal()
    if text and text == text.strip() and text.isprintable():
        return key
    if text.strip():
        source = "api_key" if given else f"api_key (from {_API_KEY})"
        return InvalidOption(source, None, "a str without newlines, or spaces around it, such as a file's end")
    return InvalidOption("api_key", None if isinstance(given, str) else given, f"a non-empty str, or {_API_KEY} set")


def _url(given: object) -> str | InvalidOption:
    """The URL of the socket, or the error likewise: a key may stand in its query by mistake."""
    if not isinstance(given, str):
        return InvalidOption("node_url", given, "a str such as 'https://node.example.com'")
    url = given or os.environ.get(_NODE_URL, "")
    source = "node_url" if given else f"node_url (from {_NODE_URL})"
    if not url:
        return InvalidOption("node_url", None, f"a URL such as 'https://node.example.com', or {_NODE_URL} set")
    checked = checked_url(url)
    if isinstance(checked, InvalidOption):
        return InvalidOption(source, url, checked.allowed)
    parts = urlsplit(checked)
    return parts._replace(path=SOCKET_PATH).geturl() if parts.path in ("", "/") else checked
