"""The machine of a further topic against any order of events: what its own promises are, beside those of the link's."""

from __future__ import annotations

import copy
import random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from layr8_actors.channel.link_state import (
    AnnounceDisconnect,
    AnnounceReconnect,
    Command,
    DropLink,
    FinishConnect,
    GiveUp,
    JoinTopic,
    LinkStatus,
    OpenLink,
    ReportFailure,
)
from layr8_actors.channel.topic_state import TopicMachine
from layr8_actors.errors import ConnectFailed, JoinRejected, TopicDown, TransportClosed
from layr8_actors.otp import Backoff

PROTOCOLS = ("https://didcomm.org/basicmessage/2.0",)
URL = "ws://node.test/socket"
FOR_NOW = JoinRejected("e.connect.plugin.failed: protocols_already_bound", permanent=False)
FOR_GOOD = JoinRejected("e.join.plugin.parent.not-found", permanent=True)


class Room:
    """Whether the topic may be joined just now."""

    def __init__(self) -> None:
        self.free = True


def new_machine(room: Room | None = None, *, jitter: float = 0.0) -> TopicMachine:
    backoff = Backoff(initial=1, maximum=30, factor=2, jitter=jitter, reset_after=30)
    may_join = (lambda: True) if room is None else (lambda: room.free)
    return TopicMachine(backoff=backoff, join_timeout=10, ws_url=URL, may_join=may_join, random=random.Random(1))


def joined(link: int = 1) -> TopicMachine:
    machine = new_machine()
    assert machine.connect_requested(PROTOCOLS) == []
    assert machine.link_opened(link, 0) == [JoinTopic(link, PROTOCOLS)]
    assert machine.topic_joined(link, 0) == [FinishConnect(None)]
    return machine


def test_a_lost_link_is_announced_once_and_the_next_one_is_joined_at_once() -> None:
    machine, lost = joined(), TransportClosed(1006)
    assert machine.link_lost(1, lost, 100) == [AnnounceDisconnect(lost)]
    assert (machine.status, machine.deadline, machine.failures) == (LinkStatus.WAITING, None, 1)
    assert machine.link_lost(1, lost, 100) == []
    assert machine.link_opened(2, 101) == [JoinTopic(2, PROTOCOLS)]
    assert machine.topic_joined(2, 101) == [AnnounceReconnect(), FinishConnect(None)]


def test_a_wait_after_a_refusal_outlives_the_link_so_that_a_flapping_socket_asks_no_more_often() -> None:
    machine = joined()
    machine.link_lost(1, TransportClosed(1006), 100)
    machine.link_opened(2, 101)
    assert machine.topic_refused(2, FOR_GOOD, 101) == [ReportFailure(2, FOR_GOOD, 30)]
    machine.link_lost(2, TransportClosed(1006), 102)
    assert machine.link_opened(3, 103) == []
    assert machine.timer_fired(130.9) == []
    assert machine.timer_fired(131) == [JoinTopic(3, PROTOCOLS)]


def test_a_wait_that_ends_without_a_link_goes_on_with_the_next_link() -> None:
    machine = joined()
    assert len(machine.topic_lost(1, TopicDown("phx_error"), 100)) == 1
    machine.link_lost(1, TransportClosed(1006), 100.5)
    assert machine.timer_fired(101) == []
    assert (machine.status, machine.deadline) == (LinkStatus.WAITING, None)
    assert machine.link_opened(2, 110) == [JoinTopic(2, PROTOCOLS)]


def test_a_first_join_that_fails_is_over_for_good() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    machine.link_opened(1, 0)
    commands = machine.topic_refused(1, FOR_NOW, 1)
    assert FinishConnect(FOR_NOW) in commands
    assert machine.status is LinkStatus.CLOSED
    assert machine.link_opened(2, 2) == machine.connect_requested(PROTOCOLS) == machine.timer_fired(100) == []


