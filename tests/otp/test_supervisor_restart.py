"""Restart types, strategies, the window, escalation, restarts in progress and backoff (rows R, T, I, E, F, K)."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio

from layr8_actors.errors import ActorNotRunning, ChildStartError, RestartLimitExceeded
from layr8_actors.otp import Backoff, ChildSpec, ChildState, ExitKind, Restart, Shutdown, Strategy
from layr8_actors.otp.events import (
    ChildExited,
    ChildRestarted,
    ChildStopped,
    LimitReached,
    RestartScheduled,
    ShutdownError,
)

PLAIN = Backoff(initial=1, maximum=8, factor=2, jitter=0, reset_after=20)


def states(supervisor: Any) -> dict[str, ChildState]:
    return {child.id: child.state for child in supervisor.which_children()}


# --- R ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, ExitKind.NORMAL),
        (Shutdown("done"), ExitKind.SHUTDOWN),
        (ValueError(), ExitKind.ERROR),
        (ExceptionGroup("nested", [ExceptionGroup("deep", [Shutdown()])]), ExitKind.SHUTDOWN),
        (ExceptionGroup("two", [Shutdown(), ValueError()]), ExitKind.ERROR),
    ],
)
@pytest.mark.parametrize("restart", list(Restart))
async def test_R1_R2_R3_R8_who_comes_back(lab: Any, settle: Any, error: Any, kind: ExitKind, restart: Restart) -> None:
    async with lab.running([lab.child("a"), lab.child("b", restart=restart)]) as supervisor:
        lab.end("b", error)
        await settle()
        comes_back = restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and kind is ExitKind.ERROR)
        assert lab.starts == {"a": 1, "b": 2 if comes_back else 1}
        if restart is Restart.TEMPORARY:
            assert states(supervisor) == {"a": ChildState.RUNNING}
        else:
            assert states(supervisor)["b"] is (ChildState.RUNNING if comes_back else ChildState.STOPPED)
            assert supervisor.which_children()[1].last_exit.kind is kind
        assert lab.of(ChildExited)[0].reason.kind is kind
        assert supervisor.restarts_used() == int(comes_back)


@pytest.mark.parametrize("restart", list(Restart))
async def test_R1_R2_R3_a_kill_by_others_is_no_clean_end(lab: Any, settle: Any, restart: Restart) -> None:
    async with lab.running([lab.child("a", restart=restart)]) as supervisor:
        supervisor.exit_child("a")
        await settle()
        assert lab.starts["a"] == (1 if restart is Restart.TEMPORARY else 2)
        assert lab.of(ChildExited)[0].reason.kind is ExitKind.KILLED


async def test_R4_a_finished_transient_child_may_be_started_by_hand(lab: Any, settle: Any) -> None:
    async with lab.running([lab.child("a", restart=Restart.TRANSIENT)], max_restarts=0) as supervisor:
        lab.end("a")
        await settle()
        assert states(supervisor) == {"a": ChildState.STOPPED}
        assert await supervisor.restart_child("a") == "a2"


async def test_R5_an_asked_stop_starts_no_restart_rule(lab: Any, settle: Any) -> None:
    lab.cleanup_error["a"] = ValueError("in cleanup")
    async with lab.running(lab.children("ab"), max_restarts=0) as supervisor:
        await supervisor.terminate_child("a")
        await settle()
        assert lab.starts == {"a": 1, "b": 1}
        assert supervisor.restarts_used() == 0
        assert [event.id for event in lab.of(ShutdownError)] == ["a"]


async def test_R6_the_exit_of_what_is_no_child_any_more_is_ignored(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("ab"), strategy=Strategy.ONE_FOR_ALL, max_restarts=1) as supervisor:
        lab.crash("a")
        lab.crash("b")  # in the same instant: dealt with as part of the group of a
        await settle()
        assert lab.starts == {"a": 2, "b": 2}
        assert supervisor.restarts_used() == 1


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("shape", ["alone", "grouped"])
async def test_R7_what_ends_a_program_is_never_restarted(lab: Any, fatal: type[BaseException], shape: str) -> None:
    lab.cleanup = {"a": 1, "b": 1}
    supervisor = lab.supervisor(lab.children("abc"))
    error = fatal() if shape == "alone" else BaseExceptionGroup("mixed", [ValueError(), fatal()])
    caught: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.end("c", error)
    except BaseExceptionGroup as group:
        caught = group
    assert isinstance(caught, BaseExceptionGroup)
    left = caught.exceptions[0]
    assert left is error if shape == "alone" else repr(left) == repr(error)
    assert lab.log == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert lab.starts == {"a": 1, "b": 1, "c": 1}
    assert trio.current_time() == 2
    assert [event.reason.kind for event in lab.of(ChildExited) if event.id == "c"] == [ExitKind.FATAL]


async def test_R7_it_leaves_a_nested_tree_as_one_exception(lab: Any) -> None:
    inner = lab.supervisor(lab.children("x"), name="inner")
    outer = lab.supervisor([lab.child("a"), inner.child_spec(), lab.child("b")])
    caught: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash_soon, lab, "x", KeyboardInterrupt())
        try:
            await outer.run()
        except KeyboardInterrupt as error:
            caught = error
    assert type(caught) is KeyboardInterrupt
    assert lab.log[3:] == ["stop x", "stop b", "stop a"]


async def test_R7_two_at_once_leave_as_the_group_they_are(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("ab"))
    caught: BaseExceptionGroup[BaseException] | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash_soon, lab, "a", KeyboardInterrupt())
        nursery.start_soon(_crash_soon, lab, "b", SystemExit())
        try:
            await supervisor.run()
        except BaseExceptionGroup as error:
            caught = error
    assert caught is not None
    assert {type(error) for error in caught.exceptions} == {KeyboardInterrupt, SystemExit}


async def _crash_soon(lab: Any, id: str, error: BaseException) -> None:
    await trio.sleep(1)
    lab.end(id, error)


# --- T ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "story"),
    [
        (Strategy.ONE_FOR_ONE, ["stop b", "start b"]),
        (
            Strategy.ONE_FOR_ALL,
            ["stop b", "stop d", "stop c", "stop a", "start a", "start b", "start c", "start d"],
        ),
        (Strategy.REST_FOR_ONE, ["stop b", "stop d", "stop c", "start b", "start c", "start d"]),
    ],
)
async def test_T1_T2_T3_T7_who_shares_a_fate(lab: Any, settle: Any, strategy: Strategy, story: list[str]) -> None:
    async with lab.running(lab.children("abcd"), strategy=strategy) as supervisor:
        lab.took()
        lab.crash("b")
        await settle()
        assert lab.took() == story
        assert supervisor.restarts_used() == 1  # T7: one crash is one restart, however many siblings share it
        assert set(states(supervisor).values()) == {ChildState.RUNNING}
    assert lab.took() == ["stop d", "stop c", "stop b", "stop a"]


async def test_T4_T5_a_group_restart_drops_temporary_and_revives_transient_siblings(lab: Any, settle: Any) -> None:
    specs = [
        lab.child("a"),
        lab.child("temporary", restart=Restart.TEMPORARY),
        lab.child("transient", restart=Restart.TRANSIENT),
    ]
    async with lab.running(specs, strategy=Strategy.ONE_FOR_ALL) as supervisor:
        lab.crash("a")
        await settle()
        assert lab.starts == {"a": 2, "temporary": 1, "transient": 2}
        assert list(states(supervisor)) == ["a", "transient"]


async def test_T6_a_group_restart_revives_who_finished_but_not_whom_somebody_stopped(lab: Any, settle: Any) -> None:
    specs = [lab.child("a"), lab.child("finished", restart=Restart.TRANSIENT), lab.child("stopped")]
    async with lab.running(specs, strategy=Strategy.ONE_FOR_ALL) as supervisor:
        lab.end("finished")
        await supervisor.terminate_child("stopped")
        lab.crash("a")
        await settle()
        assert lab.starts == {"a": 2, "finished": 2, "stopped": 1}
        assert states(supervisor)["stopped"] is ChildState.STOPPED


async def test_T9_a_sibling_that_fails_while_it_is_stopped_does_not_count(lab: Any, settle: Any) -> None:
    lab.cleanup_error["b"] = ValueError("cleanup")
    async with lab.running(lab.children("ab"), strategy=Strategy.ONE_FOR_ALL, max_restarts=1) as supervisor:
        lab.crash("a")
        await settle()
        assert [(event.id, repr(event.error)) for event in lab.of(ShutdownError)] == [("b", "ValueError('cleanup')")]
        assert supervisor.restarts_used() == 1
        assert lab.starts == {"a": 2, "b": 2}


async def test_T10_a_crash_during_the_start_half_is_a_crash_of_its_own(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("abc"), strategy=Strategy.ONE_FOR_ALL) as supervisor:
        lab.start_delay["c"] = 5
        lab.crash("a")
        await trio.sleep(1)
        lab.crash("a")
        lab.start_delay.clear()
        await trio.sleep(5)
        assert supervisor.restarts_used() == 1  # the first one is out of the window by now
        assert lab.starts == {"a": 3, "b": 3, "c": 3}


async def test_T11_an_added_child_is_last_also_after_restarts(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("ab")) as supervisor:
        await supervisor.start_child(lab.child("c"))
        lab.crash("a")
        await settle()
        assert list(states(supervisor)) == ["a", "b", "c"]
        lab.took()
    assert lab.took() == ["stop c", "stop b", "stop a"]


# --- I ----------------------------------------------------------------------------------------------------------------


async def crash_at(lab: Any, settle: Any, *times: float) -> None:
    for time in times:
        await trio.sleep_until(time)
        lab.crash("a")
        await settle()


async def run_and_crash(lab: Any, settle: Any, times: list[float], **options: Any) -> BaseException | None:
    """Return what the supervisor ended with, or None when it still ran after the last crash."""
    supervisor = lab.supervisor(lab.children("a"), **options)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            await crash_at(lab, settle, *times)
            await supervisor.stop()
    except ExceptionGroup as group:
        return group.exceptions[0]
    return None


async def test_I1_the_boundary_counts(lab: Any, settle: Any) -> None:
    error = await run_and_crash(lab, settle, [1.0, 6.0], max_restarts=1, max_seconds=5)
    assert isinstance(error, RestartLimitExceeded)


async def test_I1_beyond_the_boundary_does_not(lab: Any, settle: Any) -> None:
    assert await run_and_crash(lab, settle, [1.0, 6.001], max_restarts=1, max_seconds=5) is None


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_I2_the_crash_after_the_last_permitted_one_ends_it(lab: Any, settle: Any, limit: int) -> None:
    assert await run_and_crash(lab, settle, [1.0] * limit, max_restarts=limit) is None
    lab.log.clear()
    error = await run_and_crash(lab, settle, [trio.current_time() + 10] * (limit + 1), max_restarts=limit)
    assert isinstance(error, RestartLimitExceeded)
    assert repr(error.__cause__) == "Crash('a')"


async def test_I4_the_window_sums_over_all_children(lab: Any, settle: Any) -> None:
    supervisor = lab.supervisor(lab.children("abcd"), max_restarts=3)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            for id in "abcd":
                lab.crash(id)
                await settle()
    assert lab.starts == {"a": 2, "b": 2, "c": 2, "d": 1}


async def test_I5_a_failed_restart_counts(lab: Any, settle: Any) -> None:
    supervisor = lab.supervisor(lab.children("ab"), max_restarts=3)
    with pytest.RaisesGroup(RestartLimitExceeded) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.fail_starts["b"] = 100
            lab.crash("b")
    assert lab.starts["b"] == 1 + 3  # the crash and three failed attempts
    assert repr(caught.value.exceptions[0].__cause__) == "Crash('start of b')"
    assert lab.log[-1] == "stop a"


async def test_I6_what_does_not_count(lab: Any, settle: Any) -> None:
    specs = [lab.child("a"), lab.child("b", restart=Restart.TRANSIENT)]
    async with lab.running(specs, max_restarts=0) as supervisor:
        await supervisor.start_child(lab.child("c", restart=Restart.TEMPORARY))
        await supervisor.terminate_child("a")
        await supervisor.restart_child("a")
        lab.end("b")
        lab.crash("c")
        await settle()
        assert supervisor.restarts_used() == 0


async def test_I7_giving_up_reports_and_stops_the_rest_in_reverse(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("abc"), max_restarts=0)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.took()
            lab.crash("b")
    assert lab.log == ["stop b", "stop c", "stop a"]
    (event,) = lab.of(LimitReached)
    assert (event.id, event.max_restarts, repr(event.error)) == ("b", 0, "Crash('b')")


async def test_I8_E1_E3_a_restarted_supervisor_has_a_full_budget_and_its_static_children(lab: Any, settle: Any) -> None:
    inner = lab.supervisor(lab.children("x"), name="inner", max_restarts=1)
    async with lab.running([inner.child_spec()], name="outer", max_restarts=1) as outer:
        await inner.start_child(lab.child("y"))
        lab.crash("x")
        await settle()
        assert outer.restarts_used() == 0
        lab.crash("x")  # one too many for the inner one
        await settle()
        assert outer.restarts_used() == 1
        assert inner.restarts_used() == 0
        assert list(states(inner)) == ["x"]
        assert outer.whereis("inner") is inner
        (exited,) = [event for event in lab.of(ChildExited) if event.id == "inner"]
        assert isinstance(exited.error, RestartLimitExceeded)


async def test_E1_a_transient_subtree_that_gave_up_is_restarted(lab: Any, settle: Any) -> None:
    inner = lab.supervisor(lab.children("x"), name="inner", max_restarts=0)
    async with lab.running([inner.child_spec(restart=Restart.TRANSIENT)]):
        lab.crash("x")
        await settle()
        assert lab.starts["x"] == 2
        assert inner.running


async def test_E2_a_subtree_that_was_asked_to_stop_ended_cleanly(lab: Any, settle: Any) -> None:
    inner = lab.supervisor(lab.children("x"), name="inner")
    async with lab.running([inner.child_spec(restart=Restart.TRANSIENT)], max_restarts=0) as outer:
        await inner.stop()
        await settle()
        assert states(outer) == {"inner": ChildState.STOPPED}


async def test_E4_a_subtree_that_cannot_start_uses_up_its_parents_budget(lab: Any) -> None:
    inner = lab.supervisor(lab.children("x"), name="inner", max_restarts=1)
    outer = lab.supervisor([inner.child_spec()], name="outer", max_restarts=2)
    with pytest.RaisesGroup(RestartLimitExceeded) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(outer.run)
            lab.fail_starts["x"] = 100
            lab.crash("x")
    # The inner one: a crash, one failed attempt, limit. The outer one: that, two failed attempts, limit.
    assert lab.starts["x"] == 1 + 1 + 2
    failure = caught.value.exceptions[0]
    assert isinstance(failure, RestartLimitExceeded)
    assert failure.child_id == "inner"
    assert isinstance(failure.__cause__, ChildStartError)
    assert failure.__cause__.supervisor == "outer/inner"


async def test_E5_the_root_gives_up_with_one_typed_exception_and_the_chain_of_causes(lab: Any) -> None:
    innermost = lab.supervisor(lab.children("x"), name="innermost", max_restarts=0)
    inner = lab.supervisor([innermost.child_spec()], name="inner", max_restarts=0)
    outer = lab.supervisor([inner.child_spec()], name="outer", max_restarts=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash_soon, lab, "x", lab.Crash("the root cause"))
        with pytest.raises(RestartLimitExceeded) as caught:
            await outer.run()
    chain = []
    error: BaseException | None = caught.value
    while error is not None:
        chain.append(getattr(error, "supervisor", repr(error)))
        error = error.__cause__
    assert chain == ["outer", "outer/inner", "outer/inner/innermost", "Crash('the root cause')"]


async def test_E6_a_cancelled_parent_stops_the_whole_tree_in_order_and_restarts_nothing(lab: Any) -> None:
    inner = lab.supervisor(lab.children("xy"), name="inner")
    outer = lab.supervisor([lab.child("a"), inner.child_spec(), lab.child("b")])
    lab.cleanup = dict.fromkeys("axyb", 1.0)
    with trio.move_on_after(10) as scope:
        await outer.run()
    assert scope.cancelled_caught
    assert lab.log[4:] == ["stop b", "stop y", "stop x", "stop a"]
    assert trio.current_time() == 14
    assert not lab.of(RestartScheduled)


# --- F ----------------------------------------------------------------------------------------------------------------


async def test_F1_other_work_is_served_between_two_attempts(lab: Any, settle: Any) -> None:
    lab.fail_starts["a"] = 0
    async with lab.running(lab.children("ab"), max_restarts=1000) as supervisor:
        lab.fail_starts["a"] = 500
        lab.crash("a")
        while lab.fail_starts["a"] > 490:
            await trio.lowlevel.checkpoint()
        await supervisor.terminate_child("b")
        assert states(supervisor)["b"] is ChildState.STOPPED
        assert lab.fail_starts["a"] > 400
        await supervisor.terminate_child("a")
        assert lab.fail_starts["a"] > 0


async def test_F2_one_for_all_starts_over_when_a_member_fails(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("abc"), strategy=Strategy.ONE_FOR_ALL) as supervisor:
        lab.took()
        lab.fail_starts["b"] = 1
        lab.crash("c")
        await settle()
        assert lab.took()[3:] == ["start a", "start b", "stop b", "stop a", "start a", "start b", "start c"]
        assert supervisor.restarts_used() == 2


async def test_F2_rest_for_one_other_child_fails_restart(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("abc"), strategy=Strategy.REST_FOR_ONE) as supervisor:
        lab.took()
        lab.fail_starts["b"] = 1
        lab.crash("a")
        await settle()
        assert lab.took()[3:] == ["start a", "start b", "stop b", "start b", "start c"]
        assert lab.starts["a"] == 2
        assert supervisor.restarts_used() == 2


async def test_F3_F6_terminate_calls_a_restart_off(lab: Any) -> None:
    async with lab.running(lab.children("ab"), backoff=PLAIN, max_seconds=100) as supervisor:
        lab.crash("a")
        await trio.sleep(0.5)
        assert states(supervisor)["a"] is ChildState.RESTARTING
        await supervisor.terminate_child("a")
        assert states(supervisor)["a"] is ChildState.STOPPED
        await trio.sleep(10)
        assert lab.starts["a"] == 1
        assert await supervisor.restart_child("a") == "a2"


async def test_F3_the_rest_of_a_group_still_comes_back_when_the_one_that_failed_is_terminated(lab: Any) -> None:
    options = {"strategy": Strategy.REST_FOR_ONE, "backoff": PLAIN, "max_seconds": 100}
    async with lab.running(lab.children("abc"), **options) as supervisor:
        lab.crash("b")
        await trio.sleep(0.5)
        await supervisor.terminate_child("b")
        await trio.sleep(1)
        assert lab.starts == {"a": 1, "b": 1, "c": 2}


async def test_F4_stop_ends_a_restart_loop_at_once(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("ab"), max_restarts=10**6)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        lab.fail_starts["a"] = 10**6
        lab.crash("a")
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        await supervisor.stop()
    assert lab.fail_starts["a"] > 10**6 - 100
    assert trio.current_time() == 0


async def test_F5_a_waiting_child_is_listed_but_not_active(lab: Any) -> None:
    async with lab.running(lab.children("ab"), backoff=PLAIN, max_seconds=100) as supervisor:
        await trio.sleep(1)
        lab.crash("a")
        await trio.sleep(0.25)
        info = supervisor.which_children()[0]
        assert (info.state, info.handle, info.next_restart_at) == (ChildState.RESTARTING, None, 2.0)
        assert (info.incarnation, info.restarts, info.last_exit.kind) == (1, 0, ExitKind.ERROR)
        counts = supervisor.count_children()
        assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (2, 1, 0, 2)
        with pytest.raises(ActorNotRunning):
            supervisor.whereis("a")


async def test_F7_an_earlier_crash_takes_a_waiting_later_child_into_its_group(lab: Any, settle: Any) -> None:
    options = {"strategy": Strategy.REST_FOR_ONE, "backoff": PLAIN, "max_seconds": 100}
    async with lab.running(lab.children("abc"), **options) as supervisor:
        lab.crash("c")
        await trio.sleep(0.5)
        lab.took()
        lab.crash("a")
        await settle()
        assert lab.took() == ["stop a", "stop b"]
        assert {child.next_restart_at for child in supervisor.which_children()} == {1.5}
        await trio.sleep(5)
        assert lab.took() == ["start a", "start b", "start c"]


async def test_F7_a_child_added_during_the_wait_of_those_before_it_joins_them(lab: Any, settle: Any) -> None:
    options = {"strategy": Strategy.REST_FOR_ONE, "backoff": PLAIN, "max_seconds": 100}
    async with lab.running(lab.children("ab"), **options) as supervisor:
        lab.crash("a")
        await trio.sleep(0.25)
        await supervisor.start_child(lab.child("c"))
        await supervisor.start_child(lab.child("d"))
        await supervisor.start_child(lab.child("e", restart=Restart.TEMPORARY))
        lab.took()
        lab.crash("c")  # has a part in the restart that waits, so there is no second timer
        await settle()
        assert {child.next_restart_at for child in supervisor.which_children() if child.id in "abcd"} == {1.0}
        await trio.sleep(5)
        assert lab.starts == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 1}
        assert set(states(supervisor)) == set("abcd")


# --- K ----------------------------------------------------------------------------------------------------------------


async def test_K1_K4_delays_grow_and_start_over_after_a_healthy_run(lab: Any) -> None:
    options = {"backoff": PLAIN, "max_seconds": 1000, "max_restarts": 20}
    async with lab.running(lab.children("a"), **options):
        for _ in range(5):
            lab.crash("a")
            await trio.sleep(9)
        assert [event.delay for event in lab.of(RestartScheduled)] == [1, 2, 4, 8, 8]
        await trio.sleep(20)
        lab.crash("a")
        await trio.sleep(2)
        assert (lab.of(RestartScheduled)[-1].delay, lab.of(RestartScheduled)[-1].attempt) == (1, 0)


async def test_K4_a_run_just_too_short_does_not_reset(lab: Any) -> None:
    async with lab.running(lab.children("a"), backoff=PLAIN, max_seconds=100):
        lab.crash("a")
        await trio.sleep(1 + 19.9)
        lab.crash("a")
        await trio.sleep(2)
        assert [event.delay for event in lab.of(RestartScheduled)] == [1, 2]


async def test_K1_failed_attempts_wait_longer_too(lab: Any) -> None:
    async with lab.running(lab.children("a"), backoff=PLAIN, max_seconds=100, max_restarts=5):
        lab.fail_starts["a"] = 3
        lab.crash("a")
        await trio.sleep(30)
        assert [event.delay for event in lab.of(RestartScheduled)] == [1, 2, 4, 8]
        assert [event.at for event in lab.of(ChildRestarted)] == [15]


async def test_K2_jitter_comes_from_the_generator_given(lab: Any) -> None:
    backoff = Backoff(initial=1, jitter=0.5)
    async with lab.running(lab.children("a"), backoff=backoff, max_seconds=100, random=Random(3)):
        lab.crash("a")
        await trio.sleep(2)
        assert lab.of(RestartScheduled)[0].delay == backoff.delay(0, Random(3))


async def test_K6_a_wait_holds_up_nobody_else(lab: Any, settle: Any) -> None:
    options = {"backoff": Backoff(initial=10, first_delay=10.0, jitter=0), "max_seconds": 100}
    async with lab.running(lab.children("ab"), **options) as supervisor:
        lab.crash("a")
        await trio.sleep(1)
        lab.crash("b")
        await settle()
        await supervisor.start_child(lab.child("c"))
        assert trio.current_time() == 1
        assert [child.next_restart_at for child in supervisor.which_children()] == [10, 11, None]
        await trio.sleep(20)
        assert lab.starts == {"a": 2, "b": 2, "c": 1}


async def test_K7_cancelled_during_a_wait_nothing_is_started_any_more(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("ab"), backoff=PLAIN, max_seconds=100)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.crash("a")
            await trio.sleep(0.5)
            scope.cancel()
    assert trio.current_time() == 0.5
    await trio.sleep(10)
    assert lab.log == ["start a", "start b", "stop a", "stop b"]


async def test_K9_give_up_never_restarts_on_however_full_the_window(lab: Any) -> None:
    backoff = Backoff(initial=0.1, maximum=0.1, jitter=0)
    async with lab.running(lab.children("a"), backoff=backoff, max_restarts=0, give_up_never=True):
        for _ in range(20):
            lab.crash("a")
            await trio.sleep(0.2)
        assert lab.starts["a"] == 21


async def test_K10_a_group_waits_for_the_delay_of_the_one_that_failed(lab: Any) -> None:
    options = {"strategy": Strategy.ONE_FOR_ALL, "backoff": PLAIN, "max_seconds": 100}
    async with lab.running(lab.children("ab"), **options) as supervisor:
        lab.crash("a")
        await trio.sleep(0.5)
        assert [child.state for child in supervisor.which_children()] == [ChildState.RESTARTING] * 2
        assert lab.live == {"a": 0, "b": 0}  # who depends on it does not run without it
        await trio.sleep(1)
        assert [event.id for event in lab.of(ChildRestarted)] == ["a", "b"]
        assert [event.group for event in lab.of(RestartScheduled)] == [("a", "b")]


async def test_C2_one_for_one(lab: Any, settle: Any) -> None:
    supervisor = lab.supervisor(lab.children("ab"), max_restarts=2, max_seconds=20)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.crash("a")
            await settle()
            assert [child.handle for child in supervisor.which_children()] == ["a2", "b1"]
            assert supervisor.count_children().active == 2
            for _ in range(2):
                lab.crash("a")
                await settle()
    assert not supervisor.running


async def test_C1_order_of_children(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("ahcde"), strategy=Strategy.REST_FOR_ONE) as supervisor:
        assert lab.took() == ["start a", "start h", "start c", "start d", "start e"]
        supervisor.exit_child("c")
        await settle()
        assert lab.took() == ["stop c", "stop e", "stop d", "start c", "start d", "start e"]
    assert lab.took() == ["stop e", "stop d", "stop c", "stop h", "stop a"]


async def test_E3_a_group_failure_with_cancelled_inside_is_an_error_and_not_a_cancellation(
    lab: Any, settle: Any
) -> None:
    async def nest(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in cleanup")

    async with lab.running([ChildSpec("nest", nest), lab.child("b")]) as supervisor:
        await supervisor.terminate_child("nest")
        (event,) = lab.of(ShutdownError)
        assert isinstance(event.error, ExceptionGroup)
        assert supervisor.whereis("b") == "b1"
        assert isinstance(lab.of(ChildStopped)[0].reason.error, ExceptionGroup)
