"""Dispatcher: runs handlers, several at once but one of each thread, and lets the node know of each message.

Where the node wants a ``dispatch_reply``, it gets one for each message, exactly once, on the join that the message came
under, and before the answer goes out: a node's router waits for it. Where it wants an ``ack``, that goes before the
handler. What waits, and what is at work, is in the record: after a crash of ours the next incarnation goes on with it.
"""

from __future__ import annotations

import contextvars
import inspect
from typing import TYPE_CHECKING, Any, Final

import trio

from ..errors import ChannelClosed, HandlerTimeout, InvalidOption, Layr8Error, ServerReject
from ..otp import Actor, ExitReason
from ..phoenix import Frame, Serializer
from .events import HandlerFailed, HandlerInterrupted, ReplyFailed
from .handlers import Pass
from .inbound import Inbound, Status
from .message import Message
from .problem_report import CANNOT_PROCESS, describe_failure, is_problem_report, problem_report
from .record import handling

if TYPE_CHECKING:
    from .handlers import Handler
    from .record import Record

__all__ = ("LAST_WORDS", "Dispatcher", "call")

_JSON: Final = Serializer()

LAST_WORDS = 1.0
"""Seconds beyond the handlers' grace in which the node is told of what was cut off; ours, they wait for room alone."""

INTERRUPTED = "the agent stopped before it was done with the message"


class Dispatcher(Actor):
    """The actor whose helper tasks the handlers run in.

    Args:
        record: the client's.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._stopping = False
        self._idle: trio.Event | None = None
        # A handler is often started by the task of another one, whose context variables are none of its business.
        self._context = contextvars.copy_context()

    async def init(self) -> None:
        """Go on with what waits."""
        self._record.serve = self._serve
        self._record.ending = False
        self._serve()

    def _serve(self) -> None:
        if self._stopping or self.nursery.cancel_scope.cancel_called:
            return
        record = self._record
        if record.unsettled:
            self.nursery.start_soon(self._settle_left)
        while (inbound := record.take()) is not None:
            self._context.run(self.nursery.start_soon, self._run, inbound)

    async def terminate(self, reason: ExitReason) -> None:
        """Cancel what is at work, and tell the node of everything that it has not been told of."""
        record = self._record
        self._stopping = True
        record.serve = None
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
                if inbound.answering:
                    self._reply_failed(inbound, ChannelClosed("the client ended before the node had taken the answer"))
                else:
                    await self._interrupted(inbound)  # it will not be cancelled, and the channel is about to go
            for inbound in record.drain():
                await record.settle(inbound, Status.PASS)  # nobody has begun with it: another plugin may
        else:
            for inbound in list(record.running):
                record.finish(inbound)
                await self._interrupted(inbound)
        await self._settle_left()

    async def _settle_left(self) -> None:
        record = self._record
        while record.unsettled:
            inbound, status = record.unsettled.pop()
            await record.settle(inbound, status, CANNOT_PROCESS, INTERRUPTED)

    # --- one message --------------------------------------------------------------------------------------------------

    async def _run(self, inbound: Inbound) -> None:
        record = self._record
        handling.set(inbound)
        await self._handle(inbound)
        record.finish(inbound)
        if self._idle is not None and not record.running:
            self._idle.set()
        self._serve()

    async def _handle(self, inbound: Inbound) -> None:
        record = self._record
        handler = inbound.handler
        assert handler is not None
        answer: dict[str, Any] | Pass | None = None
        if (handler.accept_first or not inbound.replies) and not handler.stores:
            await record.settle(inbound, Status.HANDLED)
        try:
            with trio.CancelScope(deadline=trio.current_time() + handler.timeout) as inbound.scope:
                if inbound.interrupted:
                    inbound.scope.cancel(reason="the client ends")
                answer = await call(handler, inbound.message, record.did)
        except Exception as error:
            await self._failed(inbound, error)
            return
        if not inbound.scope.cancelled_caught:
            await self._answer(inbound, answer)
        elif inbound.interrupted:
            await self._interrupted(inbound)
        else:
            await self._failed(inbound, HandlerTimeout(inbound.message.type, handler.timeout))

    async def _answer(self, inbound: Inbound, answer: dict[str, Any] | Pass | None) -> None:
        record = self._record
        if isinstance(answer, Pass):
            record.counters.messages_passed += 1
            await record.settle(inbound, Status.PASS)
            return
        record.counters.messages_handled += 1
        await record.settle(inbound, Status.HANDLED)
        if answer is None:
            return
        inbound.answering = True
        try:
            reply = await record.connected().send_msg("message", answer)
            if not reply.ok:
                raise ServerReject(reply.reason, message_id=answer["id"])
        except Layr8Error as error:
            self._reply_failed(inbound, error)

    async def _failed(self, inbound: Inbound, error: Exception) -> None:
        record = self._record
        record.counters.messages_failed += 1
        record.report(HandlerFailed, inbound, error=error)
        await self._tell_failure(inbound, describe_failure(error, record.redact))

    async def _interrupted(self, inbound: Inbound) -> None:
        record = self._record
        if inbound.reported:
            return
        inbound.reported = True
        record.counters.messages_interrupted += 1
        record.report(HandlerInterrupted, inbound)
        await self._tell_failure(inbound, INTERRUPTED)

    async def _tell_failure(self, inbound: Inbound, text: str) -> None:
        record = self._record
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
        record = self._record
        record.counters.replies_failed += 1
        record.report(ReplyFailed, inbound, error=error)


async def call(handler: Handler, message: Message, did: str) -> dict[str, Any] | Pass | None:
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
    answer = handler.function(message)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is None or isinstance(answer, Pass):
        return answer
    if not isinstance(answer, Message):
        raise InvalidOption("the handler's answer", answer, "a Message, None, or PASS")
    filled = answer.answering(message)
    if not filled.to:
        raise InvalidOption("the answer's to", filled.to, "a DID, where the message has no sender")
    plaintext = filled.replace(from_=filled.from_ or did).to_plaintext()
    # Written twice, here for nothing but its error: the node is told first, and must not be told a lie. Without a null
    # in the frame the encoder need not look for one.
    _JSON.encode(Frame("", "", "", "message", plaintext))
    return plaintext
