"""Cases ported from the suites of others that stand in no other file, and rows of which they show one more side."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import pytest
import trio

from layr8_actors.errors import ActorNotRunning, CallingSelf, CallTimeout, ChildNotFound, ChildStartError
from layr8_actors.otp import Actor, ActorRef, Backoff, Call, ChildSpec, Reply, Restart, Strategy
from layr8_actors.otp.events import ChildStartFailed, RestartScheduled


async def test_C4_F2_rest_for_one_other_child_fails_restart(lab: Any, settle: Any) -> None:
    """The first dies and comes back; the second one's start then fails: the first is not touched again."""
    async with lab.running(lab.children("abc"), strategy=Strategy.REST_FOR_ONE, max_restarts=2) as supervisor:
        first = supervisor.pid("a")
        lab.fail_starts["b"] = 1
        lab.crash("a")
        assert not (await first.wait_exit()).clean
        await settle()
        assert lab.starts == {"a": 2, "b": 3, "c": 2}
        assert [child.restarts for child in supervisor.which_children()] == [1, 1, 1]
        assert [event.id for event in lab.of(ChildStartFailed)] == ["b"]
        assert [(event.id, event.group) for event in lab.of(RestartScheduled)] == [
            ("a", ("a", "b", "c")),
            ("b", ("b", "c")),
        ]
        assert supervisor.pid("a").alive
        assert supervisor.pid("a").incarnation == 2


class Argument:
    pass


@pytest.mark.parametrize("how", ["finish", "crash", "terminate", "group"])
async def test_C9_R3_S5_do_not_save_child_specs_for_temporary_children(lab: Any, settle: Any, how: str) -> None:
    async def service(argument: Argument, *, task_status: trio.TaskStatus[None]) -> None:
        await lab.service("t", task_status=task_status)

    argument = Argument()
    kept = weakref.ref(argument)
    async with lab.running(lab.children("a"), strategy=Strategy.ONE_FOR_ALL) as supervisor:
        await supervisor.start_child(ChildSpec("t", partial(service, argument), restart=Restart.TEMPORARY))
        del argument
        if how == "finish":
            lab.end("t")
        elif how == "crash":
            lab.crash("t")
        elif how == "terminate":
            await supervisor.terminate_child("t")
        else:
            lab.crash("a")
        await settle()
        assert [child.id for child in supervisor.which_children()] == ["a"]
        for request in (supervisor.restart_child, supervisor.delete_child, supervisor.terminate_child):
            with pytest.raises(ChildNotFound):
                await request("t")
        lab.events.clear()  # a crash's exception knows the frames that it came through
        lab._orders.clear()
        gc.collect()
        assert kept() is None
        assert await supervisor.start_child(lab.child("t")) == "t2"  # the id is free


async def test_C10_R6_child_unlink(lab: Any, settle: Any) -> None:
    """A child that ends on its own terms while it is asked to, and leaves work to others, holds up no stop.

    OTP's unlinks itself from its supervisor; here it hands its work to a nursery outside and is gone.
    """
    async with trio.open_nursery() as outside:

        async def deserter(*, task_status: trio.TaskStatus[None]) -> None:
            outside.start_soon(trio.sleep, 50)
            task_status.started()
            await trio.sleep_forever()

        async with lab.running([lab.child("a"), ChildSpec("deserter", deserter)]) as supervisor:
            await settle()
            await supervisor.stop()
            assert trio.current_time() == 0
        assert len(outside.child_tasks) == 1


class Ask(Call[str]):
    pass


class Oracle(Actor):
    async def handle_call(self, request: Any, reply: Reply[str]) -> None:
        await trio.sleep(10)

    async def handle_cast(self, message: Any) -> None:
        await self.ref.call(Ask())


async def test_C7_each_failure_of_a_call_names_the_actor_and_the_request(lab: Any, settle: Any) -> None:
    async with lab.running([Oracle.child_spec("oracle", restart=Restart.TEMPORARY)]) as supervisor:
        ref = supervisor.whereis("oracle")
        with pytest.raises(CallTimeout, match="'oracle' did not answer Ask within 1 s"):
            await ref.call(Ask(), timeout=1)
        with pytest.raises(ActorNotRunning, match="'nobody' is not running; it was asked Ask"):
            await ActorRef("nobody").call(Ask())
        await trio.sleep(10)
        pid = ref.pid
        ref.cast_nowait("call yourself")
        error = (await pid.wait_exit()).error
        assert isinstance(error, CallingSelf)
        assert str(error) == "actor 'oracle' called itself with Ask"
        with pytest.raises(ActorNotRunning, match="'oracle' is not running"):
            await ref.call(Ask())


