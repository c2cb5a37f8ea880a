"""Dispatcher: runs handlers, several at once but one of each thread, and lets the node know of each message.

Where the node wants a ``dispatch_reply``, it gets one for each message, exactly once, on the join that the message came
under, and before the answer goes out: a node's router waits for it. Where it wants an ``ack``, that goes before the
handler. What waits, and what is at work, is in the record: after a crash of ours the next incarnation goes on with it.
"""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING, Any, Final

import trio

from ..channel import Reply
from ..errors import ChannelClosed, HandlerTimeout, Layr8Error, LocalProtocolError, ServerReject
from ..otp import Actor, ExitReason
from ..phoenix import Frame, Serializer
from .events import HandlerFailed, HandlerInterrupted, ReplyFailed
from .handler_task import Answer, HandlerTask, answer_of
from .handlers import Pass
from .inbound import Inbound, Status
from .pool import Pool
from .problem_report import CANNOT_PROCESS, describe_failure, is_problem_report, problem_report

if TYPE_CHECKING:
    from .handlers import Handler, HandlerFunction
    from .message import Message
    from .record import Record

__all__ = ("LAST_WORDS", "Dispatcher", "call")

_JSON: Final = Serializer()

LAST_WORDS = 1.0
"""Seconds beyond the handlers' grace in which the node is told of what was cut off; ours, they wait for room alone."""

AT_ONCE: Final = 8
"""Tasks that are called at once for messages behind one whose handler waits. Ours: if they are called in vain, because
theirs do not, that takes as long as to handle one message."""

INTERRUPTED = "the agent stopped before it was done with the message"


