"""The further DIDs of a client in one run of it: joined by their users, or brought back after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import trio

from ..channel.events import ChannelEvent, LinkLost
from ..errors import (
    AlreadyConnected,
    ChannelClosed,
    InvalidOption,
    Layr8Error,
    NotConnected,
    StoreFailed,
)
from ..otp import ChildSpec, Restart
from .did_handlers import DidHandlers
from .did_run import DidRun, JoinSpec, Membership
from .events import DidNotRejoined, MessagesWaitForDid
from .joined_did import JoinedDid

if TYPE_CHECKING:
    from ..channel import Channel
    from .tree import Tree

__all__ = ("FurtherDids", "topic_of")

TRY_AGAIN: Final = 1.0
"""Seconds before the next try where the channel is just restarting its topics; as the first pause between dials."""

FIRST_LOOK: Final = 60.0
"""Seconds from the start to the first look for messages of DIDs that are not joined; ours: six ``join_timeout``."""

LAST_LOOK: Final = 3600.0
"""Seconds between two looks in the end, after they have doubled: a line in the log for each hour that messages wait."""


def topic_of(did: str) -> str:
    """The topic that a DID is joined on."""
    return f"plugins:{did}"


class FurtherDids:
    """All DIDs of a run but the client's own.

    Args:
        tree: of the run.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._by_topic: dict[str, Membership] = {}
        self._joining: set[str] = set()

    def __iter__(self) -> Iterator[Membership]:
        return iter(list(self._by_topic.values()))

    def children(self) -> list[ChildSpec]:
        """What runs beside the client's own actors; nothing, where it is not durable and has nobody to bring back."""
        children: list[ChildSpec] = []
        if self._by_topic:
            children.append(ChildSpec("rejoin", self._rejoin, restart=Restart.TRANSIENT))
        if self._tree.record.durability is not None:
            children.append(ChildSpec("look", self._look))
        return children

    async def join(
        self, channel: Channel, did: str, handlers: DidHandlers | None, protocols: Sequence[str], parent_did: str
    ) -> JoinedDid:
        """Do what :meth:`Client.join_did` says.

        Args:
            channel: of the run.
            did: as there.
            handlers: as there.
            protocols: as there.
            parent_did: as there.
        """
        if not isinstance(did, str) or not did:
            raise InvalidOption("did", did, "a DID")
        given = DidHandlers() if handlers is None else handlers
        if not isinstance(given, DidHandlers):
            raise InvalidOption("handlers", handlers, "DidHandlers(), or None")
        spec = JoinSpec(did, given, protocols, parent_did)
        run = DidRun(spec, self._tree)
        topic = topic_of(did)
        former = self._by_topic.get(topic)
        if topic in self._joining or (former is not None and not former.replaceable):
            raise AlreadyConnected(f"{did} is joined already; leave it first")
        self._joining.add(topic)
        try:
            if former is not None:
                await former.leave()
            await run.begin(channel, persist=False)
            membership = self._by_topic[topic] = Membership(spec, run)
        finally:
            self._joining.discard(topic)
        return JoinedDid(membership)

    def forget(self, run: DidRun) -> None:
        """A DID was left.

        Args:
            run: of it.
        """
        self._by_topic = {topic: joined for topic, joined in self._by_topic.items() if joined.run is not run}

    # --- after a restart ----------------------------------------------------------------------------------------------

    def bring_back(self, former: Iterable[Membership]) -> None:
        """Take over what was joined in the run before, and not left; before this one begins.

        Args:
            former: of that run; their handles are of this one from here on.
        """
        for joined in former:
            if not joined.left:
                joined.run = DidRun(joined.spec, self._tree)
                joined.restored = True
                self._by_topic[topic_of(joined.spec.did)] = joined

    async def _rejoin(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        client = self._tree.record
        await client.entered.wait()
        for joined in self:
            while joined.restored and not joined.left and joined.run.topic is None and joined.run.failure is None:
                try:
                    await joined.run.begin(self._tree.channel(), persist=True)
                except NotConnected:
                    await trio.sleep(TRY_AGAIN)
                except ChannelClosed:
                    return  # the client ends
                except Layr8Error as error:
                    joined.run.fail(error)
                    client.emit(DidNotRejoined(at=trio.current_time(), did=joined.spec.did, error=error))

    # --- what is stored -----------------------------------------------------------------------------------------------

    async def waiting(self) -> dict[str, int]:
        """How many stored messages wait for a DID to be joined, by DID.

        Raises:
            StoreFailed: the store cannot tell now.
        """
        durability = self._tree.record.durability
        if durability is None:
            await trio.lowlevel.checkpoint()
            return {}
        return await durability.waiting({joined.spec.did for joined in self if joined.run.failure is None})

    async def _look(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        client, pause = self._tree.record, FIRST_LOOK
        while True:
            await trio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK)
            try:
                waiting = await self.waiting()
            except StoreFailed:
                continue  # the workers report it, and decide
            for did, messages in waiting.items():
                client.emit(MessagesWaitForDid(at=trio.current_time(), did=did, messages=messages))

    # --- what the tree tells ------------------------------------------------------------------------------------------

    def note(self, event: ChannelEvent) -> None:
        """Let those note an event whom it is about."""
        everybody = isinstance(event, LinkLost)
        for topic, joined in self._by_topic.items():
            if everybody or event.topic == topic:
                joined.run.note(event)

    def end(self, cause: Exception | None) -> None:
        """The run is over."""
        for joined in self._by_topic.values():
            joined.run.end("the client ended before the response came", cause)
