"""The actor contract (rows G)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints

from layr8_actors.errors import (
    ActorDied,
    ActorNotRunning,
    CallingSelf,
    CallTimeout,
    ChildNotFound,
    ChildStartError,
    InvalidOption,
    MailboxFull,
    SupervisionError,
    UnknownRequest,
)
from layr8_actors.otp import (
    Actor,
    ActorRef,
    Backoff,
    Call,
    ExitKind,
    ExitReason,
    Reply,
    Restart,
    Shutdown,
    Strategy,
)
from layr8_actors.otp.events import ChildExited, ChildStopped, ShutdownError


@dataclass(frozen=True)
class Echo(Call[str]):
    text: str


@dataclass(frozen=True)
class Sleep(Call[str]):
    seconds: float


@dataclass(frozen=True)
class Fail(Call[None]):
    error: Exception


@dataclass(frozen=True)
class Defer(Call[str]):
    pass


@dataclass(frozen=True)
class CallYourself(Call[str]):
    pass


@dataclass(frozen=True)
class Unknown(Call[int]):
    pass


class Box:
    """What outlives the incarnations of a Worker."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.incarnations = 0
        self.deferred: list[Reply[str]] = []
        self.answer_in_terminate = False
        self.init_delay = 0.0


class Worker(Actor):
    def __init__(self, box: Box) -> None:
        self.box = box

    async def init(self) -> None:
        self.box.incarnations += 1
        await trio.sleep(self.box.init_delay)

    async def handle_call(self, request: Call[Any], reply: Reply[Any]) -> None:
        match request:
            case Echo(text):
                self.box.log.append(text)
                reply.send(text)
            case Sleep(seconds):
                await trio.sleep(seconds)
                self.box.log.append("slept")
                reply.send("slept")
            case Fail(error):
                raise error
            case Defer():
                self.box.deferred.append(reply)
            case CallYourself():
                reply.send(await self.ref.call(Echo("me")))
            case _:
                await super().handle_call(request, reply)

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, Exception):
            raise message
        if isinstance(message, float):
            await trio.sleep(message)
        elif callable(message):
            await message(self)
        else:
            self.box.log.append(message)

    async def terminate(self, reason: ExitReason) -> None:
        self.box.log.append(f"terminate {reason.kind.value}")
        if self.box.answer_in_terminate:
            for reply in self.box.deferred:
                reply.send("from terminate")


@pytest.fixture
def box() -> Box:
    return Box()


async def test_G1_messages_of_one_sender_are_handled_in_order_one_at_a_time(lab: Any, box: Box) -> None:
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        for number in range(3):
            await ref.cast(number)
            await ref.cast(0.5)
        assert await ref.call(Echo("last")) == "last"
        assert box.log == [0, 1, 2, "last"]
        assert trio.current_time() == 1.5


async def test_G2_a_call_to_nobody_fails_at_once(lab: Any, box: Box) -> None:
    ref = ActorRef("w")
    with pytest.raises(ActorNotRunning, match=r"'w'.*Echo"):
        await ref.call(Echo("x"))
    async with lab.running([Worker.child_spec(ref, box)]) as supervisor:
        await supervisor.terminate_child("w")
        with pytest.raises(ActorNotRunning):
            await ref.call(Echo("x"))
    assert trio.current_time() == 0


async def call_and_note(ref: ActorRef, request: Call[Any], outcomes: list[Any], timeout: float = 1000.0) -> None:
    try:
        outcomes.append(await ref.call(request, timeout))
    except SupervisionError as error:
        outcomes.append(error)


async def test_G3_G11_callers_learn_of_a_crash_at_once_each_with_an_error_of_its_own(
    lab: Any, box: Box, settle: Any
) -> None:
    outcomes: list[Any] = []
    crash = ValueError("crash")
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        async with trio.open_nursery() as nursery:
            for request in (Defer(), Sleep(2), Fail(crash), Echo("queued"), Echo("queued too")):
                nursery.start_soon(call_and_note, ref, request, outcomes)
                await settle()
        assert trio.current_time() == 2
        assert outcomes.pop(0) == "slept"
        assert [type(outcome) for outcome in outcomes] == [ActorDied] * 4
        assert len(set(map(id, outcomes))) == 4
        assert all(outcome.__cause__ is crash for outcome in outcomes)
        await settle()
        assert lab.of(ChildExited)[0].error is crash
        assert await ref.call(Echo("next")) == "next"
        assert box.log == ["slept", "terminate error", "next"]


