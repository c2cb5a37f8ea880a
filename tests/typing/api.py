"""The public API as a user's type checker sees it: mypy and pyright check this file, nothing runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import trio

from layr8_actors import Callbacks, Channel, ChannelOptions, MessageStream, Reply, open_channel
from layr8_actors.otp import ActorRef, Call, ChildSpec, Restart, Supervisor
from layr8_actors.testing import CloudNode, FaultProxy, ProxiedConnection, ProxyStatistics


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


def callbacks_may_be_sync_or_async() -> tuple[Callbacks, Callbacks]:
    def on_message(payload: Any) -> None: ...
    def on_disconnect(reason: Exception) -> None: ...
    def on_reconnect() -> None: ...

    async def on_message_async(payload: Any) -> None: ...
    async def on_disconnect_async(reason: Exception) -> None: ...
    async def on_reconnect_async() -> None: ...

    return (
        Callbacks(on_message=on_message, on_disconnect=on_disconnect, on_reconnect=on_reconnect),
        Callbacks(on_message=on_message_async, on_disconnect=on_disconnect_async, on_reconnect=on_reconnect_async),
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


def mistakes_are_refused(options: ChannelOptions) -> None:
    # Each is checked by the comment itself: a checker that saw no mistake here would call the comment unused.
    ChannelOptions(ws_url="wss://node.example.com/socket", api_key=1, agent_did="")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    options.ws_url = "wss://other.example.com"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def a_network_fails_for_all_connections_or_for_one(node: CloudNode) -> ProxyStatistics:
    async with FaultProxy.around(node, seed=1) as proxy, FaultProxy("node.test", 443, tls=True) as other:
        assert_type(proxy.connections, tuple[ProxiedConnection, ...])
        proxy.delay(0.1, jitter=0.1, direction="to_node")
        proxy.stall(connection=proxy.connections[0])
        await other.ignore_dials(accepted=False)
        ChannelOptions(ws_url=other.url, api_key="key", transport=other.connector)
        return proxy.statistics()
