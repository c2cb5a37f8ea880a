"""An actor whose methods never wait: no scope, no nursery while it has no helper task, else the same contract."""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.errors import ActorDied, ChildStartError, InvalidOption, NameTaken, SupervisionError
from layr8_actors.otp import (
    Actor,
    ActorRef,
    Call,
    ChildSpec,
    Continue,
    ExitKind,
    ExitReason,
    Ignore,
    Registry,
    Reply,
    Restart,
)
from layr8_actors.otp.events import ChildExited, ChildIgnored, ChildRestarted, ChildStopped, ShutdownError, StopTimeout

WHERE: ContextVar[str] = ContextVar("WHERE", default="nowhere")


class Ask(Call[str]):
    pass


class Prompt(Actor):
    waits = False

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def init(self) -> Continue:
        self.log.append(f"init {self.ref.id}")
        return Continue("continued")

    async def handle_continue(self, term: Any) -> None:
        self.log.append(term)

    async def handle_call(self, request: Any, reply: Reply[str]) -> None:
        reply.send("here")

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, float):
            self.start_soon(self.help, message)
        elif message == "due":
            self.deadline = trio.current_time() + 10
        else:
            self.log.append(message)

    async def handle_timeout(self) -> None:
        self.log.append("timeout")

    async def help(self, seconds: float) -> None:
        try:
            await trio.sleep(seconds)
            self.log.append("helped")
        except trio.Cancelled:
            self.log.append("helper cancelled")
            raise

    async def terminate(self, reason: ExitReason) -> None:
        await trio.sleep(1)
        self.log.append(f"terminate {reason.kind.value}")


class Failing(Prompt):
    def __init__(self, log: list[Any], error: BaseException) -> None:
        super().__init__(log)
        self.error = error

    async def init(self) -> Continue:
        raise self.error


class Waiting(Prompt):
    async def init(self) -> Continue:
        await trio.sleep(1)
        return Continue()


class Unhelped(Prompt):
    helpers = False


class Draining(Prompt):
    drain = True