async def test_G4_G5_G6_a_timeout_leaves_the_server_alive_and_drops_the_late_answer(lab: Any, box: Box) -> None:
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        with pytest.raises(CallTimeout, match="'w' did not answer Sleep within 2 s"):
            await ref.call(Sleep(3), timeout=2)
        assert trio.current_time() == 2
        assert await ref.call(Echo("well")) == "well"
        assert trio.current_time() == 3
        with pytest.raises(TimeoutError):
            await ref.call(Sleep(10))
        assert trio.current_time() == 8  # OTP's default of 5 s
        assert box.log == ["slept", "well"]


async def test_G6_the_timeout_covers_the_wait_for_room(lab: Any, box: Box, settle: Any) -> None:
    ref = ActorRef("w", mailbox_capacity=1)
    async with lab.running([Worker.child_spec(ref, box)]):
        ref.cast_nowait(100.0)
        await settle()
        ref.cast_nowait("in the only place")
        with pytest.raises(CallTimeout):
            await ref.call(Echo("x"), timeout=3)
        assert trio.current_time() == 3
        assert ref.statistics().depth == 1
        assert ref.statistics().waiting_senders == 0


async def test_G7_calling_oneself_fails_at_once(lab: Any, box: Box, settle: Any) -> None:
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        with pytest.raises(ActorDied) as caught:
            await ref.call(CallYourself())
        assert isinstance(caught.value.__cause__, CallingSelf)
        assert trio.current_time() == 0


async def test_G7_a_helper_task_may_call_its_actor(lab: Any, box: Box) -> None:
    async def spawn(worker: Worker) -> None:
        worker.nursery.start_soon(call_and_note, worker.ref, Echo("helper"), box.log)

    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        await supervisor.whereis("w").cast(spawn)
        await trio.sleep(1)
        assert box.log == ["helper", "helper"]


async def test_G8_a_cast_to_nobody_is_no_error(lab: Any, box: Box) -> None:
    ref = ActorRef("w")
    with assert_checkpoints():
        assert await ref.cast("x") is False
    with assert_no_checkpoints():
        assert ref.cast_nowait("x") is False
    async with lab.running([Worker.child_spec(ref, box)]):
        assert await ref.cast("x") is True
        assert ref.cast_nowait("y") is True
    assert await ref.cast("z") is False
    assert box.log[:2] == ["x", "y"]


async def test_G9_G16_stop_overtakes_the_queue_and_what_is_behind_it_is_counted(
    lab: Any, box: Box, settle: Any
) -> None:
    outcomes: list[Any] = []
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        await ref.cast(100.0)
        await settle()
        for number in range(5):
            await ref.cast(number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_and_note, ref, Echo("queued"), outcomes)
            await settle()
            await supervisor.stop()
        assert trio.current_time() == 0
        assert box.log == ["terminate shutdown"]
        assert lab.of(ChildStopped)[0].dropped == 6
        assert [str(error) for error in outcomes] == ["actor 'w' ended before it answered (shutdown)"]


async def test_G10_a_caller_whose_actor_ends_cleanly_without_an_answer_is_told(lab: Any, box: Box) -> None:
    spec = Worker.child_spec("w", box, restart=Restart.TRANSIENT)
    async with lab.running([spec], max_restarts=0) as supervisor:
        with pytest.raises(ActorDied, match="shutdown") as caught:
            await supervisor.whereis("w").call(Fail(Shutdown("enough")))
        assert isinstance(caught.value.__cause__, Shutdown)
        assert box.log == ["terminate shutdown"]


async def test_G12_an_answer_may_come_later_and_only_the_first_counts(lab: Any, box: Box, settle: Any) -> None:
    outcomes: list[Any] = []
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_and_note, ref, Defer(), outcomes)
            await settle()
            assert await ref.call(Echo("meanwhile")) == "meanwhile"
            (reply,) = box.deferred
            reply.send("first")
            reply.send("second")
            reply.fail(ValueError())
        assert outcomes == ["first"]
        assert reply.done


