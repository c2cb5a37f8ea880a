"""Events (rows O)."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import trio

from layr8_actors.errors import RestartLimitExceeded
from layr8_actors.otp import Backoff, ExitKind, Restart, Supervisor, events
from layr8_actors.telemetry import Event


async def test_O1_O5_the_story_of_a_child_is_told_in_order(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("a"), max_restarts=2)
    with pytest.RaisesGroup(RestartLimitExceeded):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.fail_starts["a"] = 9
            lab.crash("a")
    assert [type(event).__name__ for event in lab.events] == [
        "ChildStarted",
        "SupervisorStarted",
        "ChildExited",
        "RestartScheduled",
        "ChildStartFailed",
        "RestartScheduled",
        "ChildStartFailed",
        "LimitReached",
        "SupervisorStopped",
    ]
    assert lab.events[-1].reason.kind is ExitKind.ERROR
    assert isinstance(lab.events[-1].reason.error, RestartLimitExceeded)


async def test_O2_a_crash_is_reported_with_the_live_exception_and_the_window(lab: Any, settle: Any) -> None:
    inner = lab.supervisor([lab.child("a", restart=Restart.TRANSIENT)], name="inner", max_restarts=7)
    async with lab.running([inner.child_spec()], name="root"):
        await trio.sleep(2)
        error = ValueError("live")
        lab.end("a", error)
        await settle()
        (event,) = lab.of(events.ChildExited)
        assert event == events.ChildExited(
            at=2.0,
            path="root/inner",
            id="a",
            incarnation=1,
            restart=Restart.TRANSIENT,
            reason=event.reason,
            restarts_used=1,
            restarts_allowed=7,
            uptime=2.0,
        )
        assert event.error is error
        assert error.__traceback__ is not None


async def test_O3_levels_follow_otp(lab: Any, settle: Any) -> None:
    async with lab.running([lab.child("a"), lab.child("t", restart=Restart.TRANSIENT)]):
        lab.crash("a")
        lab.end("t")
        await settle()
    levels = {type(event).__name__: event.level for event in lab.events}
    assert levels == {
        "ChildStarted": logging.DEBUG,
        "SupervisorStarted": logging.DEBUG,
        "ChildExited": logging.ERROR,
        "ChildStopped": logging.DEBUG,
        "RestartScheduled": logging.INFO,
        "ChildRestarted": logging.INFO,
        "SupervisorStopped": logging.DEBUG,
    }
    for kind in (events.ChildStartFailed, events.LimitReached, events.ShutdownError, events.StopTimeout):
        assert kind.level == logging.ERROR
    assert {event.layer for event in lab.events} == {"otp"}


async def test_O3_a_permanent_child_that_just_ends_is_not_passed_over_in_silence(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("a")):
        lab.end("a")
        await settle()
        (event,) = lab.of(events.ChildExited)
        assert event.level == logging.ERROR
        assert event.reason.kind is ExitKind.NORMAL


async def test_O4_a_hook_that_raises_harms_nothing(lab: Any, settle: Any, caplog: Any) -> None:
    def hook(event: Event) -> None:
        raise ValueError("hook")

    supervisor = Supervisor([lab.child("a")], on_event=hook)
    with caplog.at_level(logging.CRITICAL, logger="layr8_actors.telemetry"):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.crash("a")
            await settle()
            assert supervisor.whereis("a") == "a2"
            await supervisor.stop()


async def test_O4_the_default_hook_logs(lab: Any, settle: Any, caplog: Any) -> None:
    supervisor = Supervisor([lab.child("a")], name="root", backoff=Backoff(initial=0.5), max_seconds=100)
    with caplog.at_level(logging.INFO, logger="layr8_actors.otp"):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.crash("a")
            await settle()
            await supervisor.stop()
    record = caplog.records[0]
    assert record.getMessage() == (
        "ChildExited path=root id=a incarnation=1 restart=permanent reason=(error: Crash('a')) "
        "restarts_used=1 restarts_allowed=3 uptime=0 dropped=0"
    )
    assert record.exc_info is not None
    assert caplog.records[1].getMessage().startswith("RestartScheduled path=root id=a")


async def test_O5_the_events_of_one_supervisor_come_from_its_own_task(lab: Any, settle: Any) -> None:
    tasks: set[str] = set()

    def hook(event: Event) -> None:
        tasks.add(trio.lowlevel.current_task().name)

    supervisor = Supervisor(lab.children("ab"), on_event=hook)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, name="the supervisor")
        lab.crash("a")
        await settle()
        await supervisor.terminate_child("b")
        await supervisor.stop()
    assert tasks == {"the supervisor"}


def test_every_event_is_frozen_data() -> None:
    kinds = [getattr(events, name) for name in events.__all__]
    assert all(issubclass(kind, Event) and dataclasses.is_dataclass(kind) for kind in kinds)
    event = events.SupervisorStarted(at=0.0, path="root", children=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.children = 2  # type: ignore[misc]
    # A child event names its restart type, not its spec: the arguments of a spec may hold a secret.
    assert "spec" not in {field.name for kind in kinds for field in dataclasses.fields(kind)}


async def test_O1_one_hook_hears_a_whole_tree_and_a_supervisor_below_may_have_its_own(lab: Any, settle: Any) -> None:
    own: list[Event] = []
    nested = Supervisor([lab.child("x")], name="nested")
    apart = Supervisor([lab.child("y")], name="apart", on_event=own.append)
    async with lab.running([nested.child_spec(), apart.child_spec()], name="root"):
        lab.crash("x")
        lab.crash("y")
        await settle()
    heard = {event.path for event in lab.events if isinstance(event, events.SupervisorEvent)}
    assert heard == {"root", "root/nested"}
    assert {event.path for event in own if isinstance(event, events.SupervisorEvent)} == {"root/apart"}
