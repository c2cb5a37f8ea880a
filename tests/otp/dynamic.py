"""What the tests of dynamic supervisors share."""

from __future__ import annotations

from layr8_actors.otp import Backoff, ChildSpec, DynamicSupervisor, Pid

__all__ = ("PLAIN", "ids", "start")

PLAIN = Backoff(initial=1, jitter=0)


def ids(supervisor: DynamicSupervisor) -> list[str]:
    return [child.id for child in supervisor.which_children()]


async def start(supervisor: DynamicSupervisor, spec: ChildSpec) -> Pid:
    pid = await supervisor.start_child(spec)
    assert pid is not None
    return pid