@pytest.fixture(autouse=True, params=[math.inf, 0, 0.1], ids=["with a task", "hibernating", "hibernating later"])
def hibernate_after(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """The contract is the same for an actor that gives its task up while it idles."""
    after: float = request.param
    monkeypatch.setattr(Prompt, "hibernate_after", after)
    return after


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def ref() -> ActorRef:
    return ActorRef("prompt")


def tasks_of(ref: ActorRef) -> list[trio.lowlevel.Task]:
    assert ref._process is not None
    return [] if ref._process.task is None else [ref._process.task]


def test_the_flag_is_checked_where_the_class_is_made() -> None:
    with pytest.raises(InvalidOption, match="waits"):
        type("Wrong", (Actor,), {"waits": 1})


async def test_B1_it_starts_in_order_and_idle_it_has_neither_scope_nor_nursery(
    lab: Any, ref: ActorRef, log: list[Any], hibernate_after: float
) -> None:
    async with lab.running([Prompt.child_spec(ref, log), Prompt.child_spec("next", log)]):
        await trio.sleep(1)
        assert [entry for entry in log if entry != "continued"] == ["init prompt", "init next"]
        assert log.count("continued") == 2
        assert len(tasks_of(ref)) == (hibernate_after == math.inf)
        for task in tasks_of(ref):
            assert task.child_nurseries == []
            assert task.parent_nursery is not None
            assert task._cancel_status is task.parent_nursery._cancel_status
        assert await ref.call(Ask()) == "here"


async def test_a_nursery_is_there_only_while_there_are_helper_tasks(
    lab: Any, ref: ActorRef, log: list[Any], hibernate_after: float
) -> None:
    async with lab.running([Prompt.child_spec(ref, log)]) as supervisor:
        actor = supervisor.whereis("prompt")._process
        with pytest.raises(SupervisionError, match="waits is False, and no helper task runs"):
            _ = actor.nursery
        ref.cast_nowait(2.0)
        ref.cast_nowait(3.0)
        await trio.sleep(1)
        assert len(actor.nursery.child_tasks) == 2
        ref.cast_nowait(2.5)
        await trio.sleep(4)
        assert log.count("helped") == 3
        ref.cast_nowait("last")
        await trio.sleep(1)
        assert [task.child_nurseries for task in tasks_of(ref)] == [[]] * (hibernate_after == math.inf)
        assert log[-1] == "last"
        ref.cast_nowait(0.5)
        await trio.sleep(1)
        assert log[-1] == "helped"


async def test_without_helpers_start_soon_is_refused_and_says_why(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    async with lab.running([Unhelped.child_spec(ref, log, restart=Restart.TEMPORARY)]):
        ref.cast_nowait(1.0)
        await trio.sleep(3)
    (crash,) = lab.of(ChildExited)
    assert "Unhelped.helpers is False" in str(crash.error)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_helper_asked_for_after_the_end_is_refused_and_not_forgotten(
    lab: Any, ref: ActorRef, log: list[Any], waits: bool
) -> None:
    kept: list[Prompt] = []

    class Keeping(Prompt):
        async def init(self) -> Continue:
            kept.append(self)
            return await super().init()

    Keeping.waits = waits
    async with lab.running([Keeping.child_spec(ref, log, restart=Restart.TEMPORARY)]) as supervisor:
        await trio.sleep(1)
        await supervisor.terminate_child(ref.id)
        (actor,) = kept
        with pytest.raises(SupervisionError, match="has ended"):
            actor.start_soon(actor.help, 1)
        await trio.sleep(3)
    assert "helped" not in log


async def test_a_helper_that_crashes_is_a_crash_of_the_actor(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    class Broken(Prompt):
        async def help(self, seconds: float) -> None:
            await trio.sleep(seconds)
            raise ValueError("helper")

    async with lab.running([Broken.child_spec(ref, log)]):
        ref.cast_nowait(1.0)
        await trio.sleep(0.5)
        ref.cast_nowait("due")  # so that it waits within a scope when it comes
        await trio.sleep(5)
        assert await ref.call(Ask()) == "here"
    assert [repr(event.error) for event in lab.of(ChildExited) if event.reason.kind is ExitKind.ERROR] == [
        "ValueError('helper')"
    ]
    assert log.count("init prompt") == 2
    assert "terminate error" in log


async def test_D1_an_asked_stop_runs_terminate_with_its_helpers_and_its_grace(
    lab: Any, ref: ActorRef, log: list[Any]
) -> None:
    async with lab.running([Prompt.child_spec(ref, log)]) as supervisor:
        ref.cast_nowait(0.5)
        await trio.sleep(0.1)
        start = trio.current_time()
        await supervisor.stop()
        assert trio.current_time() == start + 1
    assert log == ["init prompt", "continued", "helped", "terminate shutdown"]
    assert [event.reason.kind for event in lab.of(ChildStopped)] == [ExitKind.SHUTDOWN]


async def test_it_may_be_stopped_before_its_task_has_had_a_turn(lab: Any, log: list[Any]) -> None:
    supervisor = lab.supervisor([Prompt.child_spec("a", log)])

    def stop_at_once(event: object) -> None:
        lab.events.append(event)
        supervisor.request_stop()

    supervisor.on_event = stop_at_once
    await supervisor.run()
    assert log == ["init a", "terminate shutdown"]


async def test_terminate_is_cut_off_at_the_end_of_the_grace_and_so_are_the_helpers(
    lab: Any, ref: ActorRef, log: list[Any]
) -> None:
    async with lab.running([Prompt.child_spec(ref, log, shutdown=0.5)]) as supervisor:
        ref.cast_nowait(100.0)
        await trio.sleep(1)
        await supervisor.stop()
    assert log == ["init prompt", "continued", "helper cancelled"]
    assert [event.reason.kind for event in lab.of(ChildStopped)] == [ExitKind.KILLED]
    assert lab.of(StopTimeout) == []


async def test_a_brutal_kill_runs_no_terminate(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    async with lab.running([Prompt.child_spec(ref, log, shutdown=0)]) as supervisor:
        ref.cast_nowait(100.0)
        await trio.sleep(1)
        await supervisor.stop()
    assert log == ["init prompt", "continued", "helper cancelled"]
    assert [event.reason.kind for event in lab.of(ChildStopped)] == [ExitKind.KILLED]


@pytest.mark.parametrize("helping", [False, True])
@pytest.mark.parametrize("error", [None, ValueError("injected")])
async def test_exit_child_ends_it_with_its_helpers_before_terminate(
    lab: Any, ref: ActorRef, log: list[Any], error: Exception | None, helping: bool
) -> None:
    kind = ExitKind.KILLED if error is None else ExitKind.ERROR
    async with lab.running([Prompt.child_spec(ref, log)]) as supervisor:
        await trio.sleep(1)
        if helping:
            ref.cast_nowait(100.0)
            await trio.sleep(1)
        supervisor.exit_child("prompt", error)
        await trio.sleep(2)
        cancelled = ["helper cancelled"] if helping else []
        assert log == ["init prompt", "continued", *cancelled, f"terminate {kind.value}", "init prompt", "continued"]
        assert [event.reason.kind for event in lab.of(ChildExited)] == [kind]


async def test_C1_a_cancelled_supervisor_stops_them_in_order_each_within_its_grace(lab: Any, log: list[Any]) -> None:
    specs = [Prompt.child_spec(id, log) for id in "ab"]
    async with trio.open_nursery() as nursery:
        supervisor = lab.supervisor(specs)
        await nursery.start(supervisor.run)
        await trio.sleep(1)
        start = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == start + 2
    stopped = [event.id for event in lab.of(ChildStopped)]
    assert stopped == ["b", "a"]
    assert log[-2:] == ["terminate shutdown", "terminate shutdown"]


async def test_while_the_tree_is_cancelled_it_still_takes_messages_and_deadlines(
    lab: Any, ref: ActorRef, log: list[Any]
) -> None:
    async def slow_to_end(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                ref.cast_nowait("due")
                await trio.sleep(1)
                ref.cast_nowait("one")
                ref.cast_nowait("two")
                await trio.sleep(20)

    specs = [Prompt.child_spec(ref, log), ChildSpec("slow", slow_to_end, shutdown=60)]
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor(specs).run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert log == ["init prompt", "continued", "one", "two", "timeout", "terminate shutdown"]


async def test_a_draining_one_handles_what_is_queued_and_then_ends(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    async with lab.running([Draining.child_spec(ref, log)]) as supervisor:
        await trio.sleep(1)
        ref.cast_nowait("one")
        ref.cast_nowait("two")
        supervisor.request_stop()
        await trio.sleep(3)
    assert log == ["init prompt", "continued", "one", "two", "terminate shutdown"]


async def test_ref_stop_ends_the_run_and_it_is_restarted(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    async with lab.running([Prompt.child_spec(ref, log)]):
        await trio.sleep(1)
        await ref.stop()
        await trio.sleep(1)
        assert log == ["init prompt", "continued", "terminate normal", "init prompt", "continued"]


async def test_a_stop_by_its_own_handler_comes_before_the_next_message(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    class Stopping(Prompt):
        async def handle_cast(self, message: Any) -> None:
            await super().handle_cast(message)
            assert self.otp_process is not None
            self.otp_process.stop()

    async with lab.running([Stopping.child_spec(ref, log, restart=Restart.TEMPORARY)]):
        ref.cast_nowait("one")
        ref.cast_nowait("two")
        await trio.sleep(3)
    assert log == ["init prompt", "continued", "one", "terminate shutdown"]


@pytest.mark.parametrize("error", [ValueError("init"), Ignore()])
async def test_B3_B5_an_init_that_fails_is_told_to_the_supervisor_and_terminate_does_not_run(
    lab: Any, log: list[Any], error: Exception
) -> None:
    supervisor = lab.supervisor([Failing.child_spec("a", log, error), Prompt.child_spec("b", log)])
    if isinstance(error, Ignore):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            await supervisor.stop()
        assert [event.id for event in lab.of(ChildIgnored)] == ["a"]
        assert log[0] == "init b"
    else:
        with pytest.raises(ChildStartError) as caught:
            await supervisor.run()
        assert caught.value.__cause__ is error
        assert log == []


async def test_what_ends_the_program_in_init_gets_out_and_leaves_nothing(lab: Any, log: list[Any]) -> None:
    supervisor = lab.supervisor([Prompt.child_spec("a", log), Failing.child_spec("b", log, KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        await supervisor.run()
    assert log in (["init a", "terminate shutdown"], ["init a", "continued", "terminate shutdown"])


async def test_an_init_that_waits_after_all_is_refused(lab: Any, log: list[Any]) -> None:
    with pytest.raises(ChildStartError, match="waits, though its class says"):
        await lab.supervisor([Waiting.child_spec("a", log)]).run()


async def test_B7_messages_sent_during_init_wait_and_callers_of_one_that_fails_learn_of_it(
    lab: Any, log: list[Any]
) -> None:
    ref = ActorRef("a")

    class Eager(Prompt):
        async def init(self) -> Continue:
            self.ref.cast_nowait("from init")
            return await super().init()

    async with lab.running([Eager.child_spec(ref, log)]):
        await trio.sleep(1)
        assert log == ["init a", "continued", "from init"]


async def test_a_name_that_is_taken_keeps_it_from_starting(lab: Any, log: list[Any]) -> None:
    registry = Registry()
    with registry.register("a", "somebody"):
        with pytest.raises(ChildStartError) as caught:
            await lab.supervisor([Prompt.child_spec(ActorRef("a", registry=registry), log)]).run()
        assert isinstance(caught.value.__cause__, NameTaken)
    assert registry.whereis("a") is None


async def test_a_crash_ends_its_callers_and_the_next_incarnation_is_begun_in_a_context_of_its_own(
    lab: Any, ref: ActorRef, log: list[Any]
) -> None:
    class Placed(Prompt):
        async def init(self) -> Continue:
            self.log.append(WHERE.get())
            WHERE.set("inside")
            return Continue(WHERE.get())

        async def handle_continue(self, term: Any) -> None:
            self.log.append(WHERE.get())

        async def handle_call(self, request: Any, reply: Reply[str]) -> None:
            raise ValueError("crash")

    async with lab.running([Placed.child_spec(ref, log)]):
        with pytest.raises(ActorDied):
            await ref.call(Ask())
        await trio.sleep(2)
        assert WHERE.get() == "nowhere"
        assert log == ["nowhere", "inside", "terminate error", "nowhere", "inside"]
        assert len(lab.of(ChildRestarted)) == 1


async def test_it_runs_without_a_supervisor_too(ref: ActorRef, log: list[Any]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(Prompt.child_spec(ref, log).start)
        ref.cast_nowait(0.5)
        await trio.sleep(1)
        assert await ref.call(Ask()) == "here"
        await ref.stop()
        assert nursery.child_tasks == frozenset()
    assert log == ["init prompt", "continued", "helped", "terminate normal"]


async def test_a_supervised_wrapper_of_the_users_making_starts_it(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    start = Unhelped.child_spec(ref, log).start

    async def wrapped(*, task_status: trio.TaskStatus[Any]) -> None:
        await start(task_status=task_status)

    async with lab.running([ChildSpec("wrapped", wrapped)]) as supervisor:
        assert await ref.call(Ask()) == "here"
        await supervisor.stop()
    assert log == ["init prompt", "continued", "terminate shutdown"]


async def test_a_start_of_the_users_making_may_be_its_start_called(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    start = Unhelped.child_spec(ref, log).start
    spec = ChildSpec("called", lambda *, task_status: start(task_status=task_status))
    async with lab.running([spec]) as supervisor:
        assert await ref.call(Ask()) == "here"
        await supervisor.stop()
    assert log == ["init prompt", "continued", "terminate shutdown"]


async def test_a_kill_that_comes_with_a_message_is_first(lab: Any, ref: ActorRef, log: list[Any]) -> None:
    async with lab.running([Prompt.child_spec(ref, log, restart=Restart.TEMPORARY)]) as supervisor:
        ref.cast_nowait(100.0)
        await trio.sleep(1)
        ref.cast_nowait("late")
        supervisor.exit_child("prompt")
        await trio.sleep(3)
    assert log == ["init prompt", "continued", "helper cancelled", "terminate killed"]


@pytest.mark.parametrize("end", ["stop", "kill", "crash", "both crash"])
async def test_a_helper_that_was_asked_for_begins_though_the_actor_ends_in_that_very_step(
    lab: Any, ref: ActorRef, log: list[Any], end: str
) -> None:
    class Ending(Prompt):
        async def handle_cast(self, message: Any) -> None:
            self.start_soon(self.help, 0.5)
            if "crash" in end:
                raise ValueError("handler")
            assert self.otp_process is not None
            if end == "stop":
                self.otp_process.stop()
            else:
                supervisor.exit_child("prompt")

        async def help(self, seconds: float) -> None:
            self.log.append("begun")
            if end == "both crash":
                raise KeyError("helper")
            await super().help(seconds)

    async with lab.running([Ending.child_spec(ref, log, restart=Restart.TEMPORARY)]) as supervisor:
        ref.cast_nowait("end")
        await trio.sleep(3)
    told = {"stop": ["helped", "terminate shutdown"], "kill": ["helper cancelled", "terminate killed"]}
    crash = ["helper cancelled"] * (end == "crash") + ["terminate error"]
    assert log == ["init prompt", "continued", "begun", *told.get(end, crash)]
    errors = [repr(event.error) for event in lab.of(ShutdownError)]
    assert errors == (["ExceptionGroup('Exceptions from Trio nursery', [KeyError('helper')])"] * (end == "both crash"))


async def test_what_ends_the_program_lets_an_asked_for_helper_begin_too(
    lab: Any, ref: ActorRef, log: list[Any]
) -> None:
    class Ending(Prompt):
        async def handle_cast(self, message: Any) -> None:
            self.start_soon(self.help, 0.5)
            raise KeyboardInterrupt

        async def help(self, seconds: float) -> None:
            self.log.append("begun")
            raise KeyError("helper")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with lab.running([Ending.child_spec(ref, log)]):
            ref.cast_nowait("end")
            await trio.sleep(3)
    assert caught.value.subgroup(KeyboardInterrupt) is not None
    assert "begun" in log