class AnyEvent(RuleBasedStateMachine):
    """Any method with any argument at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room()
        self.machine = new_machine(self.room, jitter=0.5)
        self.now = 0.0
        self.up: bool | None = None
        self.finished = 0
        self.gave_up = False

    def hold(self, commands: list[Command]) -> None:
        for command in commands:
            assert not isinstance(command, OpenLink | DropLink), "the socket is none of its business"
            match command:
                case JoinTopic(link=link):
                    assert link == self.machine.link
                    assert self.machine.link_open
                    assert self.room.free, "joined while it may not be"
                case AnnounceDisconnect():
                    assert self.up is True
                    self.up = False
                case AnnounceReconnect():
                    assert self.up is False
                    self.up = True
                case FinishConnect():
                    self.finished += 1
                case GiveUp():
                    assert not self.gave_up
                    self.gave_up = True
        if self.machine.status is LinkStatus.JOINED and self.up is None:
            self.up = True
        if self.up is not None and self.machine.status is not LinkStatus.CLOSED:
            assert self.up == (self.machine.status is LinkStatus.JOINED), "the user believes something else"

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 10.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(free=st.booleans())
    def room_changes(self, free: bool) -> None:
        self.room.free = free

    @rule()
    def asked(self) -> None:
        self.hold(self.machine.connect_requested(PROTOCOLS))

    @rule()
    def withdrawn(self) -> None:
        self.hold(self.machine.connect_withdrawn())

    @rule(ahead=st.integers(0, 2))
    def opened(self, ahead: int) -> None:
        self.hold(self.machine.link_opened(self.machine.link + ahead, self.now))

    @rule(behind=st.integers(0, 1))
    def lost(self, behind: int) -> None:
        self.hold(self.machine.link_lost(self.machine.link - behind, TransportClosed(1006), self.now))

    @rule(behind=st.integers(0, 1))
    def acknowledged(self, behind: int) -> None:
        self.hold(self.machine.topic_joined(self.machine.link - behind, self.now))

    @rule(behind=st.integers(0, 1), error=st.sampled_from([FOR_NOW, FOR_GOOD, FOR_GOOD, ConnectFailed(URL, "cut off")]))
    def refused(self, behind: int, error: Exception) -> None:
        self.hold(self.machine.topic_refused(self.machine.link - behind, error, self.now))

    @rule(behind=st.integers(0, 1))
    def topic_lost(self, behind: int) -> None:
        self.hold(self.machine.topic_lost(self.machine.link - behind, TopicDown("phx_error"), self.now))

    @rule(open_link=st.sampled_from(["none", "same", "next"]), is_joined=st.booleans())
    def looked(self, open_link: str, is_joined: bool) -> None:
        number = {"none": 0, "same": self.machine.link, "next": self.machine.link + 1}[open_link]
        joined_on_it = is_joined and number == self.machine.link
        self.hold(self.machine.resynchronize(open_link=number, dialling=0, joined=joined_on_it, now=self.now))

    @rule()
    def timed_out(self) -> None:
        self.now = max(self.now, self.machine.deadline or 0)
        self.hold(self.machine.timer_fired(self.now))

    @invariant()
    def it_is_consistent(self) -> None:
        machine = self.machine
        assert machine.status not in (LinkStatus.CONNECTING, LinkStatus.LEAVING)
        if machine.status is LinkStatus.JOINING:
            assert machine.deadline is not None, "a join without an end"
        if machine.status in (LinkStatus.IDLE, LinkStatus.JOINED, LinkStatus.CLOSED):
            assert machine.deadline is None
        if machine.status in (LinkStatus.JOINING, LinkStatus.JOINED):
            assert machine.link_open
        if machine.status is LinkStatus.WAITING and machine.deadline is None and machine.link_open:
            # What it waits for is room, and then it has only to be looked at.
            before, self.room.free = self.room.free, True
            assert copy.copy(machine).link_opened(machine.link, self.now) == [JoinTopic(machine.link, PROTOCOLS)]
            self.room.free = before
        if self.gave_up:
            assert machine.status is LinkStatus.CLOSED


TestAnyEvent = AnyEvent.TestCase