async def test_G12_an_answer_to_a_caller_that_has_gone_is_ignored(lab: Any, box: Box) -> None:
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        with trio.move_on_after(1):
            await ref.call(Defer())
        box.deferred[0].send("nobody")
        assert await ref.call(Echo("well")) == "well"


async def test_G12_terminate_may_answer_what_was_deferred(lab: Any, box: Box, settle: Any) -> None:
    box.answer_in_terminate = True
    outcomes: list[Any] = []
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_and_note, supervisor.whereis("w"), Defer(), outcomes)
            await settle()
            await supervisor.stop()
    assert outcomes == ["from terminate"]


async def test_G11_a_handler_may_answer_with_an_error_and_live(lab: Any) -> None:
    class Polite(Actor):
        async def handle_call(self, request: Any, reply: Reply[Any]) -> None:
            reply.fail(KeyError("not here"))

    async with lab.running([Polite.child_spec("p")], max_restarts=0) as supervisor:
        for _ in range(2):
            with pytest.raises(KeyError):
                await supervisor.whereis("p").call(Echo("x"))


@pytest.mark.parametrize("how", ["crash", "shutdown", "stop", "kill"])
async def test_G13_terminate_runs_however_it_ends(lab: Any, box: Box, settle: Any, how: str) -> None:
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        if how == "crash":
            await ref.cast(ValueError())
        elif how == "shutdown":
            await ref.cast(Shutdown())
        elif how == "stop":
            await supervisor.terminate_child("w")
        else:
            supervisor.exit_child("w")
        await settle()
        expected = {"crash": "error", "shutdown": "shutdown", "stop": "shutdown", "kill": "killed"}
        assert box.log == [f"terminate {expected[how]}"]


async def test_G15_stop_waits_until_it_is_gone(lab: Any, box: Box, settle: Any) -> None:
    spec = Worker.child_spec("w", box, restart=Restart.TRANSIENT)
    async with lab.running([spec]) as supervisor:
        ref = supervisor.whereis("w")
        await ref.stop()
        assert not ref.running
        with pytest.raises(ActorNotRunning):
            await ref.stop()
        await settle()
        assert lab.of(ChildStopped)[0].reason == ExitReason(ExitKind.NORMAL)


async def test_G15_stop_with_an_error_and_with_a_timeout(lab: Any, settle: Any) -> None:
    class Slow(Actor):
        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(3)

    async with lab.running([Slow.child_spec("s", restart=Restart.TEMPORARY)]) as supervisor:
        ref = supervisor.whereis("s")
        error = ValueError("told to")
        with pytest.raises(CallTimeout, match="still stopping"):
            await ref.stop(ExitReason(ExitKind.ERROR, error), timeout=1)
        await trio.sleep(3)
        assert lab.of(ChildExited)[0].error is error


async def test_G17_a_cancelled_caller_does_not_cancel_the_handler(lab: Any, box: Box) -> None:
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        with trio.move_on_after(1):
            await supervisor.whereis("w").call(Sleep(2))
        await trio.sleep(2)
        assert box.log == ["slept"]


async def test_G18_cast_waits_for_room_and_cast_nowait_says_that_there_is_none(lab: Any, box: Box, settle: Any) -> None:
    ref = ActorRef("w", mailbox_capacity=2)
    async with lab.running([Worker.child_spec(ref, box)]):
        ref.cast_nowait(5.0)
        await settle()
        ref.cast_nowait(1)
        ref.cast_nowait(2)
        with pytest.raises(MailboxFull):
            ref.cast_nowait(3)
        assert await ref.cast(3) is True
        assert trio.current_time() == 5


async def test_G19_a_sender_that_waits_for_room_is_released_when_the_actor_dies(
    lab: Any, box: Box, settle: Any
) -> None:
    ref = ActorRef("w", mailbox_capacity=1)
    outcomes: list[Any] = []

    async def cast() -> None:
        outcomes.append(await ref.cast("x"))

    async with lab.running([Worker.child_spec(ref, box, restart=Restart.TEMPORARY)]) as supervisor:
        ref.cast_nowait(100.0)
        await settle()
        ref.cast_nowait("full")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cast)
            nursery.start_soon(call_and_note, ref, Echo("x"), outcomes)
            await settle()
            supervisor.exit_child("w")
        assert trio.current_time() == 0
        assert False in outcomes
        assert [type(outcome) for outcome in outcomes if outcome is not False] == [ActorDied]


