"""A tree as plain data (rows M7 and I8), what an actor is at (row O2), and calls to what is gone (row M9)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import assert_no_checkpoints

from layr8_actors.errors import ActorDied, SupervisorNotRunning
from layr8_actors.otp import (
    Actor,
    ActorRef,
    Backoff,
    Call,
    Continue,
    DynamicSupervisor,
    Reply,
    Restart,
    Supervisor,
    format_tree,
)
from layr8_actors.otp.events import ChildExited, ChildStopped

PLAIN = Backoff(initial=5, jitter=0)


class Ask(Call[str]):
    pass


class Worker(Actor):
    async def init(self) -> Continue:
        return Continue()

    async def handle_continue(self, term: Any) -> None:
        await trio.sleep(1)

    async def handle_call(self, request: Any, reply: Reply[str]) -> None:
        await trio.sleep(1)
        reply.send("answer")

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, Exception):
            raise message
        if callable(message):
            await message(self)
        else:
            await trio.sleep(1)

    async def handle_timeout(self) -> None:
        await trio.sleep(1)

    async def handle_down(self, down: Any) -> None:
        await trio.sleep(1)


async def test_M7_I8_a_snapshot_is_the_whole_tree_as_json(lab: Any, settle: Any) -> None:
    ref = ActorRef("worker")
    pool = DynamicSupervisor(name="pool", max_restarts=7, max_seconds=9.0)
    specs = [lab.child("plain", restart=Restart.TRANSIENT), Worker.child_spec(ref), pool.child_spec()]
    async with lab.running(specs, name="root", backoff=PLAIN, max_seconds=100) as supervisor:
        await pool.start_child(lab.child("job"))
        await trio.sleep(2)
        for _ in range(3):
            ref.cast_nowait("x")
        lab.crash("plain")
        await settle()
        with assert_no_checkpoints():
            snapshot = supervisor.snapshot()
        assert json.loads(json.dumps(dataclasses.asdict(snapshot))) == {
            "name": "root",
            "strategy": "one_for_one",
            "running": True,
            "restarts_used": 1,
            "max_restarts": 3,
            "max_seconds": 100.0,
            "children": [
                {
                    "id": "plain",
                    "state": "restarting",
                    "type": "worker",
                    "restart": "transient",
                    "incarnation": 1,
                    "restarts": 0,
                    "uptime": None,
                    "next_restart_in": 5.0,
                    "last_exit": "error: Crash('plain')",
                    "mailbox_depth": None,
                    "handling": None,
                    "supervisor": None,
                },
                {
                    "id": "worker",
                    "state": "running",
                    "type": "worker",
                    "restart": "permanent",
                    "incarnation": 1,
                    "restarts": 0,
                    "uptime": 2.0,
                    "next_restart_in": None,
                    "last_exit": None,
                    "mailbox_depth": 2,
                    "handling": "handle_cast str",
                    "supervisor": None,
                },
                {
                    "id": "pool",
                    "state": "running",
                    "type": "supervisor",
                    "restart": "permanent",
                    "incarnation": 1,
                    "restarts": 0,
                    "uptime": 2.0,
                    "next_restart_in": None,
                    "last_exit": None,
                    "mailbox_depth": None,
                    "handling": None,
                    "supervisor": {
                        "name": "pool",
                        "strategy": "one_for_one",
                        "running": True,
                        "restarts_used": 0,
                        "max_restarts": 7,
                        "max_seconds": 9.0,
                        "children": [
                            {
                                "id": "job-1",
                                "state": "running",
                                "type": "worker",
                                "restart": "permanent",
                                "incarnation": 1,
                                "restarts": 0,
                                "uptime": 2.0,
                                "next_restart_in": None,
                                "last_exit": None,
                                "mailbox_depth": None,
                                "handling": None,
                                "supervisor": None,
                            }
                        ],
                    },
                },
            ],
        }
        assert format_tree(snapshot) == format_tree(supervisor)
        assert format_tree(snapshot).splitlines() == [
            "root  one_for_one  restarts 1/3 in 100 s",
            "├─ plain   restarting  incarnation 1  restarts 0  next in 5 s  last exit error: Crash('plain')",
            "├─ worker  running     incarnation 1  restarts 0  mailbox 2  in handle_cast str",
            "└─ pool    running     incarnation 1  restarts 0  one_for_one 0/7 in 9 s",
            "   └─ job-1  running     incarnation 1  restarts 0",
        ]
    gone = supervisor.snapshot()
    assert (gone.running, gone.restarts_used, [child.state for child in gone.children]) == (False, 0, [])
    assert format_tree(gone) == "root  not running"


async def test_M8_a_snapshot_never_waits_for_a_tree_that_starts(lab: Any, settle: Any) -> None:
    lab.start_delay["x"] = 10
    inner = lab.supervisor(lab.children("x"), name="inner")
    outer = lab.supervisor([inner.child_spec()], name="outer")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer.run)
        await settle()
        with assert_no_checkpoints():
            child = outer.snapshot().children[0]
        assert child.state == "starting"
        assert child.supervisor is not None
        assert [below.state for below in child.supervisor.children] == ["starting"]
        await outer.stop()


# --- O2 ---------------------------------------------------------------------------------------------------------------


async def arm(actor: Actor) -> None:
    actor.deadline = trio.current_time()


async def ask(ref: ActorRef) -> None:
    with contextlib.suppress(ActorDied):
        await ref.call(Ask())


async def watch(actor: Actor) -> None:
    actor.monitor(ActorRef("nobody"))


ACTS: dict[str, Callable[[ActorRef, trio.Nursery], object]] = {
    "handle_continue": lambda ref, nursery: None,
    "handle_call Ask": lambda ref, nursery: nursery.start_soon(ask, ref),
    "handle_cast str": lambda ref, nursery: ref.cast_nowait("x"),
    "handle_timeout": lambda ref, nursery: ref.cast_nowait(arm),
    "handle_down nobody": lambda ref, nursery: ref.cast_nowait(watch),
}


@pytest.mark.parametrize("doing", ACTS)
@pytest.mark.parametrize("kill", [True, False])
async def test_O2_a_crash_names_the_handler_and_the_type_of_its_message_and_never_the_message(
    lab: Any, settle: Any, doing: str, kill: bool
) -> None:
    ref = ActorRef("w")
    async with lab.running([Worker.child_spec(ref, restart=Restart.TEMPORARY)]) as supervisor:
        await trio.sleep(0.5)
        async with trio.open_nursery() as nursery:
            if doing != "handle_continue":
                await trio.sleep(1)
                assert ref.handling is None  # it is idle
                ACTS[doing](ref, nursery)
                await settle()
            assert ref.handling == doing
            supervisor.exit_child("w", None if kill else ValueError("secret"))
            await settle()
            nursery.cancel_scope.cancel()
        (event,) = lab.of(ChildExited)
        assert event.doing == doing
        assert event.incarnation == 1
    assert ref.handling is None


async def test_O2_who_was_at_nothing_or_ended_as_asked_names_nothing(lab: Any, settle: Any) -> None:
    async with lab.running([Worker.child_spec("w")]) as supervisor:
        await trio.sleep(2)
        supervisor.exit_child("w")
        await settle()
        assert lab.of(ChildExited)[0].doing is None
    assert [event.doing for event in lab.of(ChildStopped)] == [None]


async def test_O2_a_log_line_names_it(lab: Any, settle: Any) -> None:
    async with lab.running([Worker.child_spec("w")]) as supervisor:
        await trio.sleep(2)
        supervisor.whereis("w").cast_nowait(ValueError("password"))
        await settle()
        line = lab.of(ChildExited)[0].describe()
        assert "doing=handle_cast ValueError" in line


# --- M9 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", [False, True])
async def test_M9_every_call_to_a_supervisor_that_is_gone_is_refused_at_once(lab: Any, ended: bool) -> None:
    supervisor: Supervisor = lab.supervisor(lab.children("a"))
    if ended:
        async with supervisor:
            pass
    requests: list[Callable[[], Awaitable[Any]]] = [
        lambda: supervisor.start_child(lab.child("b")),
        lambda: supervisor.terminate_child("a"),
        lambda: supervisor.restart_child("a"),
        lambda: supervisor.delete_child("a"),
    ]
    for request in requests:
        with pytest.raises(SupervisorNotRunning, match="'supervisor' does not run"):
            await request()
    looks: list[Callable[[], Any]] = [
        supervisor.which_children,
        supervisor.count_children,
        supervisor.restarts_used,
        lambda: supervisor.whereis("a"),
        lambda: supervisor.pid("a"),
        lambda: supervisor.exit_child("a"),
    ]
    for look in looks:
        with pytest.raises(SupervisorNotRunning):
            look()
    assert trio.current_time() == 0
    await supervisor.stop()  # it has stopped already
    supervisor.request_stop()
