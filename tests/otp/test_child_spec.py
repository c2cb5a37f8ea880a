"""Child specs: defaults and refusals (rows S)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import trio

from layr8_actors.errors import ChildStartError, InvalidOption
from layr8_actors.otp import (
    BRUTAL_KILL,
    INFINITY,
    Actor,
    Backoff,
    Call,
    ChildSpec,
    ChildState,
    ChildType,
    Ignore,
    Reply,
    Restart,
    Strategy,
    Supervisor,
)
from layr8_actors.otp.events import ChildIgnored


async def service(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


def test_S1_defaults_are_those_of_otp() -> None:
    spec = ChildSpec("a", service)
    assert (spec.restart, spec.type, spec.significant) == (Restart.PERMANENT, ChildType.WORKER, False)
    assert spec.grace == 5.0
    assert ChildSpec("a", service, type=ChildType.SUPERVISOR).grace == math.inf
    assert ChildSpec("a", service, type=ChildType.SUPERVISOR, shutdown=2).grace == 2
    assert BRUTAL_KILL == 0.0
    assert math.inf == INFINITY


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("id", ""),
        ("id", 1),
        ("start", "service"),
        ("restart", "permanent"),
        ("shutdown", -1),
        ("shutdown", True),
        ("shutdown", math.nan),
        ("shutdown", "brutal_kill"),
        ("type", "worker"),
        ("significant", 1),
        ("start_timeout", 0),
        ("start_timeout", math.nan),
    ],
)
def test_S2_an_invalid_spec_is_refused_and_the_option_named(option: str, value: object) -> None:
    fields: dict[str, Any] = {"id": "a", "start": service, option: value}
    with pytest.raises(InvalidOption, match=f"^{option}: got a value of type {type(value).__name__}"):
        ChildSpec(**fields)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("strategy", "one_for_one"),
        ("max_restarts", -1),
        ("max_restarts", 1.5),
        ("max_restarts", True),
        ("max_seconds", 0),
        ("max_seconds", math.nan),
        ("max_seconds", math.inf),
        ("backoff", 1.0),
        ("name", ""),
        ("on_event", "print"),
        ("auto_shutdown", "any_significant"),
        ("give_up_never", True),
    ],
)
def test_S2_an_invalid_flag_is_refused_before_anything_starts(option: str, value: object) -> None:
    flags: dict[str, Any] = {option: value}
    with pytest.raises(InvalidOption) as caught:
        Supervisor([ChildSpec("a", service)], **flags)
    assert caught.value.option == option


def test_S2_what_is_no_spec_is_refused() -> None:
    with pytest.raises(InvalidOption):
        Supervisor([service])  # type: ignore[list-item]


def test_S3_two_specs_of_one_id_are_refused() -> None:
    with pytest.raises(InvalidOption, match="'a'"):
        Supervisor([ChildSpec("a", service), ChildSpec("b", service), ChildSpec("a", service)])


def test_S4_significant_needs_a_child_that_can_end_and_a_supervisor_that_cares() -> None:
    with pytest.raises(InvalidOption, match="significant"):
        ChildSpec("a", service, significant=True)
    with pytest.raises(InvalidOption, match="significant"):
        Supervisor([ChildSpec("a", service, restart=Restart.TRANSIENT, significant=True)])


async def test_S4_start_child_refuses_a_significant_child_and_changes_nothing(lab: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        with pytest.raises(InvalidOption, match="significant"):
            await supervisor.start_child(lab.child("b", restart=Restart.TEMPORARY, significant=True))
        assert [child.id for child in supervisor.which_children()] == ["a"]
        assert lab.log == ["start a"]


class Take(Call[list[int]]):
    pass


class Hoarder(Actor):
    def __init__(self) -> None:
        self.items: list[int] = []

    async def handle_cast(self, message: Any) -> None:
        if message is None:
            raise RuntimeError("crash")
        self.items.append(message)

    async def handle_call(self, request: Any, reply: Reply[Any]) -> None:
        reply.send(self.items)


async def test_S5_each_incarnation_is_made_afresh(lab: Any, settle: Any) -> None:
    async with lab.running([Hoarder.child_spec("hoarder")]) as supervisor:
        ref = supervisor.whereis("hoarder")
        await ref.cast(1)
        before = await ref.call(Take())
        await ref.cast(None)
        await settle()
        after = await ref.call(Take())
        assert (before, after) == ([1], [])
        assert before is not after


async def test_S6_the_handle_is_what_the_child_reported(lab: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        assert supervisor.whereis("a") == "a1"
        assert await supervisor.start_child(lab.child("b")) == "b1"


async def ignoring(calls: list[str], *, task_status: trio.TaskStatus[None]) -> None:
    calls.append("asked")
    raise Ignore


async def test_S7_ignore_is_no_failure_and_start_goes_on(lab: Any) -> None:
    calls: list[str] = []
    specs = [
        lab.child("a"),
        ChildSpec("ignored", partial(ignoring, calls)),
        ChildSpec("dropped", partial(ignoring, calls), restart=Restart.TEMPORARY),
        lab.child("b"),
    ]
    async with lab.running(specs, max_restarts=0) as supervisor:
        assert [(child.id, child.state) for child in supervisor.which_children()] == [
            ("a", ChildState.RUNNING),
            ("ignored", ChildState.STOPPED),
            ("b", ChildState.RUNNING),
        ]
        assert await supervisor.restart_child("ignored") is None
        assert calls == ["asked"] * 3
        assert len(lab.of(ChildIgnored)) == 3
        assert await supervisor.start_child(ChildSpec("t", partial(ignoring, calls), restart=Restart.TEMPORARY)) is None
        assert "t" not in [child.id for child in supervisor.which_children()]


async def test_S7_ignore_in_a_restart_ends_the_restarts(lab: Any, settle: Any) -> None:
    class Once(Actor):
        starts = 0

        async def init(self) -> None:
            type(self).starts += 1
            if self.starts > 1:
                raise Ignore

    async with lab.running([Once.child_spec("once"), lab.child("b")], strategy=Strategy.ONE_FOR_ALL) as supervisor:
        supervisor.exit_child("once")
        await settle()
        assert [child.state for child in supervisor.which_children()] == [ChildState.STOPPED, ChildState.RUNNING]


async def test_S2_a_child_that_returns_without_being_ready_is_a_start_error(lab: Any) -> None:
    async def hasty(*, task_status: trio.TaskStatus[None]) -> None:
        pass

    with pytest.raises(ChildStartError, match=r"task_status\.started"):
        await lab.supervisor([ChildSpec("hasty", hasty)]).run()


@pytest.mark.parametrize("flag", ["helpers", "drain"])
def test_S2_a_method_that_is_named_like_a_flag_of_actors_is_refused(flag: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        type("Worker", (Actor,), {flag: lambda self: None})
    assert caught.value.option == flag


def test_S2_the_message_about_a_window_that_can_never_fill_says_how_long_it_has_to_be() -> None:
    with pytest.raises(InvalidOption, match="more than 7 s"):
        Supervisor(backoff=Backoff(initial=1, jitter=0))


async def test_S2_a_start_that_is_no_async_function_has_not_started_whatever_it_reported(lab: Any) -> None:
    def hasty(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    start: Any = hasty
    with pytest.raises(ChildStartError, match="async function") as caught:
        await lab.supervisor([ChildSpec("hasty", start)]).run()
    assert isinstance(caught.value.__cause__, InvalidOption)
