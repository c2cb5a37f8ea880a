"""Messages handled in the task of who sends them: when, in which order, and whose crash it is when one goes wrong."""

from __future__ import annotations

import math
import signal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.channel.prompt import PromptActor, PromptRef
from layr8_actors.otp import ChildSpec, ExitReason, Supervisor
from layr8_actors.otp.events import ChildExited, ShutdownError
from layr8_actors.telemetry import Event


class Told(PromptActor):
    helpers = False
    is_free = True

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def init(self) -> None:
        self.log.append("init")
        self.attend()

    @property
    def free(self) -> bool:
        return self.is_free

    async def handle_cast(self, message: Any) -> None:
        if message == "fail":
            raise RuntimeError("planted")
        if isinstance(message, PromptRef):
            message.cast_nowait("from within")
            self.log.append("end of the one that told")
        elif message == "ki":
            self.log.append(trio.lowlevel.currently_ki_protected())
        elif callable(message):
            message(self)
        elif isinstance(message, str):
            self.log.append((message, trio.lowlevel.current_task().name))
        else:
            await super().handle_cast(message)

    async def handle_timeout(self) -> None:
        self.log.append(("timeout", trio.lowlevel.current_task().name))


class Lab:
    def __init__(self, **options: Any) -> None:
        self.ref = PromptRef("told", **{"keep_mailbox": True, **options})
        self.log: list[Any] = []
        self.events: list[Event] = []
        spec: ChildSpec = Told.child_spec(self.ref, self.log)
        self.supervisor = Supervisor([spec], name="lab", on_event=self.events.append)

    def stop_soon(self) -> None:
        """Ask for its end as ``ref.stop`` does in its first step, and do not wait for it."""
        assert self.ref._process is not None
        self.ref._process.stop()

    @property
    def said(self) -> list[Any]:
        return [entry[0] if isinstance(entry, tuple) else entry for entry in self.log]

    @property
    def crashes(self) -> list[str]:
        return [str(event.reason.error) for event in self.events if isinstance(event, ChildExited)]


async def test_an_actor_at_rest_is_told_in_the_task_of_the_sender() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        await wait_all_tasks_blocked()
        assert lab.ref.cast_nowait("one")
        assert lab.log[1:] == [("one", trio.lowlevel.current_task().name)]
        nursery.cancel_scope.cancel()


async def test_behind_mail_a_message_goes_by_mail_so_that_the_order_is_that_of_the_sends() -> None:
    lab = Lab()
    lab.ref.cast_nowait("before it runs")
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        lab.ref.cast_nowait("behind it")
        assert lab.said == ["init"]
        await wait_all_tasks_blocked()
        assert lab.log[1:] == [("before it runs", "lab/told"), ("behind it", "lab/told")]
        nursery.cancel_scope.cancel()


async def test_an_actor_that_is_not_free_gets_mail() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        await wait_all_tasks_blocked()
        Told.is_free = False
        try:
            lab.ref.cast_nowait("later")
        finally:
            Told.is_free = True
        assert lab.said == ["init"]
        await wait_all_tasks_blocked()
        assert lab.log[1:] == [("later", "lab/told")]
        nursery.cancel_scope.cancel()


async def test_what_a_handler_sets_off_for_its_own_actor_comes_behind_it() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        await wait_all_tasks_blocked()
        lab.ref.cast_nowait(lab.ref)
        await wait_all_tasks_blocked()
        assert lab.said == ["init", "end of the one that told", "from within"]
        nursery.cancel_scope.cancel()


async def test_likewise_where_the_handler_runs_in_the_task_of_its_actor() -> None:
    lab = Lab()
    lab.ref.cast_nowait(lab.ref)  # it does not run yet, so this is mail
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        await wait_all_tasks_blocked()
        assert lab.said == ["init", "end of the one that told", "from within"]
        nursery.cancel_scope.cancel()


async def test_what_a_handler_raises_is_a_crash_of_its_actor_and_not_of_the_sender() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        await wait_all_tasks_blocked()
        assert lab.ref.cast_nowait("fail")
        lab.ref.cast_nowait("kept for the next one")
        await wait_all_tasks_blocked()
        assert lab.crashes == ["planted"]
        assert lab.log[1:] == ["init", ("kept for the next one", "lab/told")]
        nursery.cancel_scope.cancel()


async def test_a_failure_that_its_own_incarnation_does_not_live_to_see_crashes_no_later_one() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        await wait_all_tasks_blocked()
        lab.ref.cast_nowait("fail")
        lab.supervisor.exit_child("told", RuntimeError("of another cause"))  # before its task has had a turn
        await wait_all_tasks_blocked()
        assert lab.crashes == ["of another cause"]
        assert lab.said == ["init", "init"]
        nursery.cancel_scope.cancel()


async def test_a_handler_is_whole_whenever_ctrl_c_is_pressed() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        await wait_all_tasks_blocked()
        lab.ref.cast_nowait("ki")
        assert lab.log[1:] == [True]
        nursery.cancel_scope.cancel()


async def test_a_crash_in_the_task_of_a_sender_is_reported_with_the_message_that_the_handler_was_at() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        lab.ref.cast_nowait("fail")
        assert lab.ref.handling == "handle_cast str"
        await wait_all_tasks_blocked()
        (crash,) = [event for event in lab.events if isinstance(event, ChildExited)]
        assert (crash.doing, crash.dropped) == ("handle_cast str", 0)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("options", [{}, {"mailbox_capacity": 1}])