async def test_G20_an_unknown_request_is_the_callers_fault_alone(lab: Any, box: Box) -> None:
    async with lab.running([Worker.child_spec("w", box)], max_restarts=0) as supervisor:
        with pytest.raises(UnknownRequest, match="Worker does not know the request Unknown"):
            await supervisor.whereis("w").call(Unknown())
        assert await supervisor.whereis("w").call(Echo("well")) == "well"


async def test_G20_an_unexpected_cast_is_logged_and_dropped(lab: Any, caplog: Any, settle: Any) -> None:
    class Deaf(Actor):
        pass

    async with lab.running([Deaf.child_spec("d")], max_restarts=0) as supervisor:
        with caplog.at_level(logging.WARNING):
            await supervisor.whereis("d").cast({"secret": 1})
            await settle()
        assert [record.getMessage() for record in caplog.records] == ["Deaf dropped an unexpected dict"]
        assert supervisor.whereis("d").running


async def test_G21_the_timers_of_an_incarnation_die_with_it(lab: Any, box: Box, settle: Any) -> None:
    async def tick_later(worker: Worker) -> None:
        async def tick() -> None:
            await trio.sleep(5)
            worker.ref.cast_nowait("tick")

        worker.nursery.start_soon(tick)

    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        await supervisor.whereis("w").cast(tick_later)
        await trio.sleep(1)
        supervisor.exit_child("w")
        await trio.sleep(10)
        assert box.log == ["terminate killed"]