class Dispatcher(Actor):
    """The actor whose helper tasks the handlers run in.

    Args:
        record: the client's.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.pool = Pool(self._start_task)
        self._waits: dict[HandlerFunction, bool] = {}  # whether each waited when it was called last
        self._stopping = False
        self._idle: trio.Event | None = None
        # A task is often started by the task of a handler, whose context variables are none of its business.
        self._context = contextvars.copy_context()

    async def init(self) -> None:
        """Go on with what waits."""
        self.record.serve = self.serve
        self.record.ending = False
        self.record.requests.deadlines.start_clock = self._start_clock
        self.serve()

    def _start_clock(self) -> bool:
        if self.nursery.cancel_scope.cancel_called:
            return False
        self._context.run(self.nursery.start_soon, self.record.requests.deadlines.run)
        return True

    @property
    def ready(self) -> int:
        """How many messages may be taken now."""
        return 0 if self._stopping else self.record.ready

    def take(self) -> Inbound | None:
        """Take the next message; it is running from here on."""
        return None if self._stopping else self.record.take()

    def wanted(self, inbound: Inbound) -> int:
        """How many tasks should be on the way while a handler runs, for there are more messages and it may wait.

        One is enough for a handler that does not; for one of which nothing is known, as many as wait already, since it
        will probably do so too.

        Args:
            inbound: the message that it runs for.
        """
        assert inbound.handler is not None
        waits = True if inbound.stores else self._waits.get(inbound.handler.function)
        if waits is None:
            return self.pool.at_work
        return max(self.pool.at_work, AT_ONCE) if waits else 1

    def note(self, inbound: Inbound, has_waited: bool) -> None:
        """Note whether a handler has waited, for the next time.

        Args:
            inbound: the message that it was called with.
            has_waited: whether it has.
        """
        if not inbound.stores:  # each of these is a function of its own
            assert inbound.handler is not None
            self._waits[inbound.handler.function] = has_waited

    def serve(self) -> None:
        """See to it that somebody comes for what is ready; no checkpoint."""
        record = self.record
        if not record.unsettled and (self.pool.coming or not record.ready):
            return
        if self._stopping or self.nursery.cancel_scope.cancel_called:
            return
        if record.unsettled:
            self.nursery.start_soon(self._settle_left)
        if record.ready:
            self.pool.call()

    def _start_task(self) -> None:
        self._context.run(self.nursery.start_soon, HandlerTask(self).run)

    async def terminate(self, reason: ExitReason) -> None:
        """Cancel what is at work, and tell the node of everything that it has not been told of."""
        record = self.record
        self._stopping = True
        record.serve = None
        record.requests.deadlines.start_clock = None
        record.ending = reason.clean
        # Asked to stop, the handlers still run: each ends in its own task. After a crash they are gone.
        for inbound in record.running:
            inbound.interrupted = True
            if inbound.scope is not None:
                inbound.scope.cancel(reason="the client ends")
        if reason.clean:
            if record.running:
                self._idle = trio.Event()
                with trio.move_on_after(record.config.shutdown_grace):
                    await self._idle.wait()
            for inbound in list(record.running):
                inbound.withdraw()
                if inbound.answering:
                    self._reply_failed(inbound, ChannelClosed("the client ended before the node had taken the answer"))
                else:
                    await self._interrupted(inbound)  # it will not be cancelled, and the channel is about to go
            for inbound in record.drain():
                await record.settle(inbound, Status.PASS)  # nobody has begun with it: another plugin may
        else:
            for inbound in list(record.running):
                inbound.withdraw()
                record.finish(inbound)
                await self._interrupted(inbound)
        await self._settle_left()

    async def _settle_left(self) -> None:
        record = self.record
        while record.unsettled:
            inbound, status = record.unsettled.pop()
            await record.settle(inbound, status, CANNOT_PROCESS, INTERRUPTED)

    # --- one message --------------------------------------------------------------------------------------------------

    def _done(self, inbound: Inbound) -> None:
        self._finish(inbound)
        self.serve()

    def _finish(self, inbound: Inbound) -> None:
        record = self.record
        record.finish(inbound)
        if self._idle is not None and not record.running:
            self._idle.set()

    def conclude_now(self, inbound: Inbound, answer: Answer) -> bool:
        """Tell the node what a handler said, and answer, where nothing has to be waited for; no checkpoint.

        Args:
            inbound: the message.
            answer: what the handler said.

        Returns:
            False where it does not go like that: :meth:`conclude` it.
        """
        record = self.record
        if isinstance(answer, dict):
            return self._answer_now(inbound, answer)
        if not record.settle_now(inbound, Status.HANDLED if answer is None else Status.PASS):
            return False
        self._count(answer)
        self._finish(inbound)  # whoever calls comes for the next one itself
        return True

    def _answer_now(self, inbound: Inbound, answer: dict[str, Any]) -> bool:
        record = self.record
        try:
            # Encoded before the node is told, which must not be told a lie, and queued behind that.
            push = record.connected().encoded("message", answer, functools.partial(self._told, inbound, answer["id"]))
        except Layr8Error:
            return False  # for the reason that comes out where it can be dealt with
        if push is None:
            return False
        if not record.settle_now(inbound, Status.HANDLED):
            push.withdraw()
            return False
        self._count(answer)
        inbound.answering = True
        if not push.queue():
            return False
        inbound.push = push
        return True

    def _told(self, inbound: Inbound, answer_id: str, outcome: Reply | Layr8Error) -> None:
        """Learn what the node said to an answer; until then the message keeps its thread and its place."""
        inbound.push = None
        if isinstance(outcome, Layr8Error):
            self._reply_failed(inbound, outcome)
        elif not outcome.ok:
            self._reply_failed(inbound, ServerReject(outcome.reason, message_id=answer_id))
        self._done(inbound)

    async def conclude(self, inbound: Inbound, answer: Answer) -> None:
        """Tell the node what a handler said, and answer.

        Args:
            inbound: the message, which may have come as far as the answer in :meth:`conclude_now`.
            answer: what the handler said.

        Checkpoints. Cancelled, it leaves the message running.
        """
        record = self.record
        if not inbound.answering:
            try:
                check_answer(answer)
            except LocalProtocolError as error:
                await self.failed(inbound, error)
                return
            self._count(answer)
            await record.settle(inbound, Status.PASS if isinstance(answer, Pass) else Status.HANDLED)
        if isinstance(answer, dict):
            inbound.answering = True
            try:
                reply = await record.connected().send_msg("message", answer)
                if not reply.ok:
                    raise ServerReject(reply.reason, message_id=answer["id"])
            except Layr8Error as error:
                self._reply_failed(inbound, error)
        self._done(inbound)

    def _count(self, answer: Answer) -> None:
        if isinstance(answer, Pass):
            self.record.counters.messages_passed += 1
        else:
            self.record.counters.messages_handled += 1

    async def failed(self, inbound: Inbound, error: Exception) -> None:
        """Report a handler's failure to the operator, to the node and to the sender.

        Args:
            inbound: the message.
            error: what the handler raised, or what was wrong with its answer.

        Checkpoints. Cancelled, it leaves the message running.
        """
        record = self.record
        record.counters.messages_failed += 1
        record.report(HandlerFailed, inbound, error=error)
        await self._tell_failure(inbound, describe_failure(error, record.redact))
        self._done(inbound)

    async def cut_off(self, inbound: Inbound) -> None:
        """Report that a handler was cancelled: by its deadline, or because the client ends.

        Args:
            inbound: the message.

        Checkpoints. Cancelled, it leaves the message running.
        """
        if not inbound.interrupted:
            assert inbound.handler is not None
            await self.failed(inbound, HandlerTimeout(inbound.message.type, inbound.handler.timeout))
            return
        await self._interrupted(inbound)
        self._done(inbound)

    async def _interrupted(self, inbound: Inbound) -> None:
        record = self.record
        if inbound.reported:
            return
        inbound.reported = True
        record.counters.messages_interrupted += 1
        record.report(HandlerInterrupted, inbound)
        await self._tell_failure(inbound, INTERRUPTED)

    async def _tell_failure(self, inbound: Inbound, text: str) -> None:
        record = self.record
        await record.settle(inbound, Status.ERROR, CANNOT_PROCESS, text)
        message = inbound.message
        if not message.from_ or is_problem_report(message):
            return  # nobody is there to tell, or two agents would report to each other for ever
        try:
            channel = record.connected()
            plaintext = problem_report(message, text).replace(from_=channel.assigned_did).to_plaintext()
            await channel.send_fire_and_forget("message", plaintext)
        except Layr8Error as error:
            self._reply_failed(inbound, error)

    def _reply_failed(self, inbound: Inbound, error: Exception) -> None:
        record = self.record
        record.counters.replies_failed += 1
        record.report(ReplyFailed, inbound, error=error)


def check_answer(answer: Answer) -> None:
    """Check that an answer can be written, for the node is told first, and must not be told a lie.

    Args:
        answer: what a handler said.

    Raises:
        LocalProtocolError: it is not JSON.
    """
    if isinstance(answer, dict):
        # Without a null in the frame the encoder need not look for one.
        _JSON.encode(Frame("", "", "", "message", answer))


async def call(handler: Handler, message: Message, did: str) -> Answer:
    """Return what a handler said; an answer as it goes out, so that one that cannot is the handler's failure.

    Args:
        handler: whose function is called.
        message: with what.
        did: who answers, where the answer does not say.

    Raises:
        Exception: whatever the handler raises.
        InvalidOption: what it returned is no answer.
        LocalProtocolError: the answer is not JSON.
    """
    answer = await answer_of(handler, message, did)
    check_answer(answer)
    return answer
