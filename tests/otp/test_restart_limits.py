"""When a supervisor gives up: its window, the limit for one child, and what counts as healthy (rows I and K)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import trio

from layr8_actors.errors import InvalidOption, RestartLimitExceeded, SupervisionError
from layr8_actors.otp import (
    Actor,
    ActorRef,
    Backoff,
    ChildSpec,
    DynamicSupervisor,
    RestartIntensity,
    Strategy,
    Supervisor,
    mark_healthy,
)
from layr8_actors.otp.events import LimitReached, RestartScheduled

PLAIN = Backoff(initial=1, maximum=8, factor=2, jitter=0, reset_after=20)


def delays(lab: Any) -> list[float]:
    return [event.delay for event in lab.of(RestartScheduled)]


# --- I ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
def test_I9_the_defaults_are_three_restarts_in_five_seconds(kind: type[Supervisor | DynamicSupervisor]) -> None:
    supervisor = kind()
    assert (supervisor.max_restarts, supervisor.max_seconds) == (3, 5.0)
    assert supervisor.backoff is None


def test_I10_the_window_slides_and_neither_begins_anew_nor_decays() -> None:
    # One opened by its first event would be over at 5 and have two at 8, and a decaying count would be below two too.
    slides = RestartIntensity(2, 5.0)
    assert [slides.add(now) for now in (0.0, 4.0, 5.5, 8.0)] == [True, True, True, False]
    # Nothing is forgotten early, and nothing late.
    assert [slides.used(now) for now in (9.0, 9.1, 10.5, 10.6, 13.0, 13.1)] == [3, 2, 2, 1, 1, 0]


async def test_I10_a_supervisor_slides_its_window(lab: Any, settle: Any) -> None:
    supervisor = lab.supervisor(lab.children("a"), max_restarts=2, max_seconds=5)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            for now in (0.0, 4.0, 5.5, 8.0):
                await trio.sleep_until(now)
                lab.crash("a")
                await settle()
    assert trio.current_time() == 8
    assert lab.starts["a"] == 4


async def test_I4_a_limit_for_one_child_besides_the_window(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("ab"), backoff=PLAIN, max_attempts=2, max_restarts=100, name="root")
    with pytest.RaisesGroup(RestartLimitExceeded) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            for _ in range(2):
                lab.crash("a")
                await trio.sleep(5)
                lab.crash("b")  # another one's failures are counted by themselves
                await trio.sleep(5)
            lab.crash("a")
    failure = caught.value.exceptions[0]
    assert isinstance(failure, RestartLimitExceeded)
    assert (failure.child_id, failure.max_restarts, failure.max_seconds) == ("a", 2, math.inf)
    assert "child 'a' needed more than 2 restarts in a row" in str(failure)
    assert repr(failure.__cause__) == "Crash('a')"
    assert lab.starts == {"a": 3, "b": 3}
    (event,) = lab.of(LimitReached)
    assert (event.id, event.max_restarts, event.max_seconds) == ("a", 2, math.inf)


async def test_I4_K4_a_healthy_run_is_the_end_of_a_row(lab: Any) -> None:
    async with lab.running(lab.children("a"), backoff=PLAIN, max_attempts=1, max_restarts=100):
        for _ in range(5):
            lab.crash("a")
            await trio.sleep(1 + 20)  # exactly reset_after of health
        assert lab.starts["a"] == 6


async def test_C13_stop_restarting_the_child_after_reaching_the_number_of_retries(lab: Any) -> None:
    """Pekko BackoffSupervisor: maxNrOfRetries 2; failed starts are retries too."""
    supervisor = lab.supervisor(lab.children("a"), backoff=PLAIN, max_attempts=2, max_restarts=100)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.fail_starts["a"] = 100
            lab.crash("a")
    assert lab.starts["a"] == 1 + 2
    assert trio.current_time() == 1 + 2


async def test_I4_a_limit_of_none_restarts_nothing(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("a"), backoff=PLAIN, max_attempts=0, max_restarts=100)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.crash("a")
    assert lab.starts["a"] == 1


async def test_I4_a_dynamic_supervisor_has_that_limit_too(lab: Any) -> None:
    with pytest.raises(RestartLimitExceeded, match="in a row"):
        async with lab.running_dynamic(backoff=PLAIN, max_attempts=1, max_restarts=100) as supervisor:
            await supervisor.start_child(lab.child("a"))
            for _ in range(2):
                lab.crash("a")
                await trio.sleep(5)


async def test_I8_a_look_at_the_tree_shows_what_each_level_has_left(lab: Any, settle: Any) -> None:
    inner = lab.supervisor(lab.children("x"), name="inner", max_restarts=1)
    async with lab.running([inner.child_spec()], name="outer", max_restarts=2) as outer:
        used = []
        for _ in range(4):
            lab.crash("x")
            await settle()
            below = outer.snapshot().children[0].supervisor
            assert below is not None
            used.append((outer.snapshot().restarts_used, below.restarts_used, below.max_restarts))
        assert used == [(0, 1, 1), (1, 0, 1), (1, 1, 1), (2, 0, 1)]  # one restart below for each that is left above
    assert lab.starts["x"] == 5


async def test_C15_failures(lab: Any, settle: Any) -> None:
    """suture TestFailures on our rule: bursts below the limit pass, and an old one does not count with a new one."""
    supervisor = lab.supervisor(lab.children("a"), max_restarts=3, max_seconds=30)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            for burst in range(5):
                for count in range(3):
                    lab.crash("a")
                    await settle()
                    assert supervisor.restarts_used() == count + 1
                assert lab.starts["a"] == 1 + 3 * (burst + 1)
                await trio.sleep(30.1)
            for _ in range(4):
                lab.crash("a")
                await settle()
    assert lab.starts["a"] == 1 + 15 + 3


# --- K ----------------------------------------------------------------------------------------------------------------


async def test_K3_K5_by_default_a_run_is_healthy_from_its_readiness_on(lab: Any) -> None:
    lab.start_delay["a"] = 19  # a long start is no health
    async with lab.running(lab.children("a"), backoff=PLAIN, max_seconds=1000):
        for delay in (1, 2, 4):
            lab.crash("a")
            await trio.sleep(delay + 19 + 10)
        assert delays(lab) == [1, 2, 4]


async def test_K4_the_health_of_one_run_is_no_credit_for_the_next(lab: Any) -> None:
    async with lab.running(lab.children("a"), backoff=PLAIN, max_seconds=1000, max_restarts=9):
        lab.crash("a")
        await trio.sleep(1 + 15)
        lab.crash("a")  # after 15 s
        await trio.sleep(2 + 15)
        lab.crash("a")  # after 15 s more, which are not 30
        await trio.sleep(4 + 20)
        lab.crash("a")  # after 20 s in one piece
        await trio.sleep(1 + 1)
        lab.crash("a")
        await trio.sleep(5)
        assert delays(lab) == [1, 2, 4, 1, 2]


async def test_K5_a_child_that_says_itself_when_it_is_healthy(lab: Any) -> None:
    marks = [False, False, True, False]

    async def client(runs: list[int], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        runs.append(1)
        if marks.pop(0):
            mark_healthy(task_status)
            mark_healthy(task_status)  # the first one counts
        await trio.sleep(25)
        raise ValueError

    spec = ChildSpec("client", partial(client, []), marks_healthy=True)
    async with lab.running([spec], backoff=PLAIN, max_seconds=10_000, max_restarts=100):
        await trio.sleep(105)
        # Each ran for 25 s, longer than reset_after; that the third said it was healthy is what starts the row anew.
        assert delays(lab) == [1, 2, 1, 2]


@pytest.mark.parametrize(("after", "expected"), [(4.0, [1, 1]), (6.0, [1, 2])])
async def test_K5_health_counts_from_the_mark_on(lab: Any, after: float, expected: list[float]) -> None:
    class Client(Actor):
        async def init(self) -> None:
            self.send_after(after, "joined")

        async def handle_cast(self, message: Any) -> None:
            if message == "joined":
                self.mark_healthy()
            else:
                raise message

    ref = ActorRef("client")
    spec = Client.child_spec(ref, marks_healthy=True)
    async with lab.running([spec], backoff=PLAIN, max_seconds=10_000, max_restarts=100):
        for _ in range(2):
            await ref.wait_running()
            await trio.sleep(25)
            ref.cast_nowait(ValueError())
            await trio.sleep(0.5)
        assert delays(lab) == expected


async def test_K5_a_mark_without_a_supervisor_does_nothing(settle: Any) -> None:
    mark_healthy(trio.TASK_STATUS_IGNORED)

    class Alone(Actor):
        async def init(self) -> None:
            self.mark_healthy()

    ref = ActorRef("alone")
    async with trio.open_nursery() as nursery:
        await nursery.start(Alone.child_spec(ref).start)
        assert ref.running
        nursery.cancel_scope.cancel()
    with pytest.raises(SupervisionError, match="does not run yet"):
        Alone().mark_healthy()


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_K8_give_up_never_restarts_at_a_bounded_rate_and_never_pauses_the_others(
    lab: Any, settle: Any, strategy: Strategy
) -> None:
    """What is offered instead of suture's pause of the whole supervisor: each failure waits, for its own delay."""
    options = {"backoff": PLAIN, "give_up_never": True, "max_restarts": 0, "strategy": strategy}
    async with lab.running(lab.children("ab"), **options) as supervisor:
        lab.fail_starts["b"] = 1000
        lab.crash("b")
        await trio.sleep(800)
        assert lab.starts["b"] == 1 + 3 + 99  # after 1, 3 and 7 s, then one each 8 s
        assert supervisor.running
        if strategy is not Strategy.ONE_FOR_ALL:
            assert lab.starts["a"] == 1