async def test_B7_messages_sent_during_init_are_handled_after_it(lab: Any, box: Box) -> None:
    box.init_delay = 3
    ref = ActorRef("w")
    supervisor = lab.supervisor([Worker.child_spec(ref, box)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.sleep(1)
        assert ref.cast_nowait("early")
        assert await ref.call(Echo("call")) == "call"
        assert trio.current_time() == 3
        assert box.log == ["early", "call"]
        await supervisor.stop()


async def test_B7_if_init_fails_those_who_called_meanwhile_are_told(lab: Any) -> None:
    class Sickly(Actor):
        async def init(self) -> None:
            await trio.sleep(3)
            raise ValueError("init")

    ref = ActorRef("s")
    outcomes: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            await trio.sleep(1)
            await call_and_note(ref, Echo("x"), outcomes)

        nursery.start_soon(call)
        with pytest.raises(ChildStartError):
            await lab.supervisor([Sickly.child_spec(ref)]).run()
    assert type(outcomes[0]) is ActorDied
    assert repr(outcomes[0].__cause__) == "ValueError('init')"
    assert trio.current_time() == 3


# --- a mailbox that is kept -------------------------------------------------------------------------------------------


async def test_kept_casts_survive_a_crash_in_order_and_calls_do_not(lab: Any, box: Box, settle: Any) -> None:
    ref = ActorRef("w", keep_mailbox=True)
    outcomes: list[Any] = []
    async with lab.running([Worker.child_spec(ref, box)], backoff=Backoff(jitter=0), max_seconds=10) as supervisor:
        await ref.cast(1.0)
        await settle()
        async with trio.open_nursery() as nursery:
            await ref.cast("one")
            nursery.start_soon(call_and_note, ref, Echo("call"), outcomes)
            await settle()
            await ref.cast("two")
            await ref.cast(ValueError("crash"))
            await ref.cast("three")
            supervisor.exit_child("w")
        assert [type(outcome) for outcome in outcomes] == [ActorDied]
        assert trio.current_time() == 0
        await ref.cast("four")  # while none runs
        with pytest.raises(ActorNotRunning):
            await ref.call(Echo("in the gap"))
        await trio.sleep(20)
        assert box.log == ["terminate killed", "one", "two", "terminate error", "three", "four"]
        assert box.incarnations == 3
        assert all(event.dropped == 0 for event in lab.of(ChildExited))


async def test_casts_to_a_kept_mailbox_before_the_first_start_are_handled(lab: Any, box: Box, settle: Any) -> None:
    ref = ActorRef("w", keep_mailbox=True)
    assert ref.cast_nowait("early")
    async with lab.running([Worker.child_spec(ref, box)]):
        await settle()
        assert box.log == ["early"]


async def test_a_message_that_comes_together_with_the_kill_is_left_to_the_next_incarnation(
    lab: Any, box: Box, settle: Any
) -> None:
    ref = ActorRef("w", keep_mailbox=True)
    async with lab.running([Worker.child_spec(ref, box)]) as supervisor:
        await settle()
        ref.cast_nowait("message")
        supervisor.exit_child("w")
        await settle()
        assert box.log == ["terminate killed", "message"]


async def test_who_waits_for_room_in_a_kept_mailbox_is_released_when_nobody_will_come(
    lab: Any, box: Box, settle: Any
) -> None:
    ref = ActorRef("w", mailbox_capacity=1, keep_mailbox=True)
    results: list[bool] = []

    async def cast() -> None:
        results.append(await ref.cast("x"))

    async with trio.open_nursery() as nursery:
        async with lab.running([Worker.child_spec(ref, box)]):
            ref.cast_nowait(100.0)
            await settle()
            ref.cast_nowait("full")
            nursery.start_soon(cast)
            await settle()
    assert results == [False]
    assert ref.cast_nowait("y") is False
    box.log.clear()
    async with lab.running([Worker.child_spec(ref, box)]):  # and a new tree has a new mailbox
        ref.cast_nowait("z")
        await settle()
        assert box.log == ["z"]


async def test_a_kept_mailbox_survives_the_stop_for_a_group_restart(lab: Any, box: Box, settle: Any) -> None:
    ref = ActorRef("w", keep_mailbox=True)
    specs = [lab.child("a"), Worker.child_spec(ref, box)]
    async with lab.running(specs, strategy=Strategy.ONE_FOR_ALL) as supervisor:
        ref.cast_nowait(100.0)
        await settle()
        ref.cast_nowait("kept")
        lab.crash("a")
        await settle()
        assert box.log == ["terminate shutdown", "kept"]
        assert supervisor.whereis("w") is ref


# --- helper tasks -----------------------------------------------------------------------------------------------------


async def test_a_helper_that_crashes_is_a_crash_of_the_actor(lab: Any, box: Box, settle: Any) -> None:
    error = ValueError("helper")

    async def spawn(worker: Worker) -> None:
        async def crash() -> None:
            raise error

        worker.nursery.start_soon(crash)
        await trio.sleep_forever()

    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        await supervisor.whereis("w").cast(spawn)
        await settle()
        assert lab.of(ChildExited)[0].error is error
        assert box.log == ["terminate error"]
        assert box.incarnations == 2


async def test_terminate_of_an_asked_stop_still_has_its_helpers(lab: Any) -> None:
    log: list[str] = []

    class Flusher(Actor):
        async def init(self) -> None:
            self.wanted, self.flushed = trio.Event(), trio.Event()
            self.nursery.start_soon(self.flush)

        async def flush(self) -> None:
            try:
                await self.wanted.wait()
                await trio.sleep(1)
                log.append("flushed")
                self.flushed.set()
                await trio.sleep_forever()
            finally:
                log.append("helper ends")

        async def terminate(self, reason: ExitReason) -> None:
            self.wanted.set()
            await self.flushed.wait()
            log.append("terminated")

    async with lab.running([Flusher.child_spec("f")]):
        pass
    assert log == ["flushed", "terminated", "helper ends"]


async def test_two_crashes_at_once_are_reported_as_the_group_they_are(lab: Any, box: Box, settle: Any) -> None:
    async def spawn(worker: Worker) -> None:
        async def crash() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("in cleanup")

        worker.nursery.start_soon(crash)
        await trio.lowlevel.checkpoint()
        raise ValueError("handler")

    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        await supervisor.whereis("w").cast(spawn)
        await settle()
        error = lab.of(ChildExited)[0].error
        assert isinstance(error, ExceptionGroup)
        assert sorted(map(repr, error.exceptions)) == ["OSError('in cleanup')", "ValueError('handler')"]


# --- exit_child -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["init", "idle", "call", "cast", "helper", "terminate"])
async def test_exit_child_hits_any_await(lab: Any, settle: Any, place: str) -> None:
    log: list[str] = []
    error = ValueError("injected")

    class Everywhere(Actor):
        async def wait(self, where: str) -> None:
            if where == place and len(starts) < 2:
                log.append("at it")
                try:
                    await trio.sleep(100)
                finally:
                    log.append("left it")

        async def init(self) -> None:
            starts.append(1)
            await self.wait("init")
            self.nursery.start_soon(self.wait, "helper")

        async def handle_cast(self, message: Any) -> None:
            await self.wait("cast")
            if message == "end":
                raise Shutdown

        async def handle_call(self, request: Any, reply: Reply[Any]) -> None:
            await self.wait("call")
            reply.send("")

        async def terminate(self, reason: ExitReason) -> None:
            await self.wait("terminate")
            log.append(f"terminate {reason.kind.value}")

    starts: list[int] = []
    ref = ActorRef("e")
    supervisor = lab.supervisor([Everywhere.child_spec(ref, shutdown=1000)])
    async with trio.open_nursery() as nursery:
        if place == "init":
            with pytest.RaisesGroup(ChildStartError):
                async with trio.open_nursery() as inner:
                    inner.start_soon(supervisor.run)
                    await settle()
                    supervisor.exit_child("e", error)
            assert log == ["at it", "left it"]
            return
        await nursery.start(supervisor.run)
        if place == "call":
            nursery.start_soon(call_and_note, ref, Echo("x"), [])
        else:
            ref.cast_nowait("end" if place == "terminate" else "work")
        await settle()
        supervisor.exit_child("e", error)
        await trio.sleep(0.1 if place != "terminate" else 200)
        (event,) = lab.of(ChildExited)
        assert event.error is error
        assert len(starts) == 2
        if place == "terminate":
            assert log == ["at it", "left it", "terminate shutdown"]  # terminate is shielded and bounded by the grace
        else:
            assert log == (["terminate error"] if place == "idle" else ["at it", "left it", "terminate error"])
        await supervisor.stop()


async def test_exit_child_of_nobody(lab: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        with pytest.raises(ChildNotFound):
            supervisor.exit_child("b")
        with pytest.raises(InvalidOption, match="reason"):
            supervisor.exit_child("a", KeyboardInterrupt())
        await supervisor.terminate_child("a")
        with pytest.raises(ActorNotRunning):
            supervisor.exit_child("a")


async def test_exit_child_reports_what_the_cleanup_raised_besides(lab: Any, settle: Any) -> None:
    lab.cleanup_error["a"] = OSError("cleanup")
    async with lab.running([lab.child("a", restart=Restart.TEMPORARY)]) as supervisor:
        supervisor.exit_child("a", ValueError("injected"))
        await settle()
        assert repr(lab.of(ChildExited)[0].error) == "ValueError('injected')"
        assert repr(lab.of(ShutdownError)[0].error) == "OSError('cleanup')"


# --- the rest ---------------------------------------------------------------------------------------------------------


async def test_C7_each_way_to_fail_has_its_own_error(lab: Any, box: Box, settle: Any) -> None:
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        failures = []
        for target, request in ((ref, CallYourself()), (ActorRef("nobody"), Echo("")), (ref, Sleep(100))):
            with pytest.raises(SupervisionError) as caught:
                await target.call(request, timeout=1)
            await settle()
            failures.append((type(caught.value), type(caught.value.__cause__)))
    assert failures == [(ActorDied, CallingSelf), (ActorNotRunning, type(None)), (CallTimeout, type(None))]


async def test_one_ref_belongs_to_one_incarnation_at_a_time(lab: Any, box: Box) -> None:
    ref = ActorRef("w")
    async with lab.running([Worker.child_spec(ref, box)]):
        with pytest.raises(ChildStartError, match="still runs"):
            await lab.supervisor([Worker.child_spec(ref, box)]).run()
        assert await ref.call(Echo("still mine")) == "still mine"


async def test_call_arguments_are_checked(lab: Any, box: Box) -> None:
    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        for timeout in (-1, math.nan, True, "5"):
            with pytest.raises(InvalidOption, match="timeout"):
                await ref.call(Echo("x"), timeout)
        assert await ref.call(Echo("x"), math.inf) == "x"
        assert repr(ref) == "<ActorRef 'w' running>"
        assert ref.statistics().capacity == 1024


async def test_an_actor_runs_in_a_plain_nursery_too(box: Box) -> None:
    ref = ActorRef("w")
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: Worker.child_spec(ref, box).start(task_status=task_status))
        assert await ref.call(Echo("x")) == "x"
        nursery.cancel_scope.cancel()
    assert box.log == ["x", "terminate shutdown"]
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: Worker.child_spec(ref, box).start(task_status=task_status))
        await ref.cast(Shutdown())
    assert not ref.running
    with pytest.RaisesGroup(ValueError):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: Worker.child_spec(ref, box).start(task_status=task_status))
            await ref.cast(ValueError())


