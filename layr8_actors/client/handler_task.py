"""A task that handlers run in, one after the other, each under its own deadline and with fresh context variables.

A handler that does not wait takes neither a task nor a cancel scope: those of the one before it are as good as new. One
that has waited had the task to itself, since another one went on with the messages, and the task ends with it: whatever
it holds in the task's name, such as a lock, is nobody else's.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from ..errors import InvalidOption
from .handlers import Pass
from .inbound import Inbound, Status
from .message import Message
from .record import handling

if TYPE_CHECKING:
    from .dispatch import Dispatcher
    from .handlers import Handler

__all__ = ("Answer", "HandlerTask", "answer_of")

Answer: TypeAlias = dict[str, Any] | Pass | None

MESSAGES_PER_CHECKPOINT: Final = 32
"""Handlers that do not wait, between two checkpoints of the task they run in: as many as Inbox hands over in a turn."""

IDLE: Final = 30.0
"""Seconds that a task waits for a message, where its last handler had no deadline: else that one ends it. Ours, as long
as a handler may take by default."""

_TOLERANCE: Final = 0.001
"""Seconds by which a deadline may be early: what the handlers before this one have taken in the same turn. Ours, the
resolution of epoll."""


class HandlerTask:
    """What one task of the pool does.

    Args:
        dispatcher: whose messages it handles.
    """

    __slots__ = ("_at", "_dispatcher", "_ends", "_next", "_variables")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._variables: contextvars.Context | None = None
        self._next: Inbound | None = None  # taken, and not begun
        self._at: Inbound | None = None  # whose handler runs, or has just done so
        self._ends = False

    async def run(self) -> None:
        """Handle messages while there are any, then wait to be called again; end where enough tasks wait."""
        dispatcher = self._dispatcher
        dispatcher.pool.arrive()
        self._variables = contextvars.copy_context()
        try:
            while not self._ends:
                rest: Callable[[], Awaitable[None]] | None = None
                scope = trio.CancelScope()
                try:
                    with scope:
                        rest = await self._run_within(scope)
                except Exception as error:
                    if self._at is None:
                        raise
                    self._ends = True
                    rest = functools.partial(dispatcher.failed, self._at, error)
                else:
                    if scope.cancelled_caught and self._at is not None:
                        self._ends = True
                        rest = functools.partial(dispatcher.cut_off, self._at)
                    elif scope.cancelled_caught and self._next is None:
                        break  # nothing has come for so long; or only now, and then another task is called below
                if self._at is not None:
                    self._at.scope = None
                    self._at = None
                # Out of the scope, whose deadline is that of the handler alone.
                if rest is not None:
                    await rest()
        finally:
            dispatcher.pool.leave()
        dispatcher.serve()  # for this task takes no more

    async def _run_within(self, scope: trio.CancelScope) -> Callable[[], Awaitable[None]] | None:
        """Handle messages as long as the scope is good; return what is to be done outside of it, if anything is."""
        dispatcher, pool = self._dispatcher, self._dispatcher.pool
        record = dispatcher.record
        # Trio does not tell officially whether a handler has left a scope of its own open. Where it cannot be seen,
        # each handler gets a scope of its own, to find out by leaving it.
        task = trio.lowlevel.current_task()
        status = getattr(task, "_cancel_status", None)
        since_checkpoint = 0
        while not self._ends:
            inbound = self._next
            if inbound is None:
                if since_checkpoint >= MESSAGES_PER_CHECKPOINT and dispatcher.ready:
                    since_checkpoint = 0
                    await trio.lowlevel.checkpoint()
                inbound = self._next = dispatcher.take()
                if inbound is None:
                    if pool.crowded:
                        self._ends = True
                        break
                    if scope.deadline == math.inf:
                        scope.deadline = trio.current_time() + IDLE
                    await pool.park()
                    since_checkpoint = 0
                    continue
                since_checkpoint += 1
                ready = dispatcher.ready
                if ready:  # should this one wait
                    pool.call(min(ready, dispatcher.wanted(inbound)))
            handler = inbound.handler
            assert handler is not None
            first = (handler.accept_first or not inbound.replies) and not handler.stores
            if first and not record.settle_now(inbound, Status.HANDLED):
                return functools.partial(record.settle, inbound, Status.HANDLED)
            deadline = trio.current_time() + handler.timeout
            if not 0 <= deadline - scope.deadline <= _TOLERANCE:
                scope.deadline = deadline
            if inbound.interrupted:
                scope.cancel(reason="the client ends")
            elif scope.cancel_called:
                break  # used up
            self._next, self._at, inbound.scope = None, inbound, scope
            token = handling.set(inbound)
            turn = _turn_of(task)
            try:
                answer = await answer_of(handler, inbound.message, record.did)
            except Exception as error:
                self._left(inbound, token, turn is None or _turn_of(task) != turn)
                return functools.partial(dispatcher.failed, inbound, error)
            self._left(inbound, token, turn is None or _turn_of(task) != turn)
            if status is None or getattr(task, "_cancel_status", None) is not status:
                return functools.partial(dispatcher.conclude, inbound, answer)
            if not dispatcher.conclude_now(inbound, answer):
                return functools.partial(dispatcher.conclude, inbound, answer)
            self._at = None
        return None

    def _left(self, inbound: Inbound, token: contextvars.Token[Inbound | None], has_waited: bool) -> None:
        """A handler is done; what it has left in the context variables shall be unknown to the next one."""
        inbound.scope = None
        self._dispatcher.note(inbound, has_waited)
        handling.reset(token)
        before, now = self._variables, contextvars.copy_context()
        assert before is not None
        # By identity, for the values are anybody's, and what their == does too.
        self._ends = (
            has_waited or len(now) != len(before) or any(now[variable] is not before.get(variable) for variable in now)
        )


def _turn_of(task: trio.lowlevel.Task) -> object:
    """What differs once the task has waited; ``None`` where Trio, which does not say so officially, hides it."""
    return getattr(task, "_schedule_points", None)


async def answer_of(handler: Handler, message: Message, did: str) -> Answer:
    """Return what a handler said; an answer as it goes out.

    Args:
        handler: whose function is called.
        message: with what.
        did: who answers, where the answer does not say.

    Raises:
        Exception: whatever the handler raises.
        InvalidOption: what it returned is no answer.
    """
    answer = handler.function(message)
    if inspect.isawaitable(answer):
        answer = await answer
    if isinstance(answer, Message):
        to = answer.to or ((message.from_,) if message.from_ else ())
        if not to:
            raise InvalidOption("the answer's to", to, "a DID, where the message has no sender")
        return answer.written(did, message.thread, to, message.trace_context)
    if answer is None or isinstance(answer, Pass):
        return answer
    raise InvalidOption("the handler's answer", answer, "a Message, None, or PASS")
