"""What docs/supervision.md says of trees as a whole, where no other test says it already."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import partial
from typing import Any

import pytest
import trio

from layr8_actors.errors import (
    ActorNotRunning,
    CallingSelf,
    ChildNotFound,
    ChildStartError,
    MailboxFull,
    MaxChildrenReached,
    NameTaken,
    RestartLimitExceeded,
)
from layr8_actors.otp import (
    Actor,
    ActorRef,
    AutoShutdown,
    Backoff,
    Call,
    ChildSpec,
    Down,
    DynamicSupervisor,
    ExitKind,
    ExitReason,
    Overflow,
    Pid,
    Registry,
    Reply,
    Restart,
    Supervisor,
    format_tree,
    mark_healthy,
)
from layr8_actors.otp.events import LimitReached, RestartScheduled

MAIN = {"restart": Restart.TRANSIENT, "significant": True}


class Get(Call[int]):
    """Answered at once."""


class Slow(Actor):
    """Takes a second for each message, and keeps what it has handled."""

    def __init__(self, log: list[Any], seconds: float = 1.0) -> None:
        self.log = log
        self.seconds = seconds

    async def handle_call(self, request: Any, reply: Reply[int]) -> None:
        await trio.sleep(self.seconds)
        reply.send(len(self.log))

    async def handle_cast(self, message: Any) -> None:
        await trio.sleep(self.seconds)
        self.log.append(message)


class Drains(Slow):
    drain = True


# --- embedding --------------------------------------------------------------------------------------------------------


def test_trio_run_takes_a_supervisor_as_it_is(lab: Any) -> None:
    async def crash_soon(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise lab.Crash("b")

    supervisor = lab.supervisor([lab.child("a"), ChildSpec("b", crash_soon)], max_restarts=0)
    with pytest.raises(RestartLimitExceeded) as caught:
        trio.run(supervisor.run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert isinstance(caught.value.__cause__, lab.Crash)
    assert lab.took() == ["start a", "stop a"]


async def test_a_nursery_gets_the_reason_in_a_group_and_cancels_its_other_tasks(lab: Any) -> None:
    """As with every task of a nursery; ``async with`` lets it out bare (test_supervisor_block.py)."""
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            assert await nursery.start(lab.supervisor([lab.child("a")], max_restarts=0).run)
            lab.crash("a")
            await trio.sleep_forever()
    (error,) = caught.value.exceptions
    assert isinstance(error, RestartLimitExceeded)


async def test_a_function_of_trio_that_takes_task_status_is_a_child_as_it_is(lab: Any) -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")

    server = ChildSpec("server", partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
    async with lab.running([server]) as supervisor:
        (listener,) = supervisor.whereis("server")
        async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
            assert await stream.receive_some() == b"hello"


async def test_a_function_that_takes_no_task_status_does_not_start(lab: Any) -> None:
    async def plain() -> None:
        """Ready when, is what nobody could know."""

    with pytest.raises(ChildStartError, match="task_status"):
        async with lab.supervisor([ChildSpec("plain", plain)]):
            pass


# --- budgets ----------------------------------------------------------------------------------------------------------


async def test_I8_nested_budgets_multiply(lab: Any) -> None:
    """An inner limit of 1 under an outer one of 2: 2 runs of the child in each of 3 runs of the inner supervisor."""

    async def crash(*, task_status: trio.TaskStatus[None]) -> None:
        lab.starts["loop"] += 1
        task_status.started()
        await trio.lowlevel.checkpoint()
        raise lab.Crash("loop")

    inner = lab.supervisor([ChildSpec("loop", crash)], max_restarts=1, name="inner")
    outer = lab.supervisor([inner.child_spec()], max_restarts=2, name="outer")
    with pytest.raises(RestartLimitExceeded) as caught:
        await outer.run()
    assert lab.starts["loop"] == (1 + 1) * (1 + 2)
    assert [event.path for event in lab.of(LimitReached)] == ["outer/inner"] * 3 + ["outer"]
    assert isinstance(caught.value.__cause__, RestartLimitExceeded)
    assert isinstance(caught.value.__cause__.__cause__, lab.Crash)


async def test_max_attempts_counts_failures_in_a_row_and_forgets_them_after_a_healthy_run(lab: Any) -> None:
    backoff = Backoff(initial=10, maximum=10, jitter=0, reset_after=60)
    supervisor = lab.supervisor(lab.children("a"), backoff=backoff, max_attempts=2)  # the window of 5 s never fills
    with pytest.raises(RestartLimitExceeded) as caught:
        async with supervisor:
            for healthy in (0, 0, 60, 0):
                await trio.sleep(healthy)
                lab.crash("a")
                await trio.sleep(11)
                assert lab.live["a"]
            lab.crash("a")
            await trio.sleep(11)
    assert (caught.value.max_restarts, caught.value.max_seconds) == (2, math.inf)
    assert lab.starts["a"] == 5


async def test_a_run_that_was_never_marked_healthy_does_not_end_the_row(lab: Any) -> None:
    """It is up for longer than ``reset_after`` each time, and yet its failures are in a row until it says otherwise."""
    works = False

    async def client(*, task_status: trio.TaskStatus[None]) -> None:
        lab.starts["client"] += 1
        task_status.started()
        if works:
            mark_healthy(task_status)
        await trio.sleep(20)
        raise lab.Crash("client")

    spec = ChildSpec("client", client, marks_healthy=True)
    backoff = Backoff(initial=1, maximum=100, jitter=0, reset_after=10)
    async with lab.running([spec], backoff=backoff, max_seconds=600, max_restarts=5):
        await trio.sleep(20 + 1 + 20 + 2 + 1)
        works = True
        await trio.sleep(19 + 4 + 20 + 0.5)
    assert [event.delay for event in lab.of(RestartScheduled)] == [1, 2, 4, 1]


# --- auto_shutdown ----------------------------------------------------------------------------------------------------


async def test_A1_the_end_of_a_significant_child_ends_the_tree_in_order_and_cleanly(lab: Any) -> None:
    specs = [lab.child("a"), lab.child("main", **MAIN), lab.child("b")]
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor(specs, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT).run)
        lab.end("main")
    assert lab.took() == ["start a", "start main", "start b", "stop main", "stop b", "stop a"]


async def test_A1_it_cancels_the_block_without_an_error(lab: Any) -> None:
    with trio.fail_after(1):
        async with lab.supervisor([lab.child("main", **MAIN)], auto_shutdown=AutoShutdown.ANY_SIGNIFICANT):
            lab.end("main")
            await trio.sleep_forever()


async def test_A2_with_all_significant_the_last_of_them_ends_it_and_one_that_restarts_still_counts(lab: Any) -> None:
    specs = [lab.child("a", **MAIN), lab.child("b", **MAIN)]
    options = {"auto_shutdown": AutoShutdown.ALL_SIGNIFICANT, "backoff": Backoff(initial=1, jitter=0)}
    async with trio.open_nursery() as nursery:
        supervisor = await nursery.start(lab.supervisor(specs, max_seconds=60, **options).run)
        lab.crash("a")
        await trio.sleep(0.5)
        lab.end("b")
        await trio.sleep(1)
        assert supervisor.running
        assert lab.live["a"]
        lab.end("a")
    assert lab.starts == {"a": 2, "b": 1}


@pytest.mark.parametrize(("restart", "starts"), [(Restart.TRANSIENT, 2), (Restart.TEMPORARY, 1)])
async def test_A3_a_crash_ends_the_tree_only_where_it_is_not_restarted(lab: Any, restart: Restart, starts: int) -> None:
    specs = [lab.child("main", restart=restart, significant=True)]
    async with trio.open_nursery() as nursery:
        supervisor = await nursery.start(lab.supervisor(specs, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT).run)
        lab.crash("main")
        await trio.sleep(1)
        assert supervisor.running == (restart is Restart.TRANSIENT)
        await supervisor.stop()
    assert lab.starts["main"] == starts


async def test_A4_terminate_child_of_a_significant_child_ends_nothing_else(lab: Any) -> None:
    specs = [lab.child("a"), lab.child("main", **MAIN)]
    async with lab.running(specs, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT) as supervisor:
        await supervisor.terminate_child("main")
        await trio.sleep(1)
        assert lab.live == {"a": 1, "main": 0}


@pytest.mark.parametrize("significant", [True, False])
async def test_A5_it_climbs_where_the_supervisor_is_significant_itself(lab: Any, significant: bool) -> None:
    inner = lab.supervisor([lab.child("main", **MAIN)], auto_shutdown=AutoShutdown.ANY_SIGNIFICANT, name="inner")
    specs = [lab.child("a"), inner.child_spec(restart=Restart.TRANSIENT, significant=significant)]
    async with trio.open_nursery() as nursery:
        outer = await nursery.start(lab.supervisor(specs, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT).run)
        lab.end("main")
        await trio.sleep(1)
        assert outer.running != significant
        assert lab.starts["main"] == 1  # it has ended cleanly, so a transient one is not restarted
        await outer.stop()


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parallel", "seconds"), [(False, 6), (True, 3)])
async def test_D2_parallel_shutdown_takes_as_long_as_the_slowest(lab: Any, parallel: bool, seconds: float) -> None:
    lab.cleanup = {"a": 1.0, "b": 2.0, "c": 3.0}
    start = trio.current_time()
    async with lab.running(lab.children("abc"), parallel_shutdown=parallel):
        pass
    assert trio.current_time() == start + seconds


async def test_D2_a_dynamic_supervisor_stops_all_at_once(lab: Any) -> None:
    lab.cleanup = {"a": 1.0, "b": 2.0, "c": 3.0}
    start = trio.current_time()
    async with DynamicSupervisor() as pool:
        for id in "abc":
            await pool.start_child(lab.child(id))
    assert trio.current_time() == start + 3


class Tidy(Actor):
    """Takes its time to clean up."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name

    async def terminate(self, reason: ExitReason) -> None:
        await trio.sleep(4)
        self.log.append(self.name)