async def test_B4_a_failure_deep_in_a_tree_reaches_whoever_starts_the_root(lab: Any) -> None:
    lab.fail_starts["y"] = 1
    inner = lab.supervisor(lab.children("xyz"), name="inner")
    outer = lab.supervisor([lab.child("a"), inner.child_spec(), lab.child("b")], name="outer")
    async with trio.open_nursery() as nursery:
        with pytest.raises(ChildStartError) as caught:
            await nursery.start(outer.run)
    assert (caught.value.supervisor, caught.value.child_id) == ("outer", "inner")
    below = caught.value.__cause__
    assert isinstance(below, ChildStartError)
    assert (below.supervisor, below.child_id) == ("outer/inner", "y")
    assert isinstance(below.__cause__, lab.Crash)
    assert lab.log == ["start a", "start x", "start y", "stop y", "stop x", "stop a"]


async def test_R6_the_exit_of_an_earlier_run_does_not_touch_the_next(lab: Any, settle: Any) -> None:
    lab.start_delay["slow"] = 5
    async with lab.running(lab.children("ab"), max_restarts=0) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.start_child, lab.child("slow"))  # keeps the supervisor busy
            await settle()
            nursery.start_soon(supervisor.terminate_child, "a")
            await settle()
            nursery.start_soon(supervisor.restart_child, "a")
            await settle()
            lab.crash("a")  # its notice comes behind those two
        await settle()
        assert supervisor.whereis("a") == "a2"
        assert supervisor.restarts_used() == 0


async def test_M3_a_static_supervisor_knows_no_handles(lab: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        for handle in (supervisor.pid("a"), supervisor.whereis("a")):
            with pytest.raises(ChildNotFound):
                await supervisor.terminate_child(handle)
        assert supervisor.whereis("a") == "a1"


async def test_S6_what_a_start_says_is_passed_on_and_not_looked_into(lab: Any) -> None:
    async def service(value: object, *, task_status: trio.TaskStatus[object]) -> None:
        task_status.started(value)
        await trio.sleep_forever()

    values: list[object] = [None, (1, "info"), [], ValueError("only a value")]
    async with lab.running([]) as supervisor:
        for number, value in enumerate(values):
            spec = ChildSpec(f"s{number}", partial(service, value))
            assert await supervisor.start_child(spec) is value
            assert supervisor.whereis(spec.id) is value
        assert supervisor.count_children().active == len(values)


async def test_T2_D3_each_sibling_of_a_group_stops_by_its_own_rule(lab: Any) -> None:
    log: list[str] = []

    class Slow(Actor):
        async def terminate(self, reason: Any) -> None:
            log.append(f"terminate {self.ref.id} at {trio.current_time():g}")
            await trio.sleep(10)

    specs = [
        lab.child("pivot"),
        Slow.child_spec("brutal", shutdown=0.0),
        Slow.child_spec("short", shutdown=1.0),
        Slow.child_spec("long", shutdown=4.0),
    ]
    async with lab.running(specs, strategy=Strategy.ONE_FOR_ALL, max_restarts=1) as supervisor:
        lab.crash("pivot")
        await trio.sleep(6)
        assert log == ["terminate long at 0", "terminate short at 4"]
        assert [child.started_at for child in supervisor.which_children()] == [5] * 4


async def test_K7_F4_a_stop_during_a_wait_is_immediate(lab: Any) -> None:
    backoff = Backoff(initial=100, maximum=100, jitter=0)
    async with lab.running(lab.children("ab"), backoff=backoff, give_up_never=True) as supervisor:
        lab.crash("a")
        await trio.sleep(1)
        await supervisor.stop()
        assert trio.current_time() == 1
        await trio.sleep(1000)
        assert lab.starts == {"a": 1, "b": 1}
