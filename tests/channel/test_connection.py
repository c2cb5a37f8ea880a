"""The Connection actor alone, message by message."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.channel import Callbacks, open_channel
from layr8_actors.channel.connection import Connection
from layr8_actors.channel.link_state import DropLink, OpenLink
from layr8_actors.channel.messages import LinkFailed
from layr8_actors.channel.record import Record
from layr8_actors.errors import ConnectFailed, TransportClosed
from layr8_actors.phoenix import Frame
from layr8_actors.testing import CloudNode
from tests.channel.topics_on_a_node import ALICE, options, plaintext, until

CALLED_OFF = ConnectFailed("ws://node.test/plugin_socket/websocket", "called off")


class Notes:
    """A ref whose casts are written down."""

    def __init__(self) -> None:
        self.messages: list[object] = []

    def cast_nowait(self, message: object) -> bool:
        self.messages.append(message)
        return True


def new_connection(node: Any, nursery: trio.Nursery, reconnector: Notes) -> tuple[Connection, Record]:
    record = Record(node.options())
    sink: Any = Notes()
    notes: Any = reconnector
    connection = Connection(record, node, sink, sink, notes)
    connection.otp_process = SimpleNamespace(
        nursery=nursery, start_soon=lambda async_fn, args: nursery.start_soon(async_fn, *args)
    )  # type: ignore[assignment]
    return connection, record


async def test_a_drop_right_behind_a_dial_calls_off_that_dial_and_not_the_last_one(node: Any) -> None:
    reconnector = Notes()
    node.dial_gate = trio.Event()
    async with trio.open_nursery() as nursery:
        connection, record = new_connection(node, nursery, reconnector)
        record.dialling = 1
        await connection.handle_cast(OpenLink(1))
        await connection.handle_cast(DropLink(1, CALLED_OFF))  # before the dial's task has had a turn
        await wait_all_tasks_blocked()
        assert (node.dialling, record.dialling, record.link) == (0, 0, None)
        assert [type(message) for message in reconnector.messages] == [LinkFailed]
        nursery.cancel_scope.cancel()


async def test_a_second_dial_while_one_is_under_way_fails_and_the_first_goes_on(node: Any) -> None:
    reconnector = Notes()
    node.dial_gate = trio.Event()
    async with trio.open_nursery() as nursery:
        connection, record = new_connection(node, nursery, reconnector)
        record.dialling = 1
        await connection.handle_cast(OpenLink(1))
        await wait_all_tasks_blocked()
        await connection.handle_cast(OpenLink(2))
        (failed,) = reconnector.messages
        assert isinstance(failed, LinkFailed)
        assert failed.link == 2
        node.dial_gate.set()
        await wait_all_tasks_blocked()
        assert record.link is not None
        assert (record.link.number, node.dials) == (1, 1)
        nursery.cancel_scope.cancel()


async def test_a_drop_while_the_goodbye_is_under_way_does_not_cut_it_short(node: Any) -> None:
    reconnector = Notes()
    async with trio.open_nursery() as nursery:
        connection, record = new_connection(node, nursery, reconnector)
        await connection.handle_cast(OpenLink(1))
        await wait_all_tasks_blocked()
        assert record.link is not None
        node.socket.stop_reading()
        await connection.handle_cast(DropLink(1, CALLED_OFF))
        await wait_all_tasks_blocked()
        await connection.handle_cast(DropLink(1, TransportClosed(1006)))
        await wait_all_tasks_blocked()
        assert node.socket.open
        node.socket.writable.set()
        await wait_all_tasks_blocked()
        assert node.socket.ended_by == "close"
        assert record.link is None
        assert record.last_end == (1, CALLED_OFF)
        assert not nursery.child_tasks


async def test_what_arrives_once_a_link_is_given_up_is_not_read_as_anything(node: Any) -> None:
    reconnector = Notes()
    async with trio.open_nursery() as nursery:
        connection, record = new_connection(node, nursery, reconnector)
        await connection.handle_cast(OpenLink(1))
        await wait_all_tasks_blocked()
        node.socket.stop_reading()
        await connection.handle_cast(DropLink(1, CALLED_OFF))
        node.socket.say("no frame at all")
        await wait_all_tasks_blocked()
        assert record.counters.frames_refused == 0
        node.socket.writable.set()
        await wait_all_tasks_blocked()
        assert node.socket.ended_by == "close"
        assert not nursery.child_tasks


async def test_a_transport_is_told_when_the_reader_waits_for_the_user_and_when_it_is_back(node: Any) -> None:
    attended: list[bool] = []
    async with trio.open_nursery() as nursery:
        connection, record = new_connection(node, nursery, Notes())
        await connection.handle_cast(OpenLink(1))
        await wait_all_tasks_blocked()
        node.socket.attend = attended.append
        record.backlog.add(1_000_000, 0)  # more than is ever read ahead
        node.socket.say(Frame("1", None, node.topic, "message", {}))
        await wait_all_tasks_blocked()
        assert (record.backlog.paused, attended) == (True, [False])
        record.backlog.remove(record.backlog.frames, record.backlog.size)
        record.backlog.make_room()
        await wait_all_tasks_blocked()
        assert (record.backlog.paused, attended) == (False, [False, True])
        nursery.cancel_scope.cancel()


async def test_the_transport_of_a_channel_has_a_task_only_while_the_channel_is_not_read() -> None:
    taken = trio.Event()

    def transports() -> list[str]:
        tasks = [trio.lowlevel.current_root_task()]
        names: list[str] = []
        while tasks:
            task = tasks.pop()
            if task is not None:
                names.append(task.name)
                tasks.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
        return [name for name in names if name.endswith("WebSocketsTransport.run")]

    async def slow(_: object) -> None:
        await taken.wait()

    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, inbox_capacity=2, callbacks=Callbacks(on_message=slow))) as channel,
    ):
        await channel.connect(["*"])
        await trio.sleep(5)
        assert transports() == []
        for number in range(10):
            node.deliver(ALICE, plaintext(number, ALICE))
        await until(lambda: channel.statistics().reading_paused)
        await trio.sleep(5)
        assert len(transports()) == 1
        taken.set()
        await until(lambda: channel.statistics().messages_delivered == 10)
        await trio.sleep(5)
        assert transports() == []


async def test_a_bug_between_the_dial_and_the_reading_leaves_no_socket(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(self: Connection) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(Connection, "_watch_link", bug)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="planted")):
        async with trio.open_nursery() as nursery:
            connection, _ = new_connection(node, nursery, Notes())
            await connection.handle_cast(OpenLink(1))
    assert not node.socket.open