async def test_a_flood_does_not_starve_others(lab: Any, box: Box) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        ref = supervisor.whereis("w")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for number in range(5000):
                await ref.cast(number)
            nursery.cancel_scope.cancel()
        assert len(box.log) > 4900
        assert turns > 1000


async def test_R7_an_interrupt_in_a_handler_cleans_up_and_gets_out(lab: Any, box: Box) -> None:
    async def interrupt(worker: Worker) -> None:
        raise KeyboardInterrupt

    supervisor = lab.supervisor([lab.child("a"), Worker.child_spec("w", box)])
    caught: BaseException | None = None
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            nonlocal caught
            try:
                await supervisor.run(task_status=task_status)
            except KeyboardInterrupt as error:
                caught = error

        await nursery.start(run)
        await supervisor.whereis("w").cast(interrupt)
    assert type(caught) is KeyboardInterrupt  # and no group around it, neither the actor's nor the supervisor's
    assert box.log == ["terminate fatal"]
    assert box.incarnations == 1
    assert lab.log == ["start a", "stop a"]


async def test_a_call_that_waited_for_room_is_answered(lab: Any, box: Box, settle: Any) -> None:
    ref = ActorRef("w", mailbox_capacity=1)
    async with lab.running([Worker.child_spec(ref, box)]):
        ref.cast_nowait(1.0)
        await settle()
        ref.cast_nowait("full")
        assert await ref.call(Echo("x")) == "x"
        assert box.log == ["full", "x"]


