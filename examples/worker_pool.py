"""A pool of workers that come and go with the work: a bounded queue, a child for each job, retries, a clean end.

Each job is a child of a ``DynamicSupervisor``, so that its crash is nobody else's. It is a temporary child, because
here the dispatcher decides on a second try: it waits for the end of the run by its pid, and looks at the reason. The
dispatcher is a significant child: when it has seen the last job through, the tree ends, and with it the program.

It prints:

    pears: done at try 1
    apples: try 1 failed, ValueError('a wasp')
    plums: done at try 1
    apples: done at try 2
    stones: try 1 failed, ValueError('no juice')
    quinces: done at try 1
    stones: try 2 failed, ValueError('no juice')
    stones: try 3 failed, ValueError('no juice')
    stones: given up
    pressed: apples, pears, plums, quinces
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import trio

from layr8_actors.otp import AutoShutdown, ChildSpec, DynamicSupervisor, Restart, Strategy, Supervisor
from layr8_actors.telemetry import Event

WORKERS = 2
TRIES = 3


@dataclass
class Job:
    """Fruit to press; ``failures`` is what goes wrong with it, try by try."""

    fruit: str
    seconds: float
    failures: tuple[str, ...] = ()


JOBS = [
    Job("apples", 0.3, ("a wasp",)),
    Job("pears", 0.2),
    Job("plums", 0.3),
    Job("stones", 0.2, ("no juice",) * TRIES),
    Job("quinces", 0.2),
]


async def press(job: Job, number: int, pressed: list[str], *, task_status: trio.TaskStatus[None]) -> None:
    """One try, in a child of its own."""
    task_status.started()
    await trio.sleep(job.seconds)
    if number <= len(job.failures):
        raise ValueError(job.failures[number - 1])
    pressed.append(job.fruit)


async def see_through(pool: DynamicSupervisor, job: Job, pressed: list[str]) -> None:
    """Try a job until it is done, a few times at most."""
    for number in range(1, TRIES + 1):
        start = partial(press, job, number, pressed)
        pid = await pool.start_child(ChildSpec(job.fruit, start, restart=Restart.TEMPORARY))
        assert pid is not None  # it would be None for a child that raised Ignore
        reason = await pid.wait_exit()
        if reason.clean:
            print(f"{job.fruit}: done at try {number}")
            return
        print(f"{job.fruit}: try {number} failed, {reason.error!r}")
    print(f"{job.fruit}: given up")


async def dispatch(
    pool: DynamicSupervisor, jobs: AsyncIterator[Job], pressed: list[str], *, task_status: trio.TaskStatus[None]
) -> None:
    """Take a job from the queue whenever a worker is free, until the queue ends."""
    free = trio.Semaphore(WORKERS)

    async def one(job: Job) -> None:
        await see_through(pool, job, pressed)
        free.release()

    task_status.started()
    async with trio.open_nursery() as nursery:
        await free.acquire()
        async for job in jobs:
            nursery.start_soon(one, job)
            await free.acquire()


def be_silent(event: Event) -> None:
    """A failed job is told by ``see_through``; a real program leaves ``on_event`` out and has all of it logged."""


async def main() -> None:
    orders, jobs = trio.open_memory_channel[Job](max_buffer_size=2)  # who orders waits where the pool falls behind
    pressed: list[str] = []
    pool = DynamicSupervisor(max_children=WORKERS, name="pool", on_event=be_silent)
    dispatcher = partial(dispatch, pool, jobs, pressed)
    press_house = Supervisor(
        # The pool comes first, because the dispatcher needs it; on the way out the dispatcher is the first to stop.
        [pool.child_spec(), ChildSpec("dispatcher", dispatcher, restart=Restart.TRANSIENT, significant=True)],
        strategy=Strategy.REST_FOR_ONE,
        auto_shutdown=AutoShutdown.ANY_SIGNIFICANT,
        name="press house",
        on_event=be_silent,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(press_house.run)
        async with orders:
            for job in JOBS:
                await orders.send(job)
    print(f"pressed: {', '.join(sorted(pressed))}")


if __name__ == "__main__":
    trio.run(main)