async def test_one_that_has_crashed_in_the_task_of_a_sender_handles_nothing_more(options: dict[str, int]) -> None:
    def tell_itself_and_fail(actor: Told) -> None:
        actor.ref.cast_nowait("for the next one")
        actor.deadline = -math.inf
        raise RuntimeError("planted")

    lab = Lab(**options)
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        lab.ref.cast_nowait(tell_itself_and_fail)
        await wait_all_tasks_blocked()
        assert lab.crashes == ["planted"]
        assert lab.said == ["init", "init", "for the next one"]
        nursery.cancel_scope.cancel()


async def test_a_stop_right_behind_a_crash_in_the_task_of_a_sender_does_not_hide_it() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        lab.ref.cast_nowait("fail")
        lab.stop_soon()
        await wait_all_tasks_blocked()
        assert lab.crashes == ["planted"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("by_exit_child", [True, False])
async def test_one_that_is_told_to_end_is_told_nothing_more(by_exit_child: bool) -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        if by_exit_child:
            lab.supervisor.exit_child("told", None)
        else:
            lab.stop_soon()
        lab.ref.cast_nowait("for the next one")
        assert lab.said == ["init"]
        await wait_all_tasks_blocked()
        assert lab.said == ["init", "init", "for the next one"]
        nursery.cancel_scope.cancel()


async def test_a_deadline_that_has_come_is_not_overtaken() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        lab.ref.cast_nowait(lambda actor: setattr(actor, "deadline", trio.current_time()))
        lab.ref.cast_nowait("later")
        await wait_all_tasks_blocked()
        assert lab.said == ["init", "timeout", "later"]
        nursery.cancel_scope.cancel()


@pytest.mark.real_clock
def test_ctrl_c_comes_when_the_handler_is_done_and_not_in_the_middle_of_it() -> None:
    done: list[str] = []

    def interrupted(actor: Told) -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("the second half")

    async def main() -> None:
        lab = Lab()
        async with trio.open_nursery() as nursery:
            await nursery.start(lab.supervisor.run)
            lab.ref.cast_nowait(interrupted)
            done.append("sent")
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    assert caught.group_contains(KeyboardInterrupt)
    assert done == ["the second half", "sent"]


async def test_nobody_is_told_who_does_not_run() -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        await wait_all_tasks_blocked()
        await lab.supervisor.terminate_child("told")
        assert not lab.ref.cast_nowait("lost")
        assert lab.said == ["init"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [None, RuntimeError("planted")])
async def test_one_that_is_told_to_end_is_told_nothing_any_more_and_the_next_incarnation_gets_it(
    error: Exception | None,
) -> None:
    lab = Lab()
    async with trio.open_nursery() as nursery:
        await nursery.start(lab.supervisor.run)
        lab.supervisor.exit_child("told", error)
        lab.ref.cast_nowait("late")
        assert lab.said == ["init"]
        await trio.sleep(1)
        assert lab.said == ["init", "init", "late"]
        nursery.cancel_scope.cancel()


class Helped(Told):
    helpers = True
    broken = False

    async def handle_cast(self, message: Any) -> None:
        if message == "help":
            self.start_soon(self.help)
        else:
            self.log.append("told though broken" if self.broken else "told")

    async def help(self) -> None:
        await trio.sleep(1)
        self.broken = True
        raise RuntimeError("planted")


async def test_one_whose_helper_has_crashed_is_told_nothing_any_more() -> None:
    ref = PromptRef("helped", keep_mailbox=True)
    log: list[Any] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor([Helped.child_spec(ref, log)], on_event=lambda _: None).run)
        ref.cast_nowait("help")
        await trio.sleep(0.5)
        actor = ref._actor
        assert isinstance(actor, Helped)
        while not actor.broken:
            await trio.sleep(0.5)
        while not actor.nursery.cancel_scope.cancel_called:
            await trio.lowlevel.checkpoint()
        ref.cast_nowait("between the crash and the end")
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert log == ["init", "init", "told"]


class Busy(Helped):
    async def handle_cast(self, message: Any) -> None:
        if message == "fail":
            raise RuntimeError("told")
        await super().handle_cast(message)

    async def help(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.log.append("helper cancelled")
            raise RuntimeError("cleanup")

    async def terminate(self, reason: ExitReason) -> None:
        self.log.append(f"terminate {reason.error}")


async def test_a_crash_in_the_task_of_a_sender_ends_the_helpers_first_and_what_they_raise_is_told_besides() -> None:
    ref = PromptRef("busy")
    log: list[Any] = []
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor([Busy.child_spec(ref, log)], on_event=events.append).run)
        ref.cast_nowait("help")
        await trio.sleep(1)
        ref.cast_nowait("fail")
        await trio.sleep(1)
        assert log == ["init", "helper cancelled", "terminate told", "init"]
        assert [str(event.reason.error) for event in events if isinstance(event, ChildExited)] == ["told"]
        assert [str(event.reason.error) for event in events if isinstance(event, ShutdownError)] == ["cleanup"]
        nursery.cancel_scope.cancel()
