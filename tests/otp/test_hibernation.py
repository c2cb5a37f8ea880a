"""An actor that gives its task up while it idles: who has one when, and that nothing else can tell."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from layr8_actors.errors import ActorDied, InvalidOption
from layr8_actors.otp import Actor, ActorRef, Call, Down, ExitReason, Overflow, Reply, Strategy, Supervisor
from layr8_actors.otp.alarms import Alarms
from layr8_actors.otp.events import ChildExited, ChildRestarted

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Ask(Call[str]):
    pass


class Log(list[Any]):
    """What happened, and when."""

    def add(self, what: object) -> None:
        self.append((what, round(trio.current_time() - self.began, 3)))

    def begin(self) -> Log:
        self.began = trio.current_time()
        return self


class Sleepy(Actor):
    waits = False
    hibernate_after = 0.0

    def __init__(self, log: Log) -> None:
        self.log = log

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, BaseException):
            raise message
        if callable(message):
            message(self)
        else:
            self.log.add(message)

    async def handle_call(self, request: Any, reply: Reply[str]) -> None:
        reply.send(WHO.get())

    async def handle_timeout(self) -> None:
        self.log.add("timeout")

    async def handle_down(self, down: Down) -> None:
        self.log.add(f"{down.id} is down")

    async def terminate(self, reason: ExitReason) -> None:
        self.log.add(f"terminate {reason.kind.value}")


class Resting(Sleepy):
    hibernate_after = 5.0


@pytest.fixture
async def log() -> Log:
    return Log().begin()


@pytest.fixture
def ref() -> ActorRef:
    return ActorRef("sleepy")


def has_task(ref: ActorRef) -> bool:
    assert ref._process is not None
    return ref._process.task is not None


@pytest.mark.parametrize("wrong", [-1, math.nan, "5", True])
def test_the_time_is_checked_where_the_class_is_made(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="hibernate_after"):
        type("Wrong", (Actor,), {"waits": False, "hibernate_after": wrong})


def test_an_actor_that_may_wait_cannot_hibernate_and_is_told_so() -> None:
    with pytest.raises(InvalidOption, match=r"math\.inf where a method may wait"):
        type("Wrong", (Actor,), {"hibernate_after": 5.0})


async def test_it_has_a_task_only_while_there_is_something_to_do(lab: Any, ref: ActorRef, log: Log) -> None:
    during: list[bool] = []
    async with lab.running([Sleepy.child_spec(ref, log)]) as supervisor:
        before = trio.lowlevel.current_statistics().tasks_living
        assert not has_task(ref)
        ref.cast_nowait(lambda _: during.append(has_task(ref)))
        await trio.testing.wait_all_tasks_blocked()
        assert during == [True]
        assert not has_task(ref)
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert (ref.running, supervisor.count_children().active, ref.handling) == (True, 1, None)


async def test_it_keeps_its_task_until_it_has_idled_for_long_enough(lab: Any, ref: ActorRef, log: Log) -> None:
    async with lab.running([Resting.child_spec(ref, log)]):
        assert not has_task(ref)
        await ref.call(Ask())
        await trio.sleep(4)
        await ref.call(Ask())
        assert ref._process is not None
        task = ref._process.task
        await trio.sleep(4.5)
        assert ref._process.task is task  # it was asked meanwhile
        await trio.sleep(1)
        assert not has_task(ref)
        await ref.call(Ask())
        assert has_task(ref)
        await trio.sleep(5.5)
        assert not has_task(ref)


async def test_messages_of_one_sender_come_in_order_over_any_number_of_tasks(lab: Any, ref: ActorRef, log: Log) -> None:
    async with lab.running([Sleepy.child_spec(ref, log)]):
        for number in range(30):
            await ref.cast(number)
            if number % 3:
                ref.cast_nowait(number + 0.5)
            if number % 5 == 0:
                await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
    seen = [what for what, _ in log if not isinstance(what, str)]
    assert seen == sorted(seen)
    assert len(seen) == 50


@pytest.mark.parametrize("kind", [Sleepy, Resting])
async def test_its_deadline_and_its_timers_hold_while_it_hibernates(
    lab: Any, ref: ActorRef, log: Log, kind: type[Sleepy]
) -> None:
    def set_them(actor: Actor) -> None:
        actor.deadline = trio.current_time() + 20
        actor.send_after(15, "first timer")
        actor.send_after(30, "second timer")

    async with lab.running([kind.child_spec(ref, log)]):
        ref.cast_nowait(set_them)
        await trio.sleep(10)
        assert not has_task(ref)
        await trio.sleep(50)
        assert log == [("first timer", 15), ("timeout", 20), ("second timer", 30)]


@pytest.mark.parametrize(("moved_to", "at"), [(5, 5), (20, 20), (math.inf, None)])
async def test_another_task_may_move_the_deadline_of_one_that_hibernates(
    lab: Any, ref: ActorRef, log: Log, moved_to: float, at: float | None
) -> None:
    actors: list[Sleepy] = []
    async with lab.running([Sleepy.child_spec(ref, log)]):
        ref.cast_nowait(actors.append)
        await trio.testing.wait_all_tasks_blocked()
        actors[0].deadline = log.began + 10
        await trio.sleep(1)
        actors[0].deadline = log.began + moved_to
        await trio.testing.wait_all_tasks_blocked()
        assert not has_task(ref)
        await trio.sleep(100)
        assert log == ([] if at is None else [("timeout", at)])


async def test_a_timer_that_another_task_sets_rings_too(lab: Any, ref: ActorRef, log: Log) -> None:
    actors: list[Sleepy] = []
    async with lab.running([Sleepy.child_spec(ref, log)]):
        ref.cast_nowait(actors.append)
        await trio.sleep(1)
        timer = actors[0].send_after(1, "called off")
        actors[0].send_after(3, "later")
        timer.cancel()
        await trio.sleep(10)
    assert log[:1] == [("later", 4)]


async def test_a_sibling_that_is_slow_to_start_or_to_stop_holds_up_no_deadline(
    lab: Any, ref: ActorRef, log: Log
) -> None:
    def again(actor: Actor) -> None:
        log.add("tick")
        actor.send_after(1, again)

    lab.start_delay["slow"] = 3.5
    lab.cleanup["slow"] = 4
    async with lab.running([Sleepy.child_spec(ref, log)]) as supervisor:
        ref.cast_nowait(again)
        await supervisor.start_child(lab.child("slow", shutdown=10.0))
        await supervisor.terminate_child("slow")
        assert log == [("tick", second) for second in range(8)]


async def test_a_crowd_whose_deadlines_come_in_one_instant_lets_other_tasks_have_their_turns(
    lab: Any, log: Log
) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        await trio.sleep(10)
        while not log or len(log) < 200:
            turns += 1
            await trio.lowlevel.checkpoint()

    def due(actor: Actor) -> None:
        actor.deadline = log.began + 10

    refs = [ActorRef(f"sleepy-{number}") for number in range(200)]
    async with lab.running([Sleepy.child_spec(each, log) for each in refs]), trio.open_nursery() as nursery:
        for each in refs:
            each.cast_nowait(due)
        nursery.start_soon(other)
    assert log.count(("timeout", 10)) == 200
    assert turns >= 200 / 16


async def test_each_task_of_an_incarnation_runs_in_its_context_and_in_that_of_no_sender(
    lab: Any, ref: ActorRef, log: Log
) -> None:
    async with lab.running([Sleepy.child_spec(ref, log)]):
        WHO.set("the sender")
        assert await ref.call(Ask()) == "nobody"
        await ref.cast(lambda _: WHO.set("the actor"))
        await trio.testing.wait_all_tasks_blocked()
        assert await ref.call(Ask()) == "the actor"
        await ref.cast(ValueError())
        await trio.sleep(1)
        assert await ref.call(Ask()) == "nobody"


async def test_a_sender_that_is_cancelled_right_behind_its_message_takes_nobody_along(
    lab: Any, ref: ActorRef, log: Log
) -> None:
    async with lab.running([Sleepy.child_spec(ref, log)]):
        with trio.CancelScope() as scope:
            ref.cast_nowait("sent")
            scope.cancel()
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert log == [("sent", 0)]


async def test_a_crash_is_reported_with_what_it_was_at_and_the_next_incarnation_hibernates_too(
    lab: Any, ref: ActorRef, log: Log
) -> None:
    async with lab.running([Sleepy.child_spec(ref, log)]):
        pid = ref.pid
        ref.cast_nowait(ValueError("no"))
        ref.cast_nowait("dropped")
        await trio.sleep(1)
        assert not has_task(ref)
        assert ref.pid is not pid
    exited = lab.of(ChildExited)[0]
    assert (str(exited.error), exited.doing) == ("no", "handle_cast ValueError")
    assert len(lab.of(ChildRestarted)) == 1
    assert [what for what, _ in log] == ["terminate error", "terminate shutdown"]


async def test_a_kept_mailbox_is_handled_by_the_next_incarnation(lab: Any, log: Log) -> None:
    ref = ActorRef("sleepy", keep_mailbox=True)
    async with lab.running([Sleepy.child_spec(ref, log)]):
        ref.cast_nowait(ValueError())
        ref.cast_nowait("kept")
        await trio.sleep(1)
        assert [what for what, _ in log] == ["terminate error", "kept"]


async def test_a_full_mailbox_that_drops_wakes_it_all_the_same(lab: Any, log: Log) -> None:
    ref = ActorRef("sleepy", mailbox_capacity=1, overflow=Overflow.DROP_OLD)
    async with lab.running([Sleepy.child_spec(ref, log)]):
        for number in range(4):
            ref.cast_nowait(number)
        await trio.testing.wait_all_tasks_blocked()
        assert [what for what, _ in log][-1] == 3


async def test_it_is_told_of_the_end_of_whom_it_monitors(lab: Any, ref: ActorRef, log: Log) -> None:
    other = ActorRef("other")
    async with lab.running([Sleepy.child_spec(ref, log), Sleepy.child_spec(other, Log().begin())]):
        ref.cast_nowait(lambda actor: actor.monitor(other))
        await trio.testing.wait_all_tasks_blocked()
        await other.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert log == [("other is down", 0)]


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda supervisor, ref: supervisor.terminate_child("sleepy"), "shutdown"),
        (lambda supervisor, ref: ref.stop(), "normal"),
        (lambda supervisor, ref: supervisor.stop(), "shutdown"),
    ],
    ids=["terminate_child", "stop", "the supervisor's stop"],
)
async def test_asked_to_end_while_it_hibernates_it_runs_terminate_and_is_gone(
    lab: Any, ref: ActorRef, log: Log, end: Callable[..., Any], kind: str
) -> None:
    async with lab.running([Sleepy.child_spec(ref, log)]) as supervisor:
        pid = ref.pid
        assert pid is not None
        await end(supervisor, ref)
        assert not pid.alive
        assert [what for what, _ in log] == [f"terminate {kind}"]


@pytest.mark.parametrize("error", [None, ValueError("exit")])
async def test_exit_child_ends_one_that_hibernates_and_it_is_restarted(
    lab: Any, ref: ActorRef, log: Log, error: Exception | None
) -> None:
    async with lab.running([Sleepy.child_spec(ref, log)]) as supervisor:
        supervisor.exit_child("sleepy", error)
        await trio.sleep(1)
        assert supervisor.which_children()[0].restarts == 1
        assert not has_task(ref)


async def test_a_brutal_kill_of_one_that_hibernates_runs_no_terminate(lab: Any, ref: ActorRef, log: Log) -> None:
    async with lab.running([Sleepy.child_spec(ref, log, shutdown=0)]) as supervisor:
        await supervisor.terminate_child("sleepy")
        assert log == []


async def test_a_cancelled_supervisor_ends_those_that_hibernate_last_started_first(lab: Any) -> None:
    logs = [Log().begin(), Log().begin()]
    supervisor = lab.supervisor([Sleepy.child_spec(f"sleepy-{number}", each) for number, each in enumerate(logs)])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        for number, each in enumerate(logs):
            supervisor.whereis(f"sleepy-{number}").cast_nowait("hello")
            await trio.testing.wait_all_tasks_blocked()
            assert each == [("hello", 0)]
        nursery.cancel_scope.cancel()
    stopped = [event.id for event in lab.events if type(event).__name__ == "ChildStopped"]
    assert stopped == ["sleepy-1", "sleepy-0"]
    assert [each[-1][0] for each in logs] == ["terminate shutdown"] * 2


async def test_the_crash_of_a_sibling_restarts_one_that_hibernates_where_the_strategy_says_so(
    lab: Any, ref: ActorRef, log: Log
) -> None:
    async with lab.running([lab.child("a"), Sleepy.child_spec(ref, log)], strategy=Strategy.ONE_FOR_ALL):
        lab.crash("a")
        await trio.sleep(1)
        assert [what for what, _ in log] == ["terminate shutdown"]
        assert await ref.call(Ask()) == "nobody"


@pytest.mark.parametrize("kind", [Sleepy, Resting])
async def test_a_helper_asked_for_by_another_task_wakes_it_and_it_hibernates_once_that_has_ended(
    lab: Any, ref: ActorRef, log: Log, kind: type[Sleepy]
) -> None:
    actors: list[Sleepy] = []
    async with lab.running([kind.child_spec(ref, log)]):
        ref.cast_nowait(actors.append)
        await trio.testing.wait_all_tasks_blocked()
        actors[0].start_soon(trio.sleep, 5)
        await trio.sleep(1)
        assert has_task(ref)
        await trio.sleep(10)
        assert not has_task(ref)
        assert await ref.call(Ask()) == "nobody"


async def test_callers_of_one_that_crashes_as_it_wakes_learn_of_it(lab: Any, ref: ActorRef, log: Log) -> None:
    async with lab.running([Sleepy.child_spec(ref, log)]):
        ref.cast_nowait(ValueError())
        with pytest.raises(ActorDied):
            await ref.call(Ask())


class Interrupted(Sleepy):
    async def handle_cast(self, message: Any) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_the_task_of_one_that_wakes_ends_those_that_hibernate_too() -> None:
    logs = [Log(), Log()]

    async def main() -> None:
        asleep, woken = Sleepy.child_spec("asleep", logs[0].begin()), Interrupted.child_spec("woken", logs[1].begin())
        async with Supervisor([asleep, woken]) as supervisor:
            supervisor.whereis("woken").cast_nowait("now")
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert [what for log in logs for what, _ in log] == ["terminate shutdown", "terminate fatal"]


class Nobody:
    def wake(self) -> None: ...

    def ring(self, now: float) -> None: ...


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 20)),
        st.tuples(st.just("withdraw"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("pop"), st.just(0), st.integers(0, 20)),
    ),
    max_size=120,
)


@given(STEPS)
def test_alarms_ring_once_each_the_earliest_first_however_they_are_moved(steps: list[tuple[str, int, int]]) -> None:
    alarms = Alarms()
    sleepers = [Nobody() for _ in range(6)]
    model: dict[int, int] = {}
    for step, who, when in steps:
        if step == "set":
            first = min(model.values(), default=math.inf)
            sooner = when < model.get(who, math.inf)
            assert alarms.set(sleepers[who], when) is (sooner and when < first)
            if sooner:
                model[who] = when
        elif step == "withdraw":
            alarms.withdraw(sleepers[who])
            model.pop(who, None)
        else:
            rung = alarms.pop_due(when)
            if rung is None:
                assert min(model.values(), default=math.inf) > when
            else:
                assert model.pop(sleepers.index(rung)) <= min([when, *model.values()])  # type: ignore[arg-type]
        assert alarms.next_due() == min(model.values(), default=math.inf)


def test_alarms_that_nobody_waits_for_any_more_do_not_pile_up() -> None:
    alarms = Alarms()
    sleeper = Nobody()
    for number in range(1000, 0, -1):
        alarms.set(sleeper, number)
    assert len(alarms._heap) <= 2 + 16


class Overdue(Sleepy):
    async def init(self) -> None:
        self.deadline = trio.current_time()


async def test_a_deadline_that_has_come_by_the_end_of_init_is_kept_at_once(lab: Any, ref: ActorRef, log: Log) -> None:
    async with lab.running([Overdue.child_spec(ref, log)]):
        await trio.testing.wait_all_tasks_blocked()
        assert log == [("timeout", 0)]
        assert not has_task(ref)


def test_ctrl_c_between_an_init_and_the_sleep_waits_until_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = ActorRef._arrived

    def interrupted(ref: ActorRef) -> None:
        signal.raise_signal(signal.SIGINT)
        arrived(ref)

    log = Log()

    async def main() -> None:
        async with Supervisor([Sleepy.child_spec("asleep", log.begin())]):
            await trio.sleep_forever()

    monkeypatch.setattr(ActorRef, "_arrived", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert [what for what, _ in log] == ["terminate shutdown"]


def test_ctrl_c_in_an_init_breaks_it_off() -> None:
    log = Log()

    class Hanging(Sleepy):
        async def init(self) -> None:
            signal.raise_signal(signal.SIGINT)
            self.log.add("went on")

    async def main() -> None:
        async with Supervisor([Hanging.child_spec("asleep", log.begin())]):
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert log == []
