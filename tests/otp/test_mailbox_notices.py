"""What a mailbox takes past its bound keeps its place in the row, whatever else comes and goes (rows L2, G1, G18)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import example, given, strategies as st

from layr8_actors.errors import CallingSelf, SupervisorNotRunning
from layr8_actors.otp import (
    Actor,
    ActorRef,
    ChildSpec,
    DynamicSupervisor,
    ExitKind,
    ExitReason,
    Ignore,
    Mailbox,
    Overflow,
)
from layr8_actors.otp.events import ChildIgnored


@example(["notice", "put", "put", "put", "put", "notice", "put"], 4, Overflow.DROP_OLD)
@example(["notice", "put", "put"], 1, Overflow.DROP_OLD)
@given(
    st.lists(st.sampled_from(["put", "put", "notice", "get"]), max_size=60),
    st.integers(1, 4),
    st.sampled_from(list(Overflow)),
)
def test_L2_G1_G18_order_survives_any_mix_of_messages_and_notices(
    steps: list[str], capacity: int, overflow: Overflow
) -> None:
    mailbox: Mailbox[int] = Mailbox("a", capacity, overflow)
    expected: list[int] = []
    notices: set[int] = set()
    for number, step in enumerate(steps):
        if step == "put":
            # What the reader has been handed, or gave back, is in its hands and takes no room.
            full = mailbox.statistics().depth - len(mailbox._front or ()) >= capacity
            if overflow is Overflow.WAIT:
                assert mailbox.try_put(number) is not full
                expected += [] if full else [number]
                continue
            dropped = mailbox.force(number)
            expected.append(number)
            oldest = next(item for item in expected if item not in notices)
            assert dropped == (None if not full else number if overflow is Overflow.DROP_NEW else oldest)
            if dropped is not None:
                expected.remove(dropped)
        elif step == "notice":
            mailbox.put_notice(number)
            expected.append(number)
            notices.add(number)
        elif expected:
            item = mailbox.get_nowait()
            assert item == expected[0]
            expected.pop(0)
        assert mailbox.queued == len(expected)
        assert mailbox.statistics().depth == len([item for item in expected if item not in notices])
    assert [mailbox.get_nowait() for _ in expected] == expected
    with pytest.raises(trio.WouldBlock):
        mailbox.get_nowait()


def test_L3_a_mailbox_that_is_closed_takes_no_notice() -> None:
    mailbox: Mailbox[str] = Mailbox("a")
    mailbox.put_notice("before")
    assert mailbox.close(ExitReason(ExitKind.SHUTDOWN)) == 0  # it is no message that somebody will miss
    mailbox.put_notice("after")
    assert mailbox.queued == 0


async def test_L3_an_end_that_comes_while_the_watcher_cleans_up_is_told_to_nobody(lab: Any, settle: Any) -> None:
    class Watcher(Actor):
        async def init(self) -> None:
            self.monitor(target)

        async def handle_down(self, down: Any) -> None:
            lab.log.append("told")

        async def terminate(self, reason: Any) -> None:
            supervisor.exit_child("target")
            await trio.sleep(1)

    target = ActorRef("target")
    async with lab.running([Actor.child_spec(target), Watcher.child_spec("w")]) as supervisor:
        await supervisor.terminate_child("w")
        assert trio.current_time() == 1
        await settle()
        assert target.running
        assert supervisor.restarts_used() == 1
        assert lab.log == []


async def test_O4_a_hook_that_stops_the_supervisor_at_an_ignored_child_leaves_no_trace_of_it(lab: Any) -> None:
    async def nothing(*, task_status: trio.TaskStatus[None]) -> None:
        raise Ignore

    def hook(event: Any) -> None:
        if isinstance(event, ChildIgnored):
            supervisor.request_stop()

    supervisor = DynamicSupervisor(on_event=hook)
    async with supervisor:
        with pytest.raises(SupervisorNotRunning, match="began to stop"):
            await supervisor.start_child(ChildSpec("n", nothing))
    assert not supervisor.running


async def test_M10_a_task_that_was_renamed_is_still_known(lab: Any) -> None:
    async def renamed(*, task_status: trio.TaskStatus[None]) -> None:
        trio.lowlevel.current_task().name = "somebody else"
        with pytest.raises(CallingSelf):
            await supervisor.terminate_child("b")
        lab.log.append("told")
        task_status.started()

    async with lab.running(lab.children("b")) as supervisor:
        await supervisor.start_child(ChildSpec("renamed", renamed))
        assert "told" in lab.log
