"""The link's state machine: when to dial, join, wait, announce and give up. Events in, commands out; no I/O, no clock.

A *link* is one socket; the *topic* is joined on it. The machine owns reconnection alone: nobody else dials or joins, so
there is never more than one dial under way and never more than one socket alive.

    idle -> connecting -> joining -> joined -> waiting -> connecting | joining -> ...

Events that speak of a link other than the current one are of the past and change nothing.
"""

from __future__ import annotations

import enum
import random as random_module

from ..errors import AlreadyConnected, ConnectFailed, JoinRejected, JoinTimeout, TopicDown, TransportClosed
from ..otp import Backoff
from .link_commands import (
    AbandonJoin,
    AnnounceDisconnect,
    AnnounceReconnect,
    Command,
    DropLink,
    FinishConnect,
    GiveUp,
    JoinTopic,
    OpenLink,
    ReportFailure,
)
from .refusal import is_permanent

__all__ = (
    "AbandonJoin",
    "AnnounceDisconnect",
    "AnnounceReconnect",
    "Command",
    "DropLink",
    "FinishConnect",
    "GiveUp",
    "JoinTopic",
    "LinkMachine",
    "LinkStatus",
    "OpenLink",
    "ReportFailure",
)

MAX_PERMANENT_REFUSALS = 3
"""Permanent refusals in a row before the channel ends: one may be a node that still starts, three are an answer."""


