"""Requests that wait for their response: matched by thread, failed when the link drops, and gone with their caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from ..channel import Reply
from ..errors import ChannelClosed, Disconnected, InvalidOption, Layr8Error, RequestTimeout, ServerReject
from .inbound import Inbound, Status
from .problem_report import is_problem_report, read_problem_report
from .request_deadlines import RequestDeadlines

if TYPE_CHECKING:
    from ..channel.push import Push
    from .message import Message
    from .record import Record, Topic

__all__ = ("Pending", "Requests")


class Pending:
    """One caller of request, from before the write until its outcome.

    ``over`` is True once there is an outcome, ``push`` what was sent until the node has answered that. Where the caller
    has to wait before it is sent, ``sending`` is its scope until then.
    """

    __slots__ = (
        "_task",
        "deadline",
        "error",
        "id",
        "over",
        "push",
        "response",
        "sending",
        "survive_reconnect",
        "thread",
        "timeout",
    )

    def __init__(self, message: Message, thread: str, timeout: float, survive_reconnect: bool) -> None:
        self.id = message.id
        self.thread = thread
        self.timeout = timeout
        self.deadline = trio.current_time() + timeout
        self.survive_reconnect = survive_reconnect
        self.over = False
        self.response: Message | None = None
        self.error: Exception | None = None
        self.push: Push | None = None
        self.sending: trio.CancelScope | None = None
        self._task: trio.lowlevel.Task | None = None

    def finish(self, response: Message | None, error: Exception | None = None) -> None:
        """Give the caller its outcome; only the first one counts."""
        if self.over:
            return
        self.over = True
        self.response = response
        self.error = error
        if self.sending is not None:
            # A response proves that the node took the request, whatever became of its own answer.
            self.sending.cancel(reason="the response is here")
        else:
            self.wake()

    def answered(self, outcome: Reply | Exception) -> None:
        """Learn what the node itself said to the request, or why it will say nothing."""
        self.push = None
        if isinstance(outcome, Reply):
            if not outcome.ok:
                self.finish(None, ServerReject(outcome.reason, message_id=self.id))
        elif not (self.survive_reconnect and isinstance(outcome, Disconnected) and outcome.written):
            self.finish(None, outcome)

    @trio.lowlevel.enable_ki_protection
    def wake(self) -> None:
        """Make the caller look at what it waits for, if it waits."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Wait for the outcome, or :meth:`wake`. Always checkpoints; cancellation leaves nothing behind."""
        if self.over:
            await trio.lowlevel.checkpoint()
        else:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Requests:
    """All requests of one DID that wait; each is in the tables exactly as long as its caller waits."""

    def __init__(self) -> None:
        self._by_thread: dict[str, Pending] = {}
        self._by_id: dict[str, Pending] = {}
        self.deadlines = RequestDeadlines(self._by_thread)

    def __len__(self) -> int:
        return len(self._by_thread)

    def match(self, message: Message, *, has_handler: bool) -> Pending | None:
        """Return the request that an inbound message answers, by its thread, else by its parent thread.

        The parent thread alone counts for problem reports, since a node's own denial has nothing else; and for other
        messages where nobody else waits for them, for a thread begun within ours may well be a conversation of its own.

        Args:
            message: the inbound message; our own request that comes back to us is no answer to itself.
            has_handler: whether a handler is registered for that very type.
        """
        if not self._by_thread:
            return None
        pending = self._by_thread.get(message.thid) if message.thid else None
        if pending is None and message.pthid and (not has_handler or is_problem_report(message)):
            pending = self._by_thread.get(message.pthid) or self._by_id.get(message.pthid)
        return None if pending is None or pending.id == message.id or pending.over else pending

    def link_lost(self, detail: str, cause: Exception | None) -> None:
        """Fail those who do not want to wait for a rejoin, each with an error of its own."""
        for pending in list(self._by_thread.values()):
            # One that is just being sent is told by the channel, which knows whether it was written.
            if not pending.survive_reconnect and pending.sending is None and pending.push is None:
                error = Disconnected(detail, written=True)
                error.__cause__ = cause
                pending.finish(None, error)

    def end(self, detail: str, cause: Exception | None) -> None:
        """Fail all, because the client ends; each with an error of its own."""
        for pending in list(self._by_thread.values()):
            error = ChannelClosed(detail)
            error.__cause__ = cause
            pending.finish(None, error)

    async def ask(
        self, record: Record, message: Message, timeout: float, survive_reconnect: bool, inbound: Inbound | None
    ) -> Message:
        """Send a request and wait for its response.

        Args:
            record: of the DID that asks.
            message: without a thread it begins one of its own id, and without a sender it is from that DID.
            timeout: seconds, sending included.
            survive_reconnect: whether to wait on when the link drops.
            inbound: the message whose handler asks; the node is told ``handled`` before.

        Raises:
            Layr8Error: as :meth:`Client.request` says.

        Checkpoints; however it ends, nothing waits for the response any more.
        """
        channel = record.connected()
        thread = message.thread
        # Before anything is told or held for a message that is none.
        plaintext = message.written(channel.assigned_did, thread)
        if thread in self._by_thread or message.id in self._by_id:
            raise InvalidOption("message", message, "one in whose thread no other request waits")
        pending = Pending(message, thread, timeout, survive_reconnect)
        self._by_thread[thread] = self._by_id[pending.id] = pending
        try:
            record.make_room()  # for nobody would read on to the response
            if inbound is not None and inbound not in record.running:
                inbound = None
            if inbound is None or record.settle_now(inbound, Status.HANDLED):
                # The caller is told of the node's answer only if it matters, which spares it one of two wake-ups.
                push = channel.encoded("message", plaintext, pending.answered)
                if push is not None and push.queue():
                    pending.push = push
            if pending.push is None:
                await self._send_and_wait(record, plaintext, pending, inbound)
            else:
                if self.deadlines.add(pending):
                    await pending.wait()
                if not pending.over:  # nobody watches the deadline, or not any more
                    await self._wait_alone(pending)
        except Layr8Error:
            await trio.lowlevel.checkpoint_if_cancelled()  # one that tries again and again has to end some day
            raise
        finally:
            del self._by_thread[thread], self._by_id[pending.id]
            if pending.push is not None:
                pending.push.withdraw()
            pending.over = True  # where it was cancelled, it still stands among the deadlines
        if pending.error is not None:
            raise pending.error
        response, pending.response = pending.response, None
        assert response is not None
        if is_problem_report(response):
            raise read_problem_report(response)
        return response

    async def _wait_alone(self, pending: Pending) -> None:
        with trio.CancelScope(deadline=pending.deadline):
            await pending.wait()
        pending.finish(None, RequestTimeout(pending.timeout))

    async def _send_and_wait(
        self, record: Record, plaintext: dict[str, Any], pending: Pending, inbound: Inbound | None
    ) -> None:
        # One scope for the deadline and for a response that is faster than the node's own answer.
        with trio.CancelScope(deadline=pending.deadline) as pending.sending:
            if inbound is not None:
                await record.settle(inbound, Status.HANDLED)  # it may wait for room
            await _send(record.connected(), plaintext, pending)
            pending.sending = None
            await pending.wait()
        pending.finish(None, RequestTimeout(pending.timeout))


async def _send(channel: Topic, plaintext: dict[str, Any], pending: Pending) -> None:
    try:
        reply = await channel.send_msg("message", plaintext)
    except Disconnected as error:
        if not (pending.survive_reconnect and error.written):
            raise
    else:
        if not reply.ok:
            raise ServerReject(reply.reason, message_id=pending.id)
