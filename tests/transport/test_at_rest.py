"""A link that is attended: it holds no task of its own, and keeps every promise all the same."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from wsproto.events import Ping, Pong

from layr8_actors.errors import TransportClosed
from layr8_actors.transport.websockets import WebSocketsConnector
from tests.transport.conftest import WEBSOCKETS

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


class Attended(WebSocketsConnector):
    open = WebSocketsConnector.open_attended


CONNECT: dict[str, Callable[..., Any]] = {
    name: functools.partial(connect.func, Attended)
    for name, connect in WEBSOCKETS.items()
    if name.startswith("websockets") and isinstance(connect, functools.partial)
}


class Receiver:
    """Receives in a task of the transport's nursery, as it has promised."""

    def __init__(self, link: Any) -> None:
        self.link = link
        self.scope = trio.CancelScope()
        self.promises = True
        self.got: list[str | bytes] = []
        self.error: TransportClosed | None = None

    async def run(self) -> None:
        with self.scope:
            try:
                while True:
                    self.got += await self.link.transport.receive()
            except TransportClosed as error:
                self.error = error
            finally:
                if self.promises:
                    self.link.transport.abort()

    def go_away(self) -> None:
        """Stop receiving, having said so."""
        self.promises = False
        self.link.transport.attend(False)
        self.scope.cancel()

    def has(self, message: str) -> bool:
        return self.got[-1] == message

    @property
    def alone(self) -> bool:
        """True while no other task lives in the nursery of the transport."""
        names = [task.name for task in self.link.nursery.child_tasks]
        return len(names) == 1 and names[0].endswith("Receiver.run")


@asynccontextmanager
async def at_rest(connect: Callable[..., Any], **options: Any) -> AsyncIterator[tuple[Any, Receiver]]:
    """A link that has carried one message, and idles."""
    async with connect(**options) as link:
        assert not link.nursery.child_tasks
        receiver = Receiver(link)
        link.nursery.start_soon(receiver.run)
        await link.peer.send(["first"])
        await settle(lambda: receiver.got == ["first"] and receiver.alone)
        yield link, receiver


async def settle(done: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not done():
            await trio.sleep(0.1)


@pytest.fixture(params=list(CONNECT))
def rest(request: pytest.FixtureRequest) -> Any:
    return functools.partial(at_rest, CONNECT[request.param])


async def test_a_ping_is_answered_and_the_link_is_at_rest_again(rest: Any) -> None:
    async with rest() as (link, receiver):
        for payload in (b"one", b"two"):
            await link.peer.write(Ping(payload=payload))
            with trio.fail_after(5):
                assert await link.peer.event() == Pong(payload=payload)
            await settle(lambda: receiver.alone)
        assert receiver.error is None


async def test_messages_go_both_ways_and_the_link_is_at_rest_again(rest: Any) -> None:
    async with rest() as (link, receiver):
        for number in range(3):
            await link.transport.send([f"to the peer {number}"])
            assert await link.peer.receive() == f"to the peer {number}"
            await link.peer.send([f"from the peer {number}"])
            await settle(functools.partial(receiver.has, f"from the peer {number}"))
        await settle(lambda: receiver.alone)
        assert len(receiver.got) == 4


async def test_a_cancelled_nursery_drops_the_link(rest: Any) -> None:
    async with rest() as (link, receiver):
        link.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await link.peer.gone()
            await settle(lambda: not link.nursery.child_tasks)
            with pytest.raises(TransportClosed, match="dropped by this side"):
                await link.transport.receive()
        assert receiver.error is None  # it was cancelled too


async def test_a_receiver_that_leaves_is_stood_in_for(rest: Any) -> None:
    async with rest() as (link, receiver):
        receiver.go_away()
        await link.peer.write(Ping(payload=b"anybody there?"))
        with trio.fail_after(5):
            assert await link.peer.event() == Pong(payload=b"anybody there?")
        link.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await link.peer.gone()


async def test_a_receiver_that_comes_back_relieves_the_one_that_stood_in(rest: Any) -> None:
    async with rest() as (link, receiver):
        receiver.go_away()
        await trio.sleep(2)
        await link.peer.send(["while nobody received"])
        await settle(lambda: not receiver.alone)
        later = Receiver(link)
        link.transport.attend(True)
        link.nursery.start_soon(later.run)
        await settle(lambda: later.got == ["while nobody received"])
        await link.peer.send(["another"])
        await settle(lambda: later.alone and len(later.got) == 2)


async def test_an_abort_from_elsewhere_ends_the_receiver_and_the_socket_in_the_context_of_the_receiver(
    rest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    aclose_forcefully = trio.aclose_forcefully

    async def noting(stream: Any) -> None:
        seen.append(WHO.get())
        await aclose_forcefully(stream)

    async with rest() as (link, receiver):
        monkeypatch.setattr(trio, "aclose_forcefully", noting)
        WHO.set("whoever aborts")
        link.transport.abort()
        await settle(lambda: receiver.error is not None and not link.nursery.child_tasks)
        assert seen == ["nobody"]
        with trio.fail_after(5):
            await link.peer.gone()


async def test_a_close_from_elsewhere_shakes_hands(rest: Any) -> None:
    async with rest() as (link, receiver), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(link.transport.close, 1000, "bye", timeout=5))
        assert await link.peer.closed() == (1000, "bye")
        await settle(lambda: receiver.error is not None and not link.nursery.child_tasks)


async def test_the_peers_close_ends_the_link(rest: Any) -> None:
    async with rest() as (link, receiver):
        await link.peer.close(1001, "going away")
        await settle(lambda: receiver.error is not None and not link.nursery.child_tasks)
        assert receiver.error is not None
        assert (receiver.error.code, receiver.error.reason) == (1001, "going away")


async def test_a_send_into_a_link_that_is_gone_ends_it(rest: Any) -> None:
    async with rest() as (link, receiver):
        link.peer.reset()
        with trio.fail_after(5), pytest.raises(TransportClosed):
            while True:
                await link.transport.send(["into the void"])
        await settle(lambda: receiver.error is not None and not link.nursery.child_tasks)


async def test_many_messages_one_by_one_start_no_task_and_set_no_clock(rest: Any) -> None:
    async with rest() as (link, receiver):
        for number in range(20):
            await link.peer.send([str(number)])
            while not receiver.has(str(number)):
                await trio.lowlevel.checkpoint()
            assert receiver.alone
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


async def test_while_nobody_receives_the_socket_is_read_and_pings_are_answered_as_ever(rest: Any) -> None:
    async with rest() as (link, receiver):
        receiver.go_away()
        await link.peer.send([f"unread {number}" for number in range(500)])
        await link.peer.write(Ping(payload=b"there?"))
        with trio.fail_after(5):
            assert await link.peer.event() == Pong(payload=b"there?")
        later = Receiver(link)
        link.transport.attend(True)
        link.nursery.start_soon(later.run)
        await settle(lambda: later.alone and len(later.got) == 500)
        assert later.got == [f"unread {number}" for number in range(500)]


async def test_a_link_that_nobody_has_promised_to_attend_keeps_its_task_and_goes_with_the_nursery() -> None:
    async with WEBSOCKETS["websockets over streams"]() as link, trio.open_nursery() as elsewhere:
        elsewhere.cancel_scope.shield = True  # else it would be cancelled along with the link's nursery
        stranger = Receiver(link)
        elsewhere.start_soon(stranger.run)
        await link.peer.send(["for the stranger"])
        await settle(lambda: stranger.got == ["for the stranger"])
        await trio.sleep(5)
        assert link.nursery.child_tasks
        link.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await settle(lambda: stranger.error is not None)