class LinkStatus(enum.Enum):
    """Where the link stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    JOINING = "joining"
    JOINED = "joined"
    WAITING = "waiting"
    LEAVING = "leaving"
    CLOSED = "closed"


class LinkMachine:
    """The state of the link; all times are seconds of a monotonic clock that the caller reads.

    Args:
        backoff: delays between attempts.
        join_timeout: seconds for the answer to a join.
        random: the source of jitter; ``None`` for a fresh one each time, which an idle channel need not keep.
        ws_url: for error texts; it has no key in it.
    """

    __slots__ = (
        "_backoff",
        "_ever_joined",
        "_first",
        "_join_timeout",
        "_leaving_because",
        "_random",
        "_ws_url",
        "deadline",
        "failures",
        "joined_at",
        "last_error",
        "link",
        "link_open",
        "permanent_refusals",
        "protocols",
        "status",
    )

    def __init__(
        self, *, backoff: Backoff, join_timeout: float, random: random_module.Random | None = None, ws_url: str
    ) -> None:
        self._backoff = backoff
        self._join_timeout = join_timeout
        self._random = random
        self._ws_url = ws_url
        self.status = LinkStatus.IDLE
        self.link = 0
        self.link_open = False
        self.protocols: tuple[str, ...] | None = None
        self.failures = 0
        self.permanent_refusals = 0
        self.deadline: float | None = None
        self.joined_at: float | None = None
        self.last_error: Exception | None = None
        self._first = True  # no join has been acknowledged since the protocols were set
        self._ever_joined = False
        self._leaving_because: Exception | None = None

    # --- what the user asks -------------------------------------------------------------------------------------------

    def connect_requested(self, protocols: tuple[str, ...], *, persist: bool = False) -> list[Command]:
        """Somebody wants to be connected; released by FinishConnect.

        Args:
            protocols: what to join with.
            persist: retry a first attempt that fails, as after a drop, instead of failing the caller.
        """
        if self.status in (LinkStatus.LEAVING, LinkStatus.CLOSED):
            return []  # it is asked again once the old socket is gone
        if self.protocols is None:
            self.protocols = protocols
            self._first = not persist
            self.failures = 0
            return self._dial()
        return [FinishConnect(None)] if self.status is LinkStatus.JOINED else []

    def refuse_protocols(self, protocols: tuple[str, ...]) -> AlreadyConnected | None:
        """The error for a caller who wants other protocols than those of the connection there is, or None."""
        if self.protocols is None or set(protocols) == set(self.protocols) or self.status is LinkStatus.LEAVING:
            return None
        return AlreadyConnected(
            "the channel is connected with other protocols; close it and open another channel for these"
        )

    def connect_withdrawn(self) -> list[Command]:
        """The last caller of a first connect has gone: leave nothing behind."""
        if self.protocols is None or not self._first or self.status in (LinkStatus.LEAVING, LinkStatus.CLOSED):
            return []
        return self._abandon(ConnectFailed(self._ws_url, "the caller of connect was cancelled"), alive=True)

    # --- what Connection tells ----------------------------------------------------------------------------------------

    def link_opened(self, link: int, now: float) -> list[Command]:
        """The socket is open."""
        if link == self.link and self.link_open:
            return []
        if link != self.link or self.status not in (LinkStatus.CONNECTING, LinkStatus.LEAVING):
            # A dial that was given up opens after all: one socket at a time, so it goes.
            return [DropLink(link, ConnectFailed(self._ws_url, "the dial was given up before it succeeded"))]
        self.link_open = True
        if self.status is LinkStatus.LEAVING:
            return [DropLink(self.link, self._leaving_because or ConnectFailed(self._ws_url, "called off"))]
        return self._join(now)

    def link_failed(self, link: int, error: Exception, now: float) -> list[Command]:
        """The dial failed."""
        if link != self.link or self.link_open:
            return []
        if self.status is LinkStatus.LEAVING:
            return self._left()
        if self.status is not LinkStatus.CONNECTING:
            return []
        return self._attempt_failed(error, now)

    def link_lost(self, link: int, error: Exception, now: float) -> list[Command]:
        """The socket ended, for whatever reason."""
        if link != self.link or self.status is LinkStatus.CLOSED:
            return []
        self.link_open = False
        match self.status:
            case LinkStatus.LEAVING:
                return self._left()
            case LinkStatus.JOINED:
                return self._dropped(error, now)
            case LinkStatus.JOINING | LinkStatus.CONNECTING:
                return self._attempt_failed(
                    ConnectFailed(self._ws_url, f"the connection ended before the join was answered: {error}"), now
                )
            case _:
                return []  # waiting already: the next attempt dials instead of joining

    # --- what Router tells --------------------------------------------------------------------------------------------

    def topic_joined(self, link: int, now: float) -> list[Command]:
        """The node acknowledged the join."""
        if link != self.link or self.status is not LinkStatus.JOINING:
            return []
        self.status = LinkStatus.JOINED
        self.deadline = None
        self.joined_at = now
        self.permanent_refusals = 0
        self._first = False
        commands: list[Command] = [AnnounceReconnect()] if self._ever_joined else []
        self._ever_joined = True
        commands.append(FinishConnect(None))
        return commands

    def topic_refused(self, link: int, error: Exception, now: float) -> list[Command]:
        """The node refused the join, or answered it with nonsense."""
        if link != self.link or self.status is not LinkStatus.JOINING:
            return []
        return self._attempt_failed(error, now)

    def topic_lost(self, link: int, error: Exception, now: float) -> list[Command]:
        """The topic ended while its socket lives on; in the middle of a join it is the join that failed."""
        if link != self.link:
            return []
        match self.status:
            case LinkStatus.JOINED:
                return self._dropped(error, now)
            case LinkStatus.JOINING:
                return self._attempt_failed(ConnectFailed(self._ws_url, f"the join was cut off: {error}"), now)
            case _:
                return []

    def resynchronize(
        self, *, open_link: int, dialling: int, joined: bool, now: float, ended: Exception | None = None
    ) -> list[Command]:
        """Compare with what Connection and Router hold now, after one of the actors was restarted.

        Args:
            open_link: number of the open socket, or 0.
            dialling: number of the socket that is being dialled, or 0.
            joined: True if the topic is joined on the open socket.
            now: in seconds.
            ended: why the current link ended, where that is known.
        """
        restarted = ended or TransportClosed(1006, detail="the connection actor was restarted")
        match self.status:
            case LinkStatus.CONNECTING if open_link == self.link:
                return self.link_opened(self.link, now)
            case LinkStatus.CONNECTING if dialling != self.link:
                failed = restarted if ended is not None else ConnectFailed(self._ws_url, str(restarted))
                return self.link_failed(self.link, failed, now)
            case LinkStatus.LEAVING if open_link == self.link or dialling == self.link:
                return [DropLink(self.link, self._leaving_because or restarted)]
            case LinkStatus.LEAVING:
                return self._left()
            case LinkStatus.JOINING | LinkStatus.JOINED | LinkStatus.WAITING if (
                self.link_open and open_link != self.link
            ):
                return self.link_lost(self.link, restarted, now)
            case LinkStatus.JOINING if joined:
                return self.topic_joined(self.link, now)
            case LinkStatus.JOINED if not joined:
                return self.topic_lost(self.link, TopicDown("the topic is no longer joined"), now)
            case _:
                return []

    # --- time, and the end --------------------------------------------------------------------------------------------

    def timer_fired(self, now: float) -> list[Command]:
        """The deadline has come: a join was not answered, or the wait is over."""
        if self.deadline is None or now < self.deadline:
            return []
        self.deadline = None
        if self.status is LinkStatus.JOINING:
            detail = f"the node did not answer the join within {self._join_timeout:g} s"
            commands: list[Command] = [] if self._first else [AbandonJoin(self.link)]
            return commands + self._attempt_failed(JoinTimeout(self._ws_url, detail), now)
        if self.status is LinkStatus.WAITING:
            return self._join(now) if self.link_open else self._dial()
        return []

    def closed(self, error: Exception | None) -> None:
        """The channel is over; nothing moves any more."""
        self.status = LinkStatus.CLOSED
        self.deadline = None
        self.link_open = False
        self.last_error = error or self.last_error

    # --- transitions --------------------------------------------------------------------------------------------------

    def _dial(self) -> list[Command]:
        self.status = LinkStatus.CONNECTING
        self.deadline = None  # Connection bounds its dial by connect_timeout
        self.link += 1
        self.link_open = False
        return [OpenLink(self.link)]

    def _join(self, now: float) -> list[Command]:
        assert self.protocols is not None
        self.status = LinkStatus.JOINING
        self.deadline = now + self._join_timeout
        return [JoinTopic(self.link, self.protocols)]

    def _dropped(self, error: Exception, now: float) -> list[Command]:
        self.last_error = error
        # Only a join that has stood shows a healthy node; resetting on each join would loop on a flapping one.
        if self.stands_since(now):
            self.failures = 0
        self.joined_at = None
        self._wait(self._delay(), now)
        return [AnnounceDisconnect(error)]

    def _attempt_failed(self, error: Exception, now: float) -> list[Command]:
        self.last_error = error
        if self._first:
            return [ReportFailure(1, error, None), *self._abandon(error, alive=self.link_open)]
        if is_permanent(error):
            self.permanent_refusals += 1
            if self.permanent_refusals >= MAX_PERMANENT_REFUSALS:
                self.closed(error)  # the tree comes down by and by, and until then nothing may begin anew
                return [ReportFailure(self.failures + 1, error, None), GiveUp(_as_join_rejected(error))]
            delay = self._backoff.maximum
        else:
            self.permanent_refusals = 0
            delay = self._delay()
        self._wait(delay, now)
        return [ReportFailure(self.failures, error, delay)]

    def stands_since(self, now: float) -> bool:
        """Whether the join has stood so long that the failures before it are forgotten."""
        return self.joined_at is not None and now - self.joined_at >= self._backoff.reset_after

    def _delay(self) -> float:
        return self._backoff.delay(self.failures, self._random or random_module.Random())

    def _wait(self, delay: float, now: float) -> None:
        self.status = LinkStatus.WAITING
        self.failures += 1
        self.deadline = now + delay

    def _abandon(self, error: Exception, *, alive: bool) -> list[Command]:
        self._leaving_because = error
        self.deadline = None
        if not alive:
            return self._left()
        self.status = LinkStatus.LEAVING  # connect fails only when the socket is gone, so that nothing is left behind
        return [DropLink(self.link, error)]

    def _left(self) -> list[Command]:
        error = self._leaving_because
        self._leaving_because = None
        self.status = LinkStatus.IDLE
        self.protocols = None
        self.link_open = False
        return [FinishConnect(error)]


def _as_join_rejected(error: Exception) -> JoinRejected:
    if isinstance(error, JoinRejected):
        return error
    rejected = JoinRejected(f"the node refused the upgrade: {error}", permanent=True)
    rejected.__cause__ = error
    return rejected
