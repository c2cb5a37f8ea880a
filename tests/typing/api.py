"""The public API as a user's type checker sees it: mypy and pyright check this file, nothing runs it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import msgspec
import trio

from layr8_actors import (
    PASS,
    Attachment,
    Callbacks,
    Channel,
    ChannelOptions,
    ChannelState,
    ChannelStatistics,
    Client,
    ClientConfig,
    ClientStatistics,
    Delegation,
    JoinedTopic,
    Message,
    MessageStream,
    Pass,
    ProblemReportError,
    Reply,
    blocking,
    open_channel,
)
from layr8_actors.client import DidHandlers, JoinedDid
from layr8_actors.client.durable import (
    Claimed,
    DeadLetter,
    DurableQueue,
    MemoryQueue,
    MemoryStore,
    QueueOptions,
    QueueStatistics,
    RedisStore,
    RejectMessage,
    SnoozeMessage,
    SqliteStore,
    run_worker,
)
from layr8_actors.otp import (
    Actor,
    ActorRef,
    AutoShutdown,
    Backoff,
    Call,
    ChildCounts,
    ChildInfo,
    ChildSnapshot,
    ChildSpec,
    Down,
    DynamicSupervisor,
    ExitKind,
    ExitReason,
    MailboxStatistics,
    Monitor,
    Overflow,
    Pid,
    Registry,
    Restart,
    Strategy,
    Supervisor,
    SupervisorSnapshot,
    Timer,
    events,
    format_tree,
    mark_healthy,
)
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, FaultProxy, ProxiedConnection, ProxyStatistics
from layr8_actors.transport import AttendedConnector, AttendedTransport, Endpoint, HttpProxy, TrioWebSocketConnector
from layr8_actors.transport.websockets import WebSocketsConnector


class Get(Call[int]):
    def __init__(self, key: str) -> None:
        self.key = key


async def a_call_has_the_type_that_its_request_names(ref: ActorRef) -> None:
    assert_type(await ref.call(Get("k")), int)
    assert_type(await ref.cast("any object"), bool)
    assert_type(ref.cast_nowait(b"any object"), bool)


async def plain_service(task_status: trio.TaskStatus[str]) -> None:
    task_status.started("handle")
    await trio.sleep_forever()


def a_plain_trio_service_is_a_child() -> Supervisor:
    return Supervisor([ChildSpec("service", plain_service, restart=Restart.TRANSIENT)])


async def greet(stream: trio.SocketStream) -> None:
    await stream.send_all(b"hello")


async def a_service_that_is_healthy_later(number: int, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    mark_healthy(task_status)


def what_takes_task_status_is_a_child_and_its_arguments_are_bound() -> list[ChildSpec]:
    return [
        ChildSpec("later", functools.partial(a_service_that_is_healthy_later, 1), marks_healthy=True),
        ChildSpec("server", functools.partial(trio.serve_tcp, greet, 0, host="127.0.0.1")),
        Watcher.child_spec("watcher", shutdown=1.0),
        Supervisor(name="inner").child_spec(restart=Restart.TRANSIENT, significant=True),
        DynamicSupervisor(name="pool").child_spec(),
    ]


def each_limit_of_restarts_has_a_type() -> Supervisor:
    return Supervisor(
        strategy=Strategy.REST_FOR_ONE,
        backoff=Backoff(initial=0.5),
        max_restarts=5,
        max_seconds=60,
        max_attempts=None,
        give_up_never=False,
        auto_shutdown=AutoShutdown.ALL_SIGNIFICANT,
        parallel_shutdown=True,
        shutdown_deadline=25,
        on_event=tell,
    )


def tell(event: Event) -> None:
    match event:
        case events.RestartScheduled():
            assert_type(event.delay, float)
        case events.ChildExited():
            assert_type(event.error, Exception | None)
        case events.LimitReached():
            assert_type(event.path, str)
        case _:
            pass


async def a_supervisor_keeps_its_type_wherever_it_runs(nursery: trio.Nursery, spec: ChildSpec) -> None:
    async with Supervisor([spec]) as supervisor:
        assert_type(supervisor, Supervisor)
        await supervisor.start_child(spec)  # its handle is Any: what the child reported
        assert_type(await supervisor.terminate_child("service"), None)
        supervisor.request_stop()
    async with DynamicSupervisor(max_children=4) as pool:
        assert_type(pool, DynamicSupervisor)
        assert_type(await pool.start_child(spec), Pid | None)
    await nursery.start(supervisor.run)
    nursery.start_soon(pool.run)
    await supervisor.run()
    await supervisor.stop()


async def a_pid_tells_how_its_run_ended(pool: DynamicSupervisor, spec: ChildSpec) -> None:
    pid = await pool.start_child(spec)
    if pid is not None:
        reason = await pid.wait_exit()
        assert_type(reason, ExitReason)
        assert_type(reason.kind, ExitKind)
        assert_type(reason.error, Exception | None)
        assert_type(reason.clean, bool)
        assert_type(pid.alive, bool)
        await pool.terminate_child(pid)
        await pool.terminate_child(pid.id)


def a_tree_is_seen_as_plain_data(supervisor: Supervisor, pool: DynamicSupervisor) -> dict[str, Any]:
    assert_type(supervisor.pid("service"), Pid)
    assert_type(supervisor.which_children(), list[ChildInfo])
    assert_type(pool.count_children(), ChildCounts)
    snapshot = supervisor.snapshot()
    assert_type(snapshot, SupervisorSnapshot)
    assert_type(snapshot.children, tuple[ChildSnapshot, ...])
    assert_type(snapshot.children[0].supervisor, SupervisorSnapshot | None)
    assert_type(format_tree(pool) + format_tree(snapshot), str)
    return dataclasses.asdict(snapshot)


class Watcher(Actor):
    drain = True
    waits = False
    hibernate_after = 5.0
    watched: Monitor
    timer: Timer

    async def handle_cast(self, message: ActorRef | Pid) -> None:
        self.watched = self.monitor(message)
        self.timer = self.send_after(1, "tick")
        self.start_soon(trio.sleep, 1)
        assert_type(self.timer.cancel(), bool)

    async def handle_down(self, down: Down) -> None:
        assert_type(down.pid, Pid | None)
        assert_type(down.reason, ExitReason)
        assert_type(down.monitor, Monitor)
        self.watched.cancel()


def a_ref_says_what_its_mailbox_does_and_where_it_is_registered(registry: Registry) -> ActorRef:
    ref = ActorRef("db", mailbox_capacity=64, overflow=Overflow.DROP_OLD, registry=registry)
    assert_type(ref.statistics(), MailboxStatistics)
    assert_type(ref.pid, Pid | None)
    assert_type(registry.names(), tuple[Hashable, ...])
    with registry.register(("cache", 1), object()):
        return ref


def callbacks_may_be_sync_or_async() -> tuple[Callbacks, Callbacks, Callbacks]:
    def on_message(payload: Any) -> None: ...
    def on_disconnect(reason: Exception) -> None: ...
    def on_reconnect() -> None: ...
    def on_push(event: str, payload: Any) -> None: ...
    async def on_join(response: dict[str, Any]) -> None: ...

    async def on_message_async(payload: Any) -> None: ...
    async def on_disconnect_async(reason: Exception) -> None: ...
    async def on_reconnect_async() -> None: ...

    return (
        Callbacks(on_message=on_message, on_disconnect=on_disconnect, on_reconnect=on_reconnect),
        Callbacks(on_message=on_message_async, on_disconnect=on_disconnect_async, on_reconnect=on_reconnect_async),
        Callbacks(on_message=on_message, on_push=on_push, on_join=on_join),
    )


async def ask_for_key() -> str:
    return "key"


def the_key_may_be_text_or_asked_for() -> tuple[ChannelOptions, ChannelOptions]:
    return (
        ChannelOptions(ws_url="wss://node.example.com/socket", api_key="key", agent_did=""),
        ChannelOptions(
            ws_url="wss://node.example.com/socket", api_key=ask_for_key, agent_did="", callbacks=Callbacks()
        ),
    )


async def a_channel_is_typed(nursery: trio.Nursery, options: ChannelOptions) -> None:
    assert_type(await Channel.start_link(nursery, options), Channel)
    assert_type(Channel.child_spec(options), ChildSpec)
    assert_type(options.public_url, str)
    context: AbstractAsyncContextManager[Channel] = open_channel(options)
    async with context as channel:
        await channel.connect(["https://didcomm.org/basicmessage/2.0"])
        reply = await channel.send_msg("message", {"id": "1"})
        assert_type(reply, Reply)
        assert_type(reply.status, str)
        await channel.send_fire_and_forget("message", {"id": "2"})
        await channel.send_ack(["1"])
        assert_type(channel.assigned_did, str)
        assert_type(channel.capabilities, tuple[str, ...])
        assert_type(channel.messages(), MessageStream)
        stream: AsyncIterator[Any] = channel.messages()
        async for _payload in stream:
            pass
        await channel.close()


async def further_dids_are_typed(channel: Channel, callbacks: Callbacks) -> None:
    handle = await channel.join(
        "did:web:example:second",
        ["https://didcomm.org/basicmessage/2.0"],
        callbacks=callbacks,
        did_spec={"storage": "ephemeral"},
    )
    assert_type(handle, JoinedTopic)
    assert_type(await handle.send_msg("message", {"id": "1"}, join_ref=handle.message_join_ref), Reply)
    await handle.send_fire_and_forget("message", {"id": "2"}, join_ref="1")
    await handle.send_ack(["1"])
    assert_type(handle.messages(), MessageStream)
    assert_type(handle.assigned_did, str)
    assert_type(handle.capabilities, tuple[str, ...])
    assert_type(handle.state, ChannelState)
    assert_type(handle.statistics(), ChannelStatistics)
    assert_type(handle.supervisor, Supervisor)
    await handle.leave()


def mistakes_are_refused(options: ChannelOptions) -> None:
    # Each is checked by the comment itself: a checker that saw no mistake here would call the comment unused.
    ChannelOptions(ws_url="wss://node.example.com/socket", api_key=1, agent_did="")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    options.ws_url = "wss://other.example.com"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    ActorRef("db", overflow="drop_old")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Supervisor(auto_shutdown=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DynamicSupervisor(strategy=Strategy.ONE_FOR_ALL)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def a_network_fails_for_all_connections_or_for_one(node: CloudNode) -> ProxyStatistics:
    async with FaultProxy.around(node, seed=1) as proxy, FaultProxy("node.test", 443, tls=True) as other:
        assert_type(proxy.connections, tuple[ProxiedConnection, ...])
        proxy.delay(0.1, jitter=0.1, direction="to_node")
        proxy.stall(connection=proxy.connections[0])
        await other.ignore_dials(accepted=False)
        ChannelOptions(ws_url=other.url, api_key="key", transport=other.connector)
        proxied = TrioWebSocketConnector(HttpProxy("http://proxy.example.com:3128"))
        ChannelOptions(ws_url=other.url, api_key="key", transport=proxied)
        assert_type(HttpProxy.from_environment(other.url), HttpProxy | None)
        return proxy.statistics()


async def a_link_may_be_attended(nursery: trio.Nursery, endpoint: Endpoint) -> None:
    connector: AttendedConnector = WebSocketsConnector()
    transport: AttendedTransport = await connector.open_attended(nursery, endpoint)
    transport.attend(False)
    ChannelOptions(ws_url=endpoint.url, api_key="key", transport=connector)


async def a_durable_queue_is_the_same_in_sqlite_in_redis_and_in_memory(claimed: Claimed) -> None:
    async with SqliteStore("agent.db", inbox=QueueOptions(lease=60)) as store, RedisStore("redis://host") as shared:
        queues: list[DurableQueue] = [store.inbox, store.queue("more"), shared.outbox, MemoryQueue()]
        for queue in queues:
            assert_type(await queue.put("id", b"body", key="thread"), bool)
            assert_type(await queue.claim(10), list[Claimed])
            assert_type(await queue.acknowledge(claimed), bool)
            assert_type(await queue.dead_letters(), list[DeadLetter])
            assert_type(await queue.statistics(), QueueStatistics)

        async def handle(claimed: Claimed) -> None:
            if claimed.attempt > 1:
                raise SnoozeMessage(10)
            raise RejectMessage(claimed.body.decode())

        await run_worker(store.inbox, handle, concurrency=4, backoff=Backoff(initial=2))
        ChildSpec("inbox", functools.partial(run_worker, store.inbox, handle))
        await store.inbox.put("id", "body")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Order(msgspec.Struct):
    number: int


async def a_client_is_typed_to_the_ends(nursery: trio.Nursery) -> None:
    config = ClientConfig(node_url="https://node", api_key="k", channel={"reply_timeout": 3.0, "inbox_capacity": 10})
    client = Client(config)

    @client.handle("https://example.org/x/1.0/sync", timeout=5, accept_first=True)
    def sync(message: Message) -> Message | None:
        assert_type(message.body_as(Order), Order)
        assert_type(message.body_as(Order).number, int)
        assert_type(message.attachments, tuple[Attachment, ...] | list[Attachment] | None)
        return message.reply("https://example.org/x/1.0/answer", {"ok": True})

    @client.handle("https://example.org/x/1.0/async")
    async def asynchronous(message: Message) -> Message | Pass | None:
        return PASS if message.context.authorized else await client.request(message)

    @client.handle_all
    async def nothing(message: Message) -> None: ...

    # The decorators leave a function what it is.
    assert_type(sync(Message(type="t")), Message | None)
    assert_type(await asynchronous(Message(type="t")), Message | Pass | None)

    @client.on_delegation
    def delegated(delegation: Delegation | None) -> None: ...

    @client.on_disconnect
    async def disconnected(error: Exception) -> None: ...

    assert_type(client.child_spec(id="agent", restart=Restart.TRANSIENT), ChildSpec)
    assert_type(await client.start_link(nursery), Client)
    async with client as running:
        assert_type(running, Client)
        assert_type(await client.send(Message(type="t", to=["did:x:y"], body=Order(1))), Message)
        try:
            assert_type(await client.request(Message(type="t"), timeout=3, survive_reconnect=True), Message)
        except ProblemReportError as error:
            assert_type((error.code, error.comment), tuple[str, str])
    assert_type(client.did, str)
    assert_type(client.protocols, tuple[str, ...])
    assert_type(client.delegation, Delegation | None)
    assert_type(client.channel, Channel)
    assert_type(client.statistics(), ClientStatistics)


def a_blocking_client_has_the_names_of_the_client() -> None:
    client = blocking.Client(ClientConfig(node_url="https://node", api_key="k"))

    @client.handle("https://example.org/x/1.0/sync", timeout=5)
    def sync(message: Message) -> Message | None:
        return client.request(message, timeout=3, survive_reconnect=True)

    @client.handle_all
    async def asynchronous(message: Message) -> Message | Pass | None:
        return await client.asynchronous.request(message)

    assert_type(sync(Message(type="t")), Message | None)
    with client as running:
        assert_type(running, blocking.Client)
        assert_type(client.send(Message(type="t")), Message)
        assert_type(client.wait(3.0), bool)
    assert_type((client.did, client.state, client.statistics()), tuple[str, ChannelState, ClientStatistics])
    durable = blocking.Client(ClientConfig(node_url="https://node", api_key="k"), durable=SqliteStore("agent.db"))
    assert_type(durable.send_durably(Message(type="t")), Message)
    joined = durable.join_did("did:x:y", DidHandlers(), protocols=["https://example.org/z/1.0"])
    assert_type(joined, blocking.JoinedDid)
    assert_type(joined.request(Message(type="t"), timeout=3), Message)
    assert_type(joined.asynchronous, JoinedDid)
    assert_type((joined.did, joined.state, joined.statistics()), tuple[str, ChannelState, ClientStatistics])
    assert_type(durable.waiting_dids(), dict[str, int])


async def a_client_has_further_dids_and_a_store(client: Client) -> None:
    handlers = DidHandlers(handler_timeout=5)

    @handlers.handle("https://example.org/x/1.0/y")
    async def on_y(message: Message) -> Pass:
        return PASS

    joined = await client.join_did("did:x:y", handlers, protocols=["https://example.org/z/1.0"])
    assert_type(joined, JoinedDid)
    assert_type(await joined.request(Message(type="t"), timeout=3), Message)
    assert_type(await joined.send(Message(type="t")), Message)
    assert_type(await joined.send_durably(Message(type="t")), Message)
    await joined.connect()
    await joined.leave()
    assert_type(await client.waiting_dids(), dict[str, int])
    async with SqliteStore("agent.db") as store, Client(client.config, durable=store) as durable:
        assert_type(await durable.send_durably(Message(type="t")), Message)
    async with RedisStore("redis://host") as shared:
        Client(client.config, durable=shared)
    Client(client.config, durable=MemoryStore())
