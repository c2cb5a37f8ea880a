"""One branch of a tree is caught in a crash loop, and the other one does not even notice.

The feed reads a source that is broken for a while. Its own supervisor restarts it at once, twice, then gives up: that
is how trouble climbs. The supervisor above restarts the branch, as a new one, after a pause that grows; meanwhile the
other branch works on. The program ends when its ``main`` child does, or by Ctrl-C: both children are significant.

It prints, where ``...`` stands for the rest of a long line:

    app  one_for_one  restarts 0/5 in 60 s
    ├─ web      running     incarnation 1  restarts 0  one_for_one 0/3 in 5 s
    │  └─ clock  running     incarnation 1  restarts 0
    ├─ feed     running     incarnation 1  restarts 0  one_for_one 0/2 in 5 s
    │  └─ reader  running     incarnation 1  restarts 0
    ├─ signals  running     incarnation 1  restarts 0
    └─ main     running     incarnation 1  restarts 0
    app/feed gave up: reader needed more than 2 restarts, the source is broken
    app starts feed again in 0.25 s
    app/feed gave up: reader needed more than 2 restarts, the source is broken
    app starts feed again in 0.50 s
    the source is whole again
    app  one_for_one  restarts 2/5 in 60 s
    ├─ web      running     incarnation 1  restarts 0  one_for_one 0/3 in 5 s
    │  └─ clock  running     incarnation 1  restarts 0
    ├─ feed     running     incarnation 3  restarts 2  one_for_one 0/2 in 5 s  last exit error: RestartLimitExceeded(...
    │  └─ reader  running     incarnation 1  restarts 0
    ├─ signals  running     incarnation 1  restarts 0
    └─ main     running     incarnation 1  restarts 0
    the end
"""

import signal
from functools import partial

import trio

from layr8_actors.otp import AutoShutdown, Backoff, ChildSpec, Restart, Supervisor, events, format_tree
from layr8_actors.telemetry import Event


class Source:
    """What the feed reads; it outlives those who trip over it."""

    def __init__(self) -> None:
        self.broken = False

    async def read(self) -> None:
        await trio.sleep(0.01)
        if self.broken:
            raise OSError("the source is broken")


async def read_on(source: Source, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    while True:
        await source.read()


async def tick(ticks: list[float], *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    while True:
        ticks.append(trio.current_time())
        await trio.sleep(0.05)


async def wait_for_signal(*, task_status: trio.TaskStatus[None]) -> None:
    """Return at the first SIGINT or SIGTERM: the end of a significant child is the end of the tree, in order."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            print(f"{signal.Signals(number).name}: stopping")
            return


def tell(event: Event) -> None:
    """What is printed of what the supervisors do; without ``on_event`` all of it would be logged."""
    match event:
        case events.LimitReached():
            print(f"{event.path} gave up: {event.id} needed more than {event.max_restarts} restarts, {event.error}")
        case events.RestartScheduled(path="app"):
            print(f"{event.path} starts {event.id} again in {event.delay:.2f} s")
        case _:
            pass


async def main() -> None:
    source = Source()

    async def tell_the_story(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(0.2)
        print(format_tree(app))
        source.broken = True
        await trio.sleep(0.6)
        source.broken = False
        print("the source is whole again")
        await trio.sleep(0.7)
        print(format_tree(app))

    web = Supervisor([ChildSpec("clock", partial(tick, []))], name="web")
    # A restart at once helps against what has passed already; two of them within 5 s, and it is somebody else's turn.
    feed = Supervisor([ChildSpec("reader", partial(read_on, source))], max_restarts=2, name="feed")
    app = Supervisor(
        [
            web.child_spec(),
            feed.child_spec(),
            ChildSpec("signals", wait_for_signal, restart=Restart.TRANSIENT, significant=True),
            ChildSpec("main", tell_the_story, restart=Restart.TRANSIENT, significant=True),
        ],
        # Five restarts a minute after 0.25 s, 0.5 s, 1 s and so on; a branch that ran for 30 s begins at 0.25 s again.
        backoff=Backoff(initial=0.25, maximum=8.0, jitter=0),
        max_restarts=5,
        max_seconds=60.0,
        auto_shutdown=AutoShutdown.ANY_SIGNIFICANT,
        name="app",
        on_event=tell,
    )
    await app.run()
    print("the end")


if __name__ == "__main__":
    trio.run(main)