@pytest.mark.parametrize(
    "way_out", [{"max_seconds": 8}, {"max_attempts": 5}, {"give_up_never": True}, {"max_restarts": 2, "max_seconds": 4}]
)
def test_K9_each_way_out_of_a_window_that_can_never_fill(way_out: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="max_seconds") as caught:
        Supervisor(backoff=PLAIN)
    assert "max_attempts" in str(caught.value)
    assert "give_up_never" in str(caught.value)
    with pytest.raises(InvalidOption, match="max_seconds"):
        DynamicSupervisor(backoff=PLAIN)
    Supervisor(backoff=PLAIN, **way_out)
    DynamicSupervisor(backoff=PLAIN, **way_out)


async def test_K9_a_window_that_can_fill_does(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("a"), backoff=PLAIN, max_seconds=8)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.fail_starts["a"] = 100
            lab.crash("a")
    assert trio.current_time() == 1 + 2 + 4
    assert lab.starts["a"] == 4


@pytest.mark.parametrize(
    "options", [{"max_attempts": 3}, {"max_attempts": -1, "backoff": PLAIN}, {"max_attempts": True, "backoff": PLAIN}]
)
def test_S2_K9_a_bad_limit_for_one_child_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="max_attempts"):
        Supervisor(**options)


async def test_K11_what_comes_during_the_wait_is_refused_or_kept_up_to_the_bound_and_replayed_in_order(
    lab: Any, settle: Any
) -> None:
    class Worker(Actor):
        async def handle_cast(self, message: Any) -> None:
            if isinstance(message, Exception):
                raise message
            lab.log.append(message)

    plain, kept = ActorRef("plain"), ActorRef("kept", keep_mailbox=True, mailbox_capacity=3)
    specs = [Worker.child_spec(plain), Worker.child_spec(kept)]
    async with lab.running(specs, backoff=PLAIN, max_seconds=100) as supervisor:
        for ref in (plain, kept):
            ref.cast_nowait(ValueError())
        await settle()
        assert plain.cast_nowait("fails fast") is False
        for number in range(3):
            assert kept.cast_nowait(number) is True
        results: list[bool] = []

        async def cast() -> None:
            results.append(await kept.cast("waits for room"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cast)
            await settle()
            assert kept.statistics().waiting_senders == 1
        await settle()
        assert trio.current_time() == 1
        assert lab.log == [0, 1, 2, "waits for room"]
        assert supervisor.restarts_used() == 2
