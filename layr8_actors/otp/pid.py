"""The identity of one run of a child or an actor, which outlives that run: what ends can be waited for (OTP: pid)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from .exit_reason import ExitReason

__all__ = ("Pid",)


class Pid:
    """One run of a child or an actor (OTP: pid); a restart is a new identity, so it gets a new one.

    Taken from ``supervisor.pid(id)``, from ``ref.pid``, or returned by :meth:`DynamicSupervisor.start_child`. Holding
    one keeps nothing alive but how the run ended.

    Args:
        path: the names from the root supervisor down to the child; of an actor without supervisor, its id alone.
        incarnation: which run of the child, counted from 1.
        handle: what the run reported as started.
        owner: an object that only the supervisor run which it belongs to has; for the library alone.
    """

    __slots__ = ("_gone", "_watchers", "handle", "incarnation", "owner", "path", "reason")

    def __init__(self, path: tuple[str, ...], incarnation: int, handle: Any, owner: object = None) -> None:
        self.path = path
        self.incarnation = incarnation
        self.handle = handle
        """What the run reported with ``started``; ``None`` before that."""
        self.owner = owner
        self.reason: ExitReason | None = None
        """How the run ended; ``None`` while it lives."""
        self._gone: trio.Event | None = None
        self._watchers: dict[object, Callable[[ExitReason], None]] = {}

    @property
    def id(self) -> str:
        """The child's id within its supervisor."""
        return self.path[-1]

    @property
    def alive(self) -> bool:
        """True until the run has ended, its cleanup included."""
        return self.reason is None

    def __repr__(self) -> str:
        return f"<Pid {'/'.join(self.path)} #{self.incarnation} {'alive' if self.reason is None else self.reason}>"

    async def wait_exit(self) -> ExitReason:
        """Wait until this run is over and return how it ended, at once where it is (OTP: a monitor's DOWN).

        Always a checkpoint; any number of tasks may wait, and cancelling one changes nothing. A task of the run itself
        would wait for its own end: it is cancelled with the run.
        """
        if self.reason is None:
            if self._gone is None:
                self._gone = trio.Event()
            await self._gone.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.reason is not None
        return self.reason

    def watch(self, token: object, callback: Callable[[ExitReason], None]) -> None:
        """For the library alone: call ``callback`` in the task of the run when it ends; it must not raise."""
        self._watchers[token] = callback

    def unwatch(self, token: object) -> None:
        """For the library alone: what :meth:`watch` asked for is not wanted any more; idempotent."""
        self._watchers.pop(token, None)

    def ended(self, reason: ExitReason) -> None:
        """For the library alone: the run is over."""
        self.reason = reason
        if self._gone is not None:
            self._gone.set()
        watchers, self._watchers = self._watchers, {}
        for callback in watchers.values():
            callback(reason)
