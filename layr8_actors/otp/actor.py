"""What a user writes: an actor is a class whose methods run one at a time, in a task of its own (OTP: gen_server)."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar

import trio

from ..errors import InvalidOption, SupervisionError, UnknownRequest
from .actor_process import ActorProcess
from .actor_ref import ActorRef
from .actor_timers import Timer
from .call import Reply
from .child_spec import START_TIMEOUT, ChildSpec, Restart
from .exit_reason import ExitReason
from .incarnation import Incarnation
from .monitor import Down, Monitor
from .pid import Pid
from .validation import checked_flag, checked_seconds

__all__ = ("Actor", "Continue")

logger = logging.getLogger("layr8_actors.otp")


@dataclass(frozen=True, slots=True)
class Continue:
    """Returned from ``init``: run ``handle_continue(term)`` after start was reported, before any message (OTP: same).

    Args:
        term: handed on.
    """

    term: object = None


class Actor:
    """The base of actors; every method is optional, and they run one at a time.

    A raised exception is a crash: ``terminate`` runs, the callers of this incarnation get
    :class:`~layr8_actors.errors.ActorDied`, the supervisor decides. Raise :class:`~layr8_actors.otp.Shutdown` to end
    cleanly. No state outlives an incarnation but what the constructor's arguments refer to.
    """

    ref: ActorRef
    """The actor's own handle; set before ``init``."""

    helpers: ClassVar[bool] = True
    """Whether the actor may start helper tasks; a class that never does says False and saves the nursery's memory."""

    waits: ClassVar[bool] = True
    """Whether a method may wait, ``terminate`` aside; a class that says False promises that none ever does.

    Its incarnations need no cancel scope, which saves memory: nothing of them can be cancelled but their helper tasks,
    which :meth:`start_soon` starts, and for which there is a nursery only while there are some.
    """

    hibernate_after: ClassVar[float] = math.inf
    """Seconds without a message after which an actor gives its task up until there is something to do again.

    (OTP: ``hibernate_after``.) For a class that says ``waits = False``. An actor that hibernates takes 1.3 KiB in place
    of 2.7, and to wake it takes a new task, 8 us. Its deadline and its timers hold as ever: the supervisor rings for
    them. It begins without a task, and with 0 it has one only while there is something to do; ``math.inf``, the
    default, keeps it. Among Trio's tasks a debugger finds no actor that hibernates; ``format_tree`` shows it as ever.
    """

    drain: ClassVar[bool] = False
    """Whether an asked stop lets the actor finish what it is at and what is queued, as far as its grace goes.

    By default a stop overtakes the mailbox, and the running handler is cancelled. Calls are refused from then on. One
    that uses up its grace is killed, so its ``terminate`` does not run (OTP: a gen_server whose ``shutdown`` runs out).
    """

    otp_process: ActorProcess | None = None
    """What runs this actor; for the library alone. Set before ``init``."""

    otp_overrides_terminate: ClassVar[bool] = False

    _deadline: float = math.inf

    @property
    def nursery(self) -> trio.Nursery:
        """For helper tasks of this incarnation, from ``init`` on; one that crashes is a crash of the actor.

        Raises:
            SupervisionError: there is none: the class says ``helpers = False``, or ``waits = False`` and no helper task
                runs, or the actor does not run yet.
        """
        return _process_of(self).nursery

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a helper task of this incarnation; one that crashes is a crash of the actor. No checkpoint.

        Args:
            async_fn: what it runs.
            args: for that.

        Raises:
            SupervisionError: the class says ``helpers = False``, or the actor does not run yet, or has ended.
        """
        _process_of(self).start_soon(async_fn, args)

    @property
    def deadline(self) -> float:
        """When ``handle_timeout`` is due, in seconds of ``trio.current_time()``; ``math.inf``, the default, for never.

        It may be set at any time, in ``__init__`` too, by the actor's methods and by any task of the same Trio run: an
        actor that waits for messages then waits until the new deadline. It is no checkpoint. Messages leave it as it
        is (OTP: a gen_server's own time-out is called off by any message; this one is like gen_statem's generic
        ``{timeout, Name}``). It costs no task, and it dies with the incarnation.

        Raises:
            InvalidOption: it is set to NaN, or to what is no number.
        """
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or math.isnan(deadline):
            raise InvalidOption("deadline", deadline, "seconds of trio.current_time(), or math.inf")
        self._deadline = deadline
        if self.otp_process is not None:
            self.otp_process.due_changed()

    def send_after(self, delay: float, message: object) -> Timer:
        """Hand ``message`` to ``handle_cast`` after a while (OTP: erlang:send_after/3); no checkpoint.

        It costs no task and no room in the mailbox, and it dies with the incarnation: the next one never sees it. It is
        handled when it is due, or as soon after it as the handler in hand has returned and the messages that were
        queued with it are handled; in front of any later message.

        Args:
            delay: seconds, from now.
            message: any object.

        Returns:
            The timer, which can be cancelled.

        Raises:
            InvalidOption: ``delay`` is no number of seconds >= 0.
            SupervisionError: the actor does not run yet; from ``init`` on it does.
        """
        return _process_of(self).send_after(checked_seconds("delay", delay), message)

    def monitor(self, target: ActorRef | Pid) -> Monitor:
        """Be told, by ``handle_down`` and exactly once, when ``target`` ends (OTP: monitor/2); no checkpoint.

        The message comes after all that ``target`` itself had sent to this actor. It bypasses the mailbox's bound. The
        monitor ends with this incarnation.

        Args:
            target: a run, by its pid; by its ref, the run of now. Where that is over the message comes at once, with
                the reason of the pid; with ``noproc`` where nobody runs.

        Returns:
            The monitor, which can be cancelled (OTP: demonitor with flush).

        Raises:
            SupervisionError: the actor does not run yet; from ``init`` on it does.
        """
        return _process_of(self).monitor(target.id, target.pid if isinstance(target, ActorRef) else target)

    def mark_healthy(self) -> None:
        """Say that this incarnation is healthy from now on; see :func:`mark_healthy`. No checkpoint.

        Raises:
            SupervisionError: the actor does not run yet; from ``init`` on it does.
        """
        _process_of(self).mark_healthy()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for flag in ("helpers", "waits", "drain"):
            # A method of that name would be taken for True.
            checked_flag(flag, getattr(cls, flag))
        checked_seconds("hibernate_after", cls.hibernate_after, allow_infinity=True)
        if cls.waits and cls.hibernate_after != math.inf:
            raise InvalidOption("hibernate_after", cls.hibernate_after, "math.inf where a method may wait")
        cls.otp_overrides_terminate = cls.terminate is not Actor.terminate

    async def init(self) -> Continue | None:
        """Prepare; the actor counts as started when this returns (OTP: init/1).

        Messages sent meanwhile are queued. ``terminate`` does not run when this raises, so clean up here.

        Returns:
            ``Continue(term)`` to go on with handle_continue.

        Raises:
            Ignore: there is nothing to run.
        """
        return None

    async def handle_continue(self, term: Any) -> None:
        """Go on after ``init``, with start already reported (OTP: handle_continue/2); a crash here is a running one.

        Args:
            term: what ``init`` gave.
        """

    async def handle_call(self, request: Any, reply: Reply[Any]) -> None:
        """Answer a request, now or later (OTP: handle_call/3); by default its caller gets an error and the actor lives.

        Args:
            request: what was asked.
            reply: call ``reply.send(value)`` or ``reply.fail(error)``; it may be kept and answered by another task.
        """
        reply.fail(UnknownRequest(f"{type(self).__name__} does not know the request {type(request).__name__}"))

    async def handle_cast(self, message: Any) -> None:
        """Handle a message that wants no answer (OTP: handle_cast/2); by default it is logged and dropped.

        Args:
            message: what was sent.
        """
        logger.warning("%s dropped an unexpected %s", type(self).__name__, type(message).__name__)

    async def handle_timeout(self) -> None:
        """Do what ``deadline`` was set for (OTP: ``{noreply, State, Timeout}``, handle_info(timeout)); else nothing.

        It runs once, at the deadline or as soon after it as the handler in hand has returned and the messages that
        were queued with it are handled; in front of any later message, and never once a stop has begun. ``deadline``
        is ``math.inf`` again by then. A crash here is a crash of the actor.
        """

    async def handle_down(self, down: Down) -> None:
        """Learn that what :meth:`monitor` watched has ended (OTP: handle_info of ``'DOWN'``); by default it is logged.

        Args:
            down: who, and how.
        """
        logger.warning("%s has no handle_down: %s ended (%s)", type(self).__name__, down.id, down.reason)

    async def terminate(self, reason: ExitReason) -> None:
        """Clean up after a crash, a kill by exit_child or an asked stop (OTP: terminate/2).

        It does not run after a failed init or a brutal kill. It is shielded from cancellation, with the grace of the
        child spec as deadline. After an asked stop the helper tasks still run meanwhile; after a crash they are gone.

        Args:
            reason: how the actor ends.
        """

    @classmethod
    def child_spec(
        cls,
        ref: ActorRef | str,
        *args: Any,
        restart: Restart = Restart.PERMANENT,
        shutdown: float | None = None,
        significant: bool = False,
        start_timeout: float = START_TIMEOUT,
        marks_healthy: bool = False,
    ) -> ChildSpec:
        """Describe the actor as a child; its id is that of the ref, its handle is the ref.

        Args:
            ref: the actor's handle, or an id to make one of. For a dynamic supervisor, an id: each child gets a ref
                of its own then.
            args: given to the class for each incarnation anew; what they refer to outlives a crash.
            restart: as in :class:`ChildSpec`.
            shutdown: likewise.
            significant: likewise.
            start_timeout: likewise.
            marks_healthy: likewise.

        Raises:
            InvalidOption: a value that is not allowed.
        """
        handle = ActorRef(ref) if isinstance(ref, str) else ref
        return ChildSpec(
            id=handle.id,
            start=(_StartAnyOf if isinstance(ref, str) else _Start)(cls, args, handle),
            restart=restart,
            shutdown=shutdown,
            significant=significant,
            start_timeout=start_timeout,
            marks_healthy=marks_healthy,
        )


def _process_of(actor: Actor) -> ActorProcess:
    if actor.otp_process is None:
        raise SupervisionError(f"{type(actor).__name__} does not run yet")
    return actor.otp_process


class _Start:
    """Starts an incarnation of an actor; a functools.partial would take three times the memory."""

    __slots__ = ("actor", "args", "ref")

    def __init__(self, actor: type[Actor], args: tuple[Any, ...], ref: ActorRef) -> None:
        self.actor = actor
        self.args = args
        self.ref = ref

    def __call__(self, *, task_status: trio.TaskStatus[ActorRef]) -> Coroutine[Any, Any, None]:
        return ActorProcess(self.actor, self.args, self.ref).run(task_status)

    def otp_process(self, incarnation: Incarnation) -> ActorProcess:
        """Return what runs a supervised incarnation as the whole of its task; begun where no method waits."""
        process = ActorProcess(self.actor, self.args, self.ref)
        if not self.actor.waits:
            process.begin(incarnation)
        return process


class _StartAnyOf(_Start):
    """Likewise, of an actor whose ref nobody has yet, so that a dynamic supervisor may make many."""

    __slots__ = ()

    def for_child(self, child_id: str) -> _Start:
        """Return the start of one of many, for all of its incarnations."""
        return _Start(self.actor, self.args, ActorRef(child_id))
