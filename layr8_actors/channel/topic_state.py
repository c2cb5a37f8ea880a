"""The state machine of one further topic: the link's own, where the socket comes and goes by somebody else's doing.

    idle -> waiting -> joining -> joined -> waiting -> joining -> ...

It never dials. *Waiting* without a deadline is waiting for the channel's socket, or until the topic has caught up; with
one it is the backoff, after a refusal, after a join that was not answered, or after a topic that the node has ended.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable

from ..errors import ConnectFailed
from ..otp import Backoff
from .link_state import AbandonJoin, Command, FinishConnect, LinkMachine, LinkStatus

__all__ = ("TopicMachine",)


class TopicMachine(LinkMachine):
    """The state of one further topic; all times are seconds of a monotonic clock that the caller reads.

    Args:
        backoff: delays between attempts to join on a socket that lives.
        join_timeout: seconds for the answer to a join.
        ws_url: for error texts; it has no key in it.
        may_join: whether the topic has handled enough to be joined again; asked before each join.
        random: the source of jitter; ``None`` for a fresh one each time.
    """

    def __init__(
        self,
        *,
        backoff: Backoff,
        join_timeout: float,
        ws_url: str,
        may_join: Callable[[], bool] = lambda: True,
        random: random_module.Random | None = None,
    ) -> None:
        super().__init__(backoff=backoff, join_timeout=join_timeout, random=random, ws_url=ws_url)
        self._may_join = may_join

    # --- what the user asks -------------------------------------------------------------------------------------------

    def connect_requested(self, protocols: tuple[str, ...], *, persist: bool = False) -> list[Command]:
        """Somebody wants the topic to be joined; released by FinishConnect.

        Args:
            protocols: what to join with.
            persist: as of the link's machine.
        """
        if self.protocols is None and self.status is LinkStatus.IDLE:
            self.protocols = protocols
            self._first = not persist
            self.status = LinkStatus.WAITING
            return []
        return [FinishConnect(None)] if self.status is LinkStatus.JOINED else []

    # --- what becomes of the link -------------------------------------------------------------------------------------

    def link_opened(self, link: int, now: float) -> list[Command]:
        """There is a socket on which the channel's own join is sent; it may have been told of before.

        A wait by the backoff goes on: a socket that flaps does not make a node that refuses be asked more often.
        """
        if self.status in (LinkStatus.IDLE, LinkStatus.CLOSED) or link < self.link:
            return []
        commands: list[Command] = []
        if link != self.link and self.link_open:
            commands = self.link_lost(self.link, ConnectFailed(self._ws_url, "the link was renewed"), now)
        self.link = link
        self.link_open = True
        if self.status is LinkStatus.WAITING and self.deadline is None:
            commands += self._join(now)
        return commands

    def link_lost(self, link: int, error: Exception, now: float) -> list[Command]:
        """The socket ended, for whatever reason; the channel renews it by its own backoff."""
        if link != self.link or not self.link_open or self.status is LinkStatus.CLOSED:
            return []
        self.link_open = False
        match self.status:
            case LinkStatus.JOINED:
                commands = self._dropped(error, now)
                self.deadline = None  # one backoff is enough, and it is the link's
                return commands
            case LinkStatus.JOINING:
                self.deadline = None
                self.status = LinkStatus.WAITING
                if not self._first:
                    self.last_error = error
                    return []
                detail = f"the connection ended before the join was answered: {error}"
                return self._attempt_failed(ConnectFailed(self._ws_url, detail), now)
            case _:
                return []

    def resynchronize(
        self, *, open_link: int, dialling: int, joined: bool, now: float, ended: Exception | None = None
    ) -> list[Command]:
        """Compare with what the channel and the topic's router hold now.

        Args:
            open_link: number of the socket on which the channel has sent its join, or 0.
            dialling: of no interest here.
            joined: True if the topic is joined on that socket.
            now: in seconds.
            ended: why the current link ended, where that is known.
        """
        commands: list[Command] = []
        if self.link_open and open_link != self.link:
            lost = ended or ConnectFailed(self._ws_url, "the link was lost")
            commands = self.link_lost(self.link, lost, now)
        if open_link == 0:
            return commands
        if self.link_open and self.status in (LinkStatus.JOINING, LinkStatus.JOINED):
            return commands + super().resynchronize(
                open_link=open_link, dialling=0, joined=joined, now=now, ended=ended
            )
        return commands + self.link_opened(open_link, now)

    # --- time ---------------------------------------------------------------------------------------------------------

    def timer_fired(self, now: float) -> list[Command]:
        """The deadline has come: a join was not answered, or the wait is over."""
        due = self.deadline is not None and now >= self.deadline
        if due and self.status is LinkStatus.WAITING and not self.link_open:
            self.deadline = None  # it is the socket that is waited for now
            return []
        return super().timer_fired(now)

    # --- transitions --------------------------------------------------------------------------------------------------

    def _join(self, now: float) -> list[Command]:
        if not self._may_join():
            self.status = LinkStatus.WAITING
            self.deadline = None
            return []
        return super()._join(now)

    def _abandon(self, error: Exception, *, alive: bool) -> list[Command]:
        """The first join has failed, or nobody waits for it any more: it is over, and the socket is none of ours."""
        commands: list[Command] = []
        if alive and self.status is LinkStatus.JOINING:
            commands.append(AbandonJoin(self.link))  # which does nothing where the join was answered
        self.status = LinkStatus.CLOSED
        self.deadline = None
        self.link_open = False
        return [*commands, FinishConnect(error)]
