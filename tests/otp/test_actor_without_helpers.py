"""An actor that says it has no helper tasks: no nursery, and otherwise the same contract (rows G and D)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.errors import ActorDied, ChildStartError, SupervisionError
from layr8_actors.otp import Actor, ActorRef, Call, Continue, ExitKind, ExitReason, Reply, Restart, Shutdown
from layr8_actors.otp.events import ChildExited, ChildStopped, ShutdownError


class Ask(Call[str]):
    pass


class Alone(Actor):
    helpers = False

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def init(self) -> Continue:
        return Continue("continued")

    async def handle_continue(self, term: Any) -> None:
        self.log.append(term)

    async def handle_call(self, request: Any, reply: Reply[str]) -> None:
        reply.send("here")

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, Exception):
            raise message
        await trio.sleep(message)
        self.log.append("slept")

    async def terminate(self, reason: ExitReason) -> None:
        await trio.sleep(1)
        self.log.append(f"terminate {reason.kind.value}")


class Doomed(Alone):
    async def terminate(self, reason: ExitReason) -> None:
        await super().terminate(reason)
        raise KeyError("terminate")


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def ref() -> ActorRef:
    return ActorRef("alone")


async def test_it_has_no_nursery_and_says_why(lab: Any, log: list[Any]) -> None:
    class Asks(Alone):
        async def init(self) -> Continue:
            self.nursery.start_soon(trio.sleep_forever)
            return Continue()

    with pytest.raises(ChildStartError) as caught:
        await lab.supervisor([Asks.child_spec("a", log)]).run()
    assert isinstance(caught.value.__cause__, SupervisionError)
    assert "Asks.helpers is False" in str(caught.value.__cause__)


def test_a_nursery_before_the_actor_runs_is_refused() -> None:
    with pytest.raises(SupervisionError, match="does not run yet"):
        Actor().nursery.start_soon(trio.sleep_forever)


async def test_its_task_has_no_nursery_and_one_scope(lab: Any, ref: ActorRef, log: list[Any], settle: Any) -> None:
    async with lab.running([Alone.child_spec(ref, log)]):
        await settle()
        assert ref._process is not None
        task = ref._process.task
        assert task is not None
        assert task.child_nurseries == []
        assert task.parent_nursery is not None
        assert task._cancel_status._parent is task.parent_nursery._cancel_status


async def test_an_asked_stop_cancels_the_handler_and_terminate_has_its_grace(
    lab: Any, ref: ActorRef, log: list[Any]
) -> None:
    async with lab.running([Alone.child_spec(ref, log)]) as supervisor:
        assert await ref.call(Ask()) == "here"
        ref.cast_nowait(100)
        await trio.sleep(1)
        start = trio.current_time()
        await supervisor.stop()
        assert trio.current_time() == start + 1
    assert log == ["continued", "terminate shutdown"]
    assert [event.reason.kind for event in lab.of(ChildStopped)] == [ExitKind.SHUTDOWN]


async def test_terminate_is_cut_off_at_the_end_of_the_grace(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    async with lab.running([Alone.child_spec(ref, log, shutdown=0.5)]) as supervisor:
        await supervisor.stop()
    assert log == ["continued"]
    assert [event.reason.kind for event in lab.of(ChildStopped)] == [ExitKind.KILLED]


async def test_a_brutal_kill_runs_no_terminate(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    async with lab.running([Alone.child_spec(ref, log, shutdown=0)]) as supervisor:
        ref.cast_nowait(100)
        await trio.sleep(1)
        await supervisor.stop()
    assert log == ["continued"]
    assert [event.reason.kind for event in lab.of(ChildStopped)] == [ExitKind.KILLED]


@pytest.mark.parametrize("error", [None, ValueError("injected")])
async def test_exit_child_hits_a_handler_and_terminate_runs(
    lab: Any, ref: ActorRef, log: list[Any], error: Exception | None
) -> None:
    kind = ExitKind.KILLED if error is None else ExitKind.ERROR
    async with lab.running([Alone.child_spec(ref, log)]) as supervisor:
        ref.cast_nowait(100)
        await trio.sleep(1)
        supervisor.exit_child("alone", error)
        await trio.sleep(2)
        assert await ref.call(Ask()) == "here"
        assert log == ["continued", f"terminate {kind.value}", "continued"]
    exited = lab.of(ChildExited)[0]
    assert exited.reason == ExitReason(kind, error)


async def test_a_crash_is_reported_as_it_is_even_a_group_of_one(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    error = ExceptionGroup("of the user", [ValueError("only one")])
    async with lab.running([Alone.child_spec(ref, log)]):
        ref.cast_nowait(error)
        with pytest.raises(ActorDied) as caught:
            await ref.call(Ask())
        assert caught.value.__cause__ is error
        await trio.sleep(2)
        assert await ref.call(Ask()) == "here"
    assert lab.of(ChildExited)[0].reason.error is error


async def test_Shutdown_ends_it_cleanly(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    async with lab.running([Alone.child_spec(ref, log, restart=Restart.TRANSIENT)]):
        ref.cast_nowait(Shutdown("done"))
        await trio.sleep(2)
        assert not ref.running
    assert log == ["continued", "terminate shutdown"]


async def test_G14_an_error_of_terminate_after_a_clean_stop_is_reported(
    lab: Any, ref: ActorRef, log: list[Any]
) -> None:
    async with lab.running([Doomed.child_spec(ref, log)]) as supervisor:
        await supervisor.stop()
    (error,) = lab.of(ShutdownError)
    assert isinstance(error.reason.error, KeyError)


@pytest.mark.parametrize("reason", [None, ExitReason(ExitKind.ERROR, ValueError("asked"))])
async def test_G15_stop_of_a_ref_ends_it_with_the_reason(
    lab: Any, ref: ActorRef, log: list[Any], reason: ExitReason | None
) -> None:
    async with lab.running([Alone.child_spec(ref, log)]):
        await ref.stop(reason)
        assert log == ["continued", f"terminate {'normal' if reason is None else 'error'}"]
        await trio.sleep(0.1)
        assert await ref.call(Ask()) == "here"
    exited = lab.of(ChildExited)[0]
    assert exited.reason == (reason or ExitReason(ExitKind.NORMAL))


async def test_G15_a_stop_during_init_lets_init_end_and_handles_nothing(lab: Any, ref: ActorRef) -> None:
    log: list[Any] = []

    class Slow(Alone):
        async def init(self) -> Continue:
            await trio.sleep(2)
            log.append("init")
            return Continue("continued")

    async with trio.open_nursery() as nursery:
        supervisor = lab.supervisor([Slow.child_spec(ref, log)])
        nursery.start_soon(supervisor.run)
        await trio.sleep(1)
        await ref.stop()
        assert log == ["init", "terminate normal"]
        await supervisor.stop()


async def test_a_stop_by_the_supervisor_during_init_gives_it_up(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    class Slow(Alone):
        async def init(self) -> Continue:
            await trio.sleep(20)
            return Continue()

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        supervisor = lab.supervisor([Slow.child_spec(ref, log)])
        nursery.start_soon(supervisor.run)
        await trio.sleep(1)
        await supervisor.stop()
        assert trio.current_time() == start + 1
    assert log == []


async def test_it_runs_without_a_supervisor_too(ref: ActorRef, log: list[Any]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(Alone.child_spec(ref, log).start)
        assert await ref.call(Ask()) == "here"
        await ref.stop()
        assert not ref.running
        assert nursery.child_tasks == frozenset()
        await nursery.start(Alone.child_spec(ref, log).start)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert log == ["continued", "terminate normal", "continued", "terminate shutdown"]


async def test_a_crash_without_a_supervisor_comes_out(ref: ActorRef, log: list[Any]) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(Alone.child_spec(ref, log).start)
            ref.cast_nowait(ValueError("crash"))
    assert [type(error) for error in caught.value.exceptions] == [ValueError]


async def test_keyboard_interrupt_gets_out(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    class Interrupted(Alone):
        async def handle_cast(self, message: Any) -> None:
            raise KeyboardInterrupt

    async with trio.open_nursery() as nursery:
        supervisor = lab.supervisor([Interrupted.child_spec(ref, log)])
        caught: list[BaseException] = []

        async def run(task_status: trio.TaskStatus[None]) -> None:
            try:
                await supervisor.run(task_status=task_status)
            except KeyboardInterrupt as error:
                caught.append(error)

        await nursery.start(run)
        ref.cast_nowait("now")
    assert len(caught) == 1
    assert log == ["continued", "terminate fatal"]
