"""Names (rows N and M2) and the gap between two incarnations (row N3)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints

from layr8_actors.errors import (
    ActorNotRunning,
    CallTimeout,
    ChildStartError,
    InvalidOption,
    NameTaken,
)
from layr8_actors.otp import Actor, ActorRef, Backoff, Call, ChildSpec, ChildState, Registry, Reply

SLOW = Backoff(initial=5, jitter=0)


class Who(Call[int]):
    pass


class Named(Actor):
    runs = 0

    def __init__(self, log: list[Any], registry: Registry, init_delay: float = 0.0, cleanup: float = 0.0) -> None:
        self.log = log
        self.registry = registry
        self.init_delay = init_delay
        self.cleanup = cleanup

    async def init(self) -> None:
        self.log.append(("init", self.registry.whereis(self.ref.id)))
        await trio.sleep(self.init_delay)

    async def handle_call(self, request: Any, reply: Reply[Any]) -> None:
        reply.send(id(self))

    async def handle_cast(self, message: Any) -> None:
        raise message

    async def terminate(self, reason: Any) -> None:
        await trio.sleep(self.cleanup)
        self.log.append(("terminate", self.registry.whereis(self.ref.id)))


# --- N1 ---------------------------------------------------------------------------------------------------------------


async def test_N1_M2_a_second_holder_is_refused_with_the_first_and_the_supervisor_lives(lab: Any) -> None:
    registry = Registry()
    first, second = ActorRef("db", registry=registry), ActorRef("db", registry=registry)
    elsewhere = lab.supervisor([Named.child_spec(first, lab.log, registry)], name="elsewhere")
    async with elsewhere, lab.running(lab.children("a"), max_restarts=0) as supervisor:
        with pytest.raises(NameTaken, match="'db' is taken") as caught:
            await supervisor.start_child(Named.child_spec(second, lab.log, registry))
        assert (caught.value.name, caught.value.holder) == ("db", first)
        assert [child.id for child in supervisor.which_children()] == ["a"]
        assert supervisor.restarts_used() == 0
        assert registry.whereis("db") is first
        assert await first.call(Who())
        assert not second.running
    assert len(registry) == 0


async def test_M2_restart_child_passes_it_on_too_and_a_static_start_fails_with_it(lab: Any) -> None:
    registry = Registry()
    ref = ActorRef("db", registry=registry)
    spec = Named.child_spec(ref, lab.log, registry)
    async with lab.running([spec]) as supervisor:
        await supervisor.terminate_child("db")
        with registry.register("db", "somebody else"):
            with pytest.raises(NameTaken) as caught:
                await supervisor.restart_child("db")
            assert caught.value.holder == "somebody else"
            assert supervisor.which_children()[0].state is ChildState.STOPPED
            other = ActorRef("db", registry=registry)
            with pytest.raises(ChildStartError) as failed:
                await lab.supervisor([Named.child_spec(other, lab.log, registry)], name="other").run()
            assert isinstance(failed.value.__cause__, NameTaken)
        assert await supervisor.restart_child("db") is ref


async def test_N1_two_registries_never_clash(lab: Any) -> None:
    registries = [Registry(), Registry()]
    refs = [ActorRef("db", registry=registry) for registry in registries]
    trees = [
        lab.supervisor([Named.child_spec(ref, lab.log, registry)])
        for ref, registry in zip(refs, registries, strict=True)
    ]
    async with trees[0], trees[1]:
        assert [registry.whereis("db") for registry in registries] == refs
        assert await refs[0].call(Who()) != await refs[1].call(Who())


async def test_N1_anything_may_hold_a_name_for_the_length_of_a_block(lab: Any) -> None:
    registry = Registry()
    with assert_no_checkpoints(), registry.register(("pool", 1), "the pool"):
        assert ("pool", 1) in registry
        assert registry.whereis(("pool", 1)) == "the pool"
        assert registry.names() == (("pool", 1),)
        with pytest.raises(NameTaken), registry.register(("pool", 1), "another"):
            pass
        assert registry.whereis(("pool", 1)) == "the pool"  # which the failed attempt did not take away
    assert len(registry) == 0
    assert registry.whereis(("pool", 1)) is None


def test_N1_what_is_no_registry_is_refused() -> None:
    with pytest.raises(InvalidOption, match="registry"):
        ActorRef("x", registry={})  # type: ignore[arg-type]


# --- N2 ---------------------------------------------------------------------------------------------------------------


async def test_N2_C12_the_name_is_held_from_before_init_to_after_terminate_and_is_free_between_two_runs(
    lab: Any, settle: Any
) -> None:
    """Elixir Registry: clean up registry on process crash."""
    registry = Registry()
    ref = ActorRef("db", registry=registry)
    free: list[bool] = []

    def look(event: Any) -> None:
        lab.events.append(event)
        if type(event).__name__ in ("ChildExited", "RestartScheduled"):
            free.append("db" not in registry)  # no stale holder when the supervisor learns of the crash

    supervisor = lab.supervisor([Named.child_spec(ref, lab.log, registry)])
    supervisor.on_event = look
    async with supervisor:
        ref.cast_nowait(ValueError("crash"))
        await settle()
        assert lab.log == [("init", ref), ("terminate", ref), ("init", ref)]
        assert free == [True, True]
        assert registry.whereis("db") is ref
    assert registry.whereis("db") is None


async def test_N2_after_a_failed_init_the_name_is_free(lab: Any) -> None:
    registry = Registry()

    class Sickly(Actor):
        async def init(self) -> None:
            assert registry.whereis("db") is self.ref
            raise ValueError("init")

    with pytest.raises(ChildStartError, match="ValueError"):
        await lab.supervisor([Sickly.child_spec(ActorRef("db", registry=registry))]).run()
    assert "db" not in registry


async def test_N2_a_plain_child_that_registers_itself_is_free_again_before_its_next_run(lab: Any, settle: Any) -> None:
    registry = Registry()

    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        with registry.register("service", object()):
            task_status.started()
            await trio.sleep(1)
            raise ValueError

    async with lab.running([ChildSpec("s", service)], max_restarts=10):
        await trio.sleep(2.5)
        assert "service" in registry
        assert lab.story("s").count("ChildRestarted") == 2
    assert "service" not in registry


async def test_N2_one_that_lingers_in_terminate_keeps_its_name(lab: Any, settle: Any) -> None:
    registry = Registry()
    ref = ActorRef("db", registry=registry)
    async with lab.running([Named.child_spec(ref, lab.log, registry, 0.0, 3.0)]) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.terminate_child, "db")
            await trio.sleep(1)
            assert registry.whereis("db") is ref
            with pytest.raises(ActorNotRunning):
                await ref.call(Who())
        assert registry.whereis("db") is None
        assert trio.current_time() == 3


# --- N3 ---------------------------------------------------------------------------------------------------------------


async def test_N3_in_the_gap_nobody_is_found_calls_fail_at_once_and_a_caller_may_wait(lab: Any, settle: Any) -> None:
    registry = Registry()
    ref = ActorRef("db", registry=registry)
    spec = Named.child_spec(ref, lab.log, registry, 1.0)
    async with lab.running([spec], backoff=SLOW, max_seconds=100) as supervisor:
        before = await ref.call(Who())
        supervisor.exit_child("db")
        await settle()
        start = trio.current_time()
        assert registry.whereis("db") is None
        with pytest.raises(ActorNotRunning):
            await ref.call(Who())
        with pytest.raises(ActorNotRunning):
            supervisor.whereis("db")
        assert ref.cast_nowait("x") is False
        assert trio.current_time() == start
        with pytest.raises(CallTimeout, match="'db' did not run within 2 s"):
            await ref.wait_running(2)
        assert trio.current_time() == start + 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.wait_running)
            nursery.start_soon(ref.wait_running, 1000)
        assert trio.current_time() == start + 6  # 5 s of backoff and 1 s of init
        assert await ref.call(Who()) != before
        with assert_checkpoints():
            await ref.wait_running(0.0001)


async def test_N3_who_waits_when_nobody_comes_waits_until_cancelled_or_its_timeout(lab: Any) -> None:
    ref = ActorRef("never")
    with trio.move_on_after(10) as scope:
        await ref.wait_running()
    assert scope.cancelled_caught
    for timeout in (-1, math.nan, "5"):
        with pytest.raises(InvalidOption, match="timeout"):
            await ref.wait_running(timeout)  # type: ignore[arg-type]


async def test_N3_an_init_that_fails_is_no_arrival(lab: Any) -> None:
    registry = Registry()
    ref = ActorRef("db", registry=registry)

    class Late(Named):
        async def init(self) -> None:
            type(self).runs += 1
            await trio.sleep(1)
            if type(self).runs == 2:
                raise ValueError("once")

    spec = Late.child_spec(ref, lab.log, registry)
    async with lab.running([spec], backoff=SLOW, max_seconds=100) as supervisor:
        supervisor.exit_child("db")
        await trio.sleep(0.5)
        await ref.wait_running()
        assert Late.runs == 3
        assert trio.current_time() == 1 + (5 + 1) + (10 + 1)
