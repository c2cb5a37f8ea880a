"""The supervision tree of one further topic: the channel's, without the actors that own the socket.

It is a temporary child of the dynamic supervisor ``topics`` below the channel's own one. So a topic that gives up, or
whose actors crash too often, ends alone.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import trio

from ..otp import ActorRef, ChildSpec, ChildType, Ignore, Restart
from .inbox import Inbox
from .messages import Resynchronize
from .options import ChannelOptions
from .rejoiner import Rejoiner
from .topic_record import TopicRecord
from .topic_router import TopicRouter
from .topics import Topics
from .tree import CALLBACK_GRACE, LastingRef, Tree

__all__ = ("TopicTree",)


class TopicTree(Tree):
    """One further topic's record, actors and supervisor.

    Args:
        options: the channel's, with the DID, the spec and the callbacks of this topic.
        channel: the tree of the channel.
        topics: where it is registered from its start to its end.
    """

    def __init__(self, options: ChannelOptions, channel: Tree, topics: Topics) -> None:
        # Tree's own constructor is not called: it makes the actors of a channel, these are the topic's.
        self._topics = topics
        self.asked_to_start = False
        self.record: TopicRecord = TopicRecord(options, channel.record)
        record = self.record
        capacity = 4 * record.backlog.read_ahead
        inbox = LastingRef("inbox", mailbox_capacity=capacity, keep_mailbox=True)
        router = LastingRef("router", mailbox_capacity=capacity, keep_mailbox=True)
        rejoiner = ActorRef("rejoiner", keep_mailbox=True)
        self._reconnector = rejoiner
        self.router = router
        specs = [
            Inbox.child_spec(inbox, record, shutdown=CALLBACK_GRACE),
            TopicRouter.child_spec(router, record, inbox, rejoiner, shutdown=options.close_timeout),
            Rejoiner.child_spec(rejoiner, record, router, inbox, self.request_stop),
        ]
        self._supervise(specs, f"topic {options.agent_did}")
        record.own_backlog.on_empty = self.look

    def look(self) -> None:
        """Make Rejoiner look at how things stand; it does so after each message, so one that waits will do."""
        if self._reconnector.statistics().depth == 0:
            self._reconnector.cast_nowait(Resynchronize())

    def child(self) -> ChildSpec:
        """Describe it as a child; it ends for good when it ends."""
        return ChildSpec(
            id=f"topic {self.record.options.agent_did}",
            start=self.start,
            restart=Restart.TEMPORARY,
            type=ChildType.SUPERVISOR,
        )

    def start(self, *, task_status: trio.TaskStatus[Any]) -> Coroutine[Any, Any, None]:
        """Run the tree until the topic is left, gives up, or the channel ends.

        Args:
            task_status: of the task that this runs in.

        Raises:
            Ignore: the topic was given up before it came to that.
            RestartLimitExceeded: the actors crashed too often.
            JoinRejected: the node refused for good.

        Checkpoints. Cancellation stops the tree in order.
        """
        if self.record.closing:
            self.end()
            raise Ignore  # its caller has gone while it was about to be started
        return self._run_registered(self._run(self.supervisor.run(task_status=task_status)))

    async def _run_registered(self, running: Coroutine[Any, Any, None]) -> None:
        try:
            await running
        finally:
            self.end()

    def give_up(self) -> None:
        """Nobody wants the topic any more: begin its end, which goes on by itself."""
        self.request_stop()
        if not self.asked_to_start:
            self.end()

    def end(self) -> None:
        """Mark the topic as over; one that ends with its channel stays known, for Connection leaves it in its turn."""
        if not self.record.over.is_set():
            self.record.end()
        if not self.record.ends_with_channel:
            self.record.leave()  # by now it is left, unless Router crashed
            self._topics.forget(self)
            self._topics.begin_next_join()