async def test_an_actor_cannot_wait_for_its_own_end(lab: Any, box: Box, settle: Any) -> None:
    async def stop(worker: Worker) -> None:
        await worker.ref.stop()

    async with lab.running([Worker.child_spec("w", box)]) as supervisor:
        await supervisor.whereis("w").cast(stop)
        await settle()
        assert isinstance(lab.of(ChildExited)[0].error, CallingSelf)


async def test_a_child_killed_in_its_init_did_not_start(lab: Any, box: Box, settle: Any) -> None:
    async with lab.running([]) as supervisor:
        box.init_delay = 10
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                with pytest.raises(ChildStartError, match="killed before it was ready"):
                    await supervisor.start_child(Worker.child_spec("w", box))

            nursery.start_soon(start)
            await settle()
            supervisor.exit_child("w")
        assert trio.current_time() == 0
        assert box.log == []


async def test_without_a_supervisor_an_error_of_terminate_is_logged(caplog: Any) -> None:
    class Untidy(Actor):
        async def terminate(self, reason: ExitReason) -> None:
            raise ValueError("untidy")

    ref = ActorRef("u")
    with caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: Untidy.child_spec(ref).start(task_status=task_status))
            nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == ["terminate of actor 'u' raised"]


async def test_G15_many_may_wait_for_the_same_end(lab: Any, settle: Any) -> None:
    class Slow(Actor):
        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(3)

    async with lab.running([Slow.child_spec("s", restart=Restart.TEMPORARY)]) as supervisor:
        ref = supervisor.whereis("s")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.stop)
            nursery.start_soon(ref.stop)
        assert trio.current_time() == 3
        assert not ref.running


async def test_the_first_exit_reason_counts(lab: Any, settle: Any) -> None:
    first = ValueError("first")
    async with lab.running([lab.child("a", restart=Restart.TEMPORARY)]) as supervisor:
        supervisor.exit_child("a", first)
        supervisor.exit_child("a", ValueError("second"))
        await settle()
        assert lab.of(ChildExited)[0].error is first
