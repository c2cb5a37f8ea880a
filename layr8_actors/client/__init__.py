"""Layr8.Client: handlers, requests, threads and problem reports on a supervised channel.

In short (docs/client.md says more)::

    config = ClientConfig(node_url=..., api_key=..., agent_did=...)     # or LAYR8_NODE_URL, LAYR8_API_KEY, ...
    client = Client(config)

    @client.handle("https://didcomm.org/basicmessage/2.0/message", timeout=10, accept_first=False)
    async def on_basic(message: Message) -> Message | Pass | None: ...  # sync functions too

    @client.handle_all
    async def on_any(message: Message) -> ...: ...

    async with client: ...                       # runs and connects; leaving closes
    await client.start_link(nursery)             # in a nursery of your own; connects by itself
    client.child_spec(id="client")               # a child of a Supervisor; each restart is a new run, same handlers
    await client.connect()                       # waits for the join
    await client.close()

    sent = await client.send(Message(type=..., to=[did], body=...))      # ServerReject where the node refuses it
    response = await client.request(Message(...), timeout=30, survive_reconnect=False)   # ProblemReportError, ...
    client = Client(config, durable=store)       # a SqliteStore or RedisStore that is open: persist, then acknowledge
    await client.send_durably(Message(...))      # stored, then sent, also by the next run of the program
    joined = await client.join_did(did, DidHandlers())   # a further DID on the socket: joined.send, .request, .leave
    await client.waiting_dids()                  # of which DIDs messages are stored that nobody has joined
    client.did, client.protocols, client.capabilities, client.state, client.delegation, client.statistics()
"""

from . import events as events
from .attachment import Attachment as Attachment
from .client import Client as Client
from .config import ChannelTuning as ChannelTuning, ClientConfig as ClientConfig
from .delegation import Delegation as Delegation, DelegationStatus as DelegationStatus
from .did_handlers import DidHandlers as DidHandlers
from .handlers import (
    PASS as PASS,
    HandlerFunction as HandlerFunction,
    HandlerResult as HandlerResult,
    Pass as Pass,
)
from .joined_did import JoinedDid as JoinedDid
from .message import (
    Message as Message,
    MessageContext as MessageContext,
    SenderCredential as SenderCredential,
    TraceContext as TraceContext,
    parse_message as parse_message,
)
from .statistics import ClientStatistics as ClientStatistics