async def test_shutdown_deadline_cuts_the_rest_of_a_stop_short(lab: Any) -> None:
    specs = [Tidy.child_spec(name, lab.log, name) for name in "abc"]
    start = trio.current_time()
    async with lab.running(specs, shutdown_deadline=6):
        pass
    assert trio.current_time() == start + 6
    assert lab.took() == ["c"]


async def test_M10_a_child_that_stops_its_own_tree_is_cancelled_and_one_that_shields_the_wait_is_told(lab: Any) -> None:
    outcomes: list[str] = []

    async def ask(name: str, shield: bool, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            with trio.CancelScope(shield=shield):
                await trio.sleep(1)
                await supervisor.stop()
        except (trio.Cancelled, CallingSelf) as error:
            outcomes.append(f"{name}: {type(error).__name__}")
            raise

    specs = [ChildSpec("plain", partial(ask, "plain", False)), ChildSpec("shielded", partial(ask, "shielded", True))]
    supervisor = lab.supervisor(specs)
    start = trio.current_time()
    await supervisor.run()
    assert sorted(outcomes) == ["plain: Cancelled", "shielded: CallingSelf"]
    assert trio.current_time() == start + 1


# --- dynamic supervisors and pids -------------------------------------------------------------------------------------


async def test_M6_a_child_that_waits_for_its_restart_keeps_its_place(lab: Any) -> None:
    async with DynamicSupervisor(max_children=1, backoff=Backoff(initial=1, jitter=0), max_seconds=60) as pool:
        first = await pool.start_child(lab.child("a", restart=Restart.TRANSIENT))
        assert first is not None
        assert first.id == "a-1"
        lab.crash("a")
        await first.wait_exit()
        with pytest.raises(MaxChildrenReached):
            await pool.start_child(lab.child("b"))
        await trio.sleep(1.5)
        lab.end("a")
        await trio.sleep(0.5)
        second = await pool.start_child(lab.child("b"))
        assert second is not None
        assert second.id == "b-2"


async def test_L4_a_pid_is_one_run_and_tells_its_end_for_ever(lab: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        first = supervisor.pid("a")
        lab.crash("a")
        reason = await first.wait_exit()
        assert (reason.kind, repr(reason.error)) == (ExitKind.ERROR, "Crash('a')")
        await trio.sleep(1)
        second = supervisor.pid("a")
        assert (first.incarnation, first.alive) == (1, False)
        assert (second.incarnation, second.alive) == (2, True)
        assert await first.wait_exit() is reason


async def test_M5_the_pid_of_an_earlier_run_still_terminates_the_child_and_a_foreign_one_nothing(lab: Any) -> None:
    async with DynamicSupervisor() as pool, DynamicSupervisor() as other:
        pid = await pool.start_child(lab.child("a"))
        assert pid is not None
        lab.crash("a")
        await trio.sleep(1)
        with pytest.raises(ChildNotFound):
            await other.terminate_child(pid)
        await pool.terminate_child(pid)
        assert lab.starts["a"] == 2
        assert not lab.live["a"]
        with pytest.raises(ChildNotFound):
            await pool.terminate_child(pid)


async def test_one_spec_of_an_actor_makes_many_each_with_a_ref_of_its_own(lab: Any) -> None:
    spec = Slow.child_spec("worker", lab.log, 0.0)
    async with DynamicSupervisor() as pool:
        pids = [await pool.start_child(spec) for _ in range(3)]
        refs = [pid.handle for pid in pids if pid is not None]
        assert [ref.id for ref in refs] == ["worker-1", "worker-2", "worker-3"]
        assert [await ref.call(Get()) for ref in refs] == [0, 0, 0]


# --- names ------------------------------------------------------------------------------------------------------------


async def test_N1_a_name_has_one_holder_and_the_second_child_does_not_start(lab: Any) -> None:
    registry = Registry()
    first, second = ActorRef("db", registry=registry), ActorRef("db", registry=registry)
    inner = lab.supervisor([], name="inner")
    async with lab.running([Slow.child_spec(first, []), inner.child_spec()]):
        with pytest.raises(NameTaken) as caught:
            await inner.start_child(Slow.child_spec(second, []))
        assert caught.value.holder is first
        assert registry.whereis("db") is first
    assert registry.whereis("db") is None


async def test_N2_the_next_incarnation_finds_its_name_free(lab: Any) -> None:
    registry = Registry()
    ref = ActorRef("db", registry=registry)
    async with lab.running([Slow.child_spec(ref, [])], backoff=Backoff(initial=1, jitter=0), max_seconds=60) as tree:
        tree.exit_child("db", lab.Crash("db"))
        await trio.sleep(0.5)
        assert registry.whereis("db") is None
        with pytest.raises(ActorNotRunning):
            await ref.call(Get())
        await ref.wait_running(timeout=1)  # N3: bridges the gap
        assert registry.whereis("db") is ref


async def test_N1_a_plain_child_holds_a_name_for_a_block(lab: Any) -> None:
    registry = Registry()

    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        with registry.register("cache", {}):
            task_status.started()
            await trio.sleep_forever()

    async with lab.running([ChildSpec("cache", service)]) as supervisor:
        assert registry.names() == ("cache",)
        supervisor.exit_child("cache", lab.Crash("cache"))
        await trio.sleep(1)
        assert registry.whereis("cache") == {}


# --- monitors and timers ----------------------------------------------------------------------------------------------


class Watcher(Actor):
    """Watches who it is told to watch."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, (ActorRef, Pid)):
            self.watched = self.monitor(message)
        elif message == "enough":
            self.watched.cancel()
        else:
            self.log.append(message)

    async def handle_down(self, down: Down) -> None:
        self.log.append(f"{down.id} {down.reason.kind.value}")


class Talker(Actor):
    """Says three things to somebody, then crashes."""

    def __init__(self, to: ActorRef) -> None:
        self.to = to

    async def handle_cast(self, message: Any) -> None:
        for word in "abc":
            self.to.cast_nowait(word)
        raise ValueError("done talking")


async def test_L1_L2_a_monitor_tells_once_and_after_all_that_was_sent_even_to_a_full_mailbox(lab: Any) -> None:
    watcher, talker = ActorRef("watcher", mailbox_capacity=3), ActorRef("talker")
    log: list[Any] = []
    specs = [Watcher.child_spec(watcher, log), Talker.child_spec(talker, watcher, restart=Restart.TEMPORARY)]
    async with lab.running(specs):
        await watcher.cast(talker)
        await trio.sleep(1)
        await talker.cast("talk")
        await trio.sleep(1)
        assert log == ["a", "b", "c", "talker error"]
        await watcher.cast(talker)
        await trio.sleep(1)
        assert log[4:] == ["talker noproc"]


async def test_L1_a_monitor_of_a_run_that_is_over_has_its_reason(lab: Any) -> None:
    watcher, other = ActorRef("watcher"), ActorRef("other")
    async with lab.running([Watcher.child_spec(watcher, lab.log), Slow.child_spec(other, [])]) as supervisor:
        pid = other.pid
        supervisor.exit_child("other", lab.Crash("other"))
        await trio.sleep(1)
        await watcher.cast(pid)
        await trio.sleep(1)
        assert lab.took() == ["other error"]


async def test_L3_a_cancelled_monitor_is_silent(lab: Any) -> None:
    watcher, other = ActorRef("watcher"), ActorRef("other")
    async with lab.running([Watcher.child_spec(watcher, lab.log), Slow.child_spec(other, [])]) as supervisor:
        await watcher.cast(other)
        await watcher.cast("enough")
        await trio.sleep(1)
        supervisor.exit_child("other", lab.Crash("other"))
        await trio.sleep(1)
        assert lab.took() == []


class Timed(Actor):
    """Sets two timers and calls one of them off."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def init(self) -> None:
        self.log.append("init")
        self.send_after(1, "tick")
        assert self.send_after(1, "never").cancel()

    async def handle_cast(self, message: Any) -> None:
        self.log.append(message)


async def test_G21_send_after_comes_as_a_cast_and_dies_with_the_incarnation(lab: Any) -> None:
    log: list[Any] = []
    async with lab.running([Timed.child_spec("timed", log)]) as supervisor:
        await trio.sleep(0.5)
        supervisor.exit_child("timed", lab.Crash("timed"))
        await trio.sleep(0.75)
        assert log == ["init", "init"]  # the first one's tick would have come by now
        await trio.sleep(0.5)
        assert log == ["init", "init", "tick"]


# --- mailboxes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overflow", "sent", "handled"),
    [
        (Overflow.DROP_NEW, [True, True, True, False, False], [0, 1, 2]),
        (Overflow.DROP_OLD, [True, True, True, True, True], [0, 3, 4]),
    ],
)
async def test_G18_a_mailbox_that_drops_never_makes_its_sender_wait(
    lab: Any, settle: Any, overflow: Overflow, sent: list[bool], handled: list[int]
) -> None:
    ref = ActorRef("slow", mailbox_capacity=2, overflow=overflow)
    async with lab.running([Slow.child_spec(ref, lab.log)]):
        start = trio.current_time()
        outcomes = []
        for number in range(5):
            outcomes.append(await ref.cast(number))
            await settle()  # the first one is in hand by now
        assert outcomes == sent
        assert trio.current_time() == start
        assert ref.statistics().dropped == 2
        if overflow is Overflow.DROP_NEW:
            with pytest.raises(MailboxFull):
                await ref.call(Get())
        await trio.sleep(5)
        assert lab.took() == handled


async def test_a_draining_actor_finishes_its_queue_within_its_grace_and_takes_no_more_calls(lab: Any) -> None:
    ref = ActorRef("drains")
    async with lab.running([Drains.child_spec(ref, lab.log)]) as supervisor:
        for number in range(3):
            await ref.cast(number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.terminate_child, "drains")
            await trio.sleep(0.5)
            with pytest.raises(ActorNotRunning):
                await ref.call(Get())
        assert lab.took() == [0, 1, 2]


async def test_a_draining_actor_is_cut_off_at_the_end_of_its_grace(lab: Any) -> None:
    ref = ActorRef("drains")
    async with lab.running([Drains.child_spec(ref, lab.log, shutdown=1.5)]):
        for number in range(3):
            await ref.cast(number)
        await trio.sleep(0.25)
        start = trio.current_time()
    assert trio.current_time() == start + 1.5
    assert lab.took() == [0]


# --- seeing the tree --------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_json_of_the_whole_tree_and_can_be_drawn_later(lab: Any) -> None:
    slow = ActorRef("slow")
    inner = lab.supervisor([Slow.child_spec(slow, [])], name="inner")
    async with lab.running([lab.child("a"), inner.child_spec()], name="root") as supervisor:
        lab.crash("a")
        await slow.cast("in hand")
        await slow.cast("waits")
        await trio.sleep(0.5)
        snapshot = supervisor.snapshot()
        drawn = format_tree(supervisor)
    a, below = json.loads(json.dumps(dataclasses.asdict(snapshot)))["children"]
    assert (a["state"], a["incarnation"], a["last_exit"]) == ("running", 2, "error: Crash('a')")
    assert a["uptime"] == pytest.approx(0.5)
    (actor,) = below["supervisor"]["children"]
    assert (actor["mailbox_depth"], actor["handling"]) == (1, "handle_cast str")
    assert format_tree(snapshot) == drawn
    assert "waits" not in drawn


async def test_a_supervisor_that_does_not_run_has_a_snapshot_too() -> None:
    snapshot = Supervisor(name="root").snapshot()
    assert (snapshot.running, snapshot.children) == (False, ())


async def test_each_supervisor_tells_its_own_hook_with_the_path_from_the_root(lab: Any, make_lab: Any) -> None:
    below = make_lab()
    inner = below.supervisor(below.children("x"), name="inner")
    async with lab.running([inner.child_spec()], name="outer"):
        below.crash("x")
        await trio.sleep(1)
    assert {event.path for event in lab.events} == {"outer"}
    assert {event.path for event in below.events} == {"outer/inner"}
