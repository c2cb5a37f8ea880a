"""The link's state machine against any order of events: alone with a hostile caller, and between modelled actors.

:class:`AnyEvent` calls every method with any link at any time, and holds what the machine promises by itself.
:class:`AmongActors` is a small model of Connection, Router and Reconnector with their mailboxes: what is true of the
socket and what the machine has been told of it drift apart as they do in the channel, actors crash in between, and the
node refuses, drops and falls silent. There has to be one socket at most, and nobody may be forgotten.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from layr8_actors.channel.link_state import (
    AbandonJoin,
    AnnounceDisconnect,
    AnnounceReconnect,
    Command,
    DropLink,
    FinishConnect,
    GiveUp,
    JoinTopic,
    LinkMachine,
    LinkStatus,
    OpenLink,
    ReportFailure,
)
from layr8_actors.errors import ConnectFailed, JoinRejected, TopicDown, TransportClosed
from layr8_actors.otp import Backoff

ONE, OTHER = ("https://didcomm.org/basicmessage/2.0",), ("other",)
URL = "ws://node.test/socket"
LOST = TransportClosed(1006)
DOWN = TopicDown("phx_error")
FAILURES: list[Exception] = [
    ConnectFailed(URL, "connection refused"),
    ConnectFailed(URL, "HTTP 403", status=403),
    JoinRejected("e.connect.plugin.failed: protocols_already_bound", permanent=False),
    JoinRejected("e.join.plugin.parent.not-found", permanent=True),
]
TIMED = (LinkStatus.JOINING, LinkStatus.WAITING)

failures = st.sampled_from(FAILURES)
protocols = st.sampled_from([ONE, OTHER])
seconds = st.sampled_from([0.0, 0.5, 1.0, 10.0, 31.0])


def new_machine() -> LinkMachine:
    backoff = Backoff(initial=1, maximum=30, factor=2, jitter=0.5, reset_after=30)
    return LinkMachine(backoff=backoff, join_timeout=10, random=random.Random(1), ws_url=URL)


def picture(machine: LinkMachine) -> dict[str, Any]:
    """All that the machine knows, its source of jitter aside."""
    return {name: getattr(machine, name) for name in machine.__slots__ if name != "_random"}


class Promises:
    """What is watched over the commands of one machine, whoever drives it."""

    def __init__(self, machine: LinkMachine) -> None:
        self.machine = machine
        self.links = 0
        self.up: bool | None = None  # what the user believes, None until the first join
        self.gave_up = False
        self.over = False

    def hold(self, commands: list[Command]) -> None:
        for command in commands:
            # A dial that opens after all is the only thing there is to act on by then.
            assert not (self.over or self.gave_up) or isinstance(command, DropLink), f"{command} after the end"
            match command:
                case OpenLink(link=link):
                    assert link == self.links + 1, "a dial without a number of its own"
                    self.links = link
                case AnnounceDisconnect():
                    assert self.up is True, "on_disconnect twice, or without a join"
                    self.up = False
                case AnnounceReconnect():
                    assert self.up is False, "on_reconnect without a drop"
                    self.up = True
                case ReportFailure(attempt=attempt, retry_in=retry_in):
                    assert attempt >= 1
                    assert retry_in is None or 0 <= retry_in <= 30
                case GiveUp(error=error):
                    assert error.permanent
                    self.gave_up = True
        joined = self.machine.status is LinkStatus.JOINED
        if joined and self.up is None:
            self.up = True
        if self.up is not None and self.machine.status is not LinkStatus.CLOSED:
            assert self.up == joined, "the user believes something else"


def check_machine(machine: LinkMachine) -> None:
    assert (machine.deadline is not None) == (machine.status in TIMED), "a wait without an end, or an end of no wait"
    assert (machine.protocols is None) == (machine.status is LinkStatus.IDLE) or machine.status is LinkStatus.CLOSED
    if machine.status in (LinkStatus.JOINING, LinkStatus.JOINED):
        assert machine.link_open, "joined without a socket"
    if machine.status in (LinkStatus.IDLE, LinkStatus.CONNECTING, LinkStatus.CLOSED):
        assert not machine.link_open, "a socket that nobody knows of"


class AnyEvent(RuleBasedStateMachine):
    """Any method with any argument at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = new_machine()
        self.promises = Promises(self.machine)
        self.now = 0.0

    def do(self, link: int, event: str, *args: Any) -> None:
        """Tell the machine of a link, by its age: 0 is the current one, 1 the one before, -1 one that never was."""
        number = self.machine.link - link
        before = picture(self.machine)
        commands = getattr(self.machine, event)(number, *args, self.now)
        self.promises.hold(commands)
        if link != 0:
            assert picture(self.machine) == before, "news of another link changed something"
            assert [command for command in commands if command != DropLink(number, _error_of(command))] == []

    @rule(seconds=seconds)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(protocols=protocols, persist=st.booleans())
    def connect(self, protocols: tuple[str, ...], persist: bool) -> None:
        if self.machine.refuse_protocols(protocols) is None:
            self.promises.hold(self.machine.connect_requested(protocols, persist=persist))

    @rule()
    def withdraw(self) -> None:
        self.promises.hold(self.machine.connect_withdrawn())

    @rule(link=st.integers(-1, 2))
    def opened(self, link: int) -> None:
        self.do(link, "link_opened")

    @rule(link=st.integers(-1, 2), error=failures)
    def failed(self, link: int, error: Exception) -> None:
        self.do(link, "link_failed", error)

    @rule(link=st.integers(-1, 2))
    def lost(self, link: int) -> None:
        self.do(link, "link_lost", LOST)

    @precondition(lambda self: self.machine.status in (LinkStatus.CONNECTING, LinkStatus.JOINING))
    @rule(times=st.integers(2, 3))
    def refused_for_good(self, times: int) -> None:
        for _ in range(times):
            self.timed_out()
            self.do(0, "link_failed", FAILURES[1])
            self.do(0, "topic_refused", FAILURES[3])

    @rule(link=st.integers(-1, 2))
    def joined(self, link: int) -> None:
        self.do(link, "topic_joined")

    @rule(link=st.integers(-1, 2), error=failures)
    def refused(self, link: int, error: Exception) -> None:
        self.do(link, "topic_refused", error)

    @rule(link=st.integers(-1, 2))
    def topic_lost(self, link: int) -> None:
        self.do(link, "topic_lost", DOWN)

    @rule(open_link=st.integers(-1, 1), dialling=st.integers(-1, 1), joined=st.booleans(), ended=st.none() | failures)
    def crashed(self, open_link: int, dialling: int, joined: bool, ended: Exception | None) -> None:
        link = self.machine.link
        self.promises.hold(
            self.machine.resynchronize(
                open_link=max(0, link + open_link), dialling=max(0, link + dialling), joined=joined, now=self.now,
                ended=ended,
            )
        )  # fmt: skip

    @rule()
    def timed_out(self) -> None:
        self.now = max(self.now, self.machine.deadline or 0)
        self.promises.hold(self.machine.timer_fired(self.now))

    @rule()
    def timer_too_early(self) -> None:
        before = picture(self.machine)
        if self.machine.deadline is None or self.now < self.machine.deadline:
            assert self.machine.timer_fired(self.now) == []
            assert picture(self.machine) == before

    @precondition(lambda self: self.promises.links > 2)
    @rule()
    def closed(self) -> None:
        self.machine.closed(None)
        self.promises.over = True

    @invariant()
    def the_machine_is_consistent(self) -> None:
        check_machine(self.machine)
        if self.promises.over or self.promises.gave_up:
            assert self.machine.status is LinkStatus.CLOSED


def _error_of(command: Command) -> Exception:
    return command.error if isinstance(command, DropLink) else LOST


class Caller:
    """One who waits in connect."""

    def __init__(self, protocols: tuple[str, ...], persist: bool) -> None:
        self.protocols = protocols
        self.persist = persist
        self.accepted = False


class AmongActors(RuleBasedStateMachine):
    """The machine between Connection, Router and Reconnector, whose rules are those of their modules."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = new_machine()
        self.promises = Promises(self.machine)
        self.now = 0.0
        self.callers: list[Caller] = []
        self.to_connection: deque[Command] = deque()
        self.to_router: deque[Command | int] = deque()  # a number: that socket has ended
        self.to_reconnector: deque[tuple[Any, ...]] = deque()
        self.dialling = 0  # record.dialling
        self.dial = 0
        self.socket = 0
        self.topic = ""  # "joining" and "joined" on topic_link
        self.topic_link = 0
        self.ever_joined = False

    # --- Reconnector ---

    def do(self, commands: list[Command]) -> None:
        self.promises.hold(commands)
        for command in commands:
            match command:
                case OpenLink(link=link):
                    self.dialling = link
                    self.to_connection.append(command)
                case DropLink():
                    self.to_connection.append(command)
                case JoinTopic() | AbandonJoin():
                    self.to_router.append(command)
                case FinishConnect():
                    self.callers = [caller for caller in self.callers if not caller.accepted]
                case GiveUp():
                    self.callers.clear()  # the end of the channel releases them

    def serve(self) -> None:
        if self.machine.status in (LinkStatus.LEAVING, LinkStatus.CLOSED):
            return
        for caller in list(self.callers):
            if caller.accepted:
                continue
            if self.machine.refuse_protocols(caller.protocols) is not None:
                self.callers.remove(caller)
                continue
            caller.accepted = True
            self.do(self.machine.connect_requested(caller.protocols, persist=caller.persist))
        if not any(caller.accepted for caller in self.callers):
            self.do(self.machine.connect_withdrawn())

    def resynchronize(self) -> None:
        joined = self.topic == "joined" and self.topic_link == self.socket
        self.do(self.machine.resynchronize(open_link=self.socket, dialling=self.dialling, joined=joined, now=self.now))

    @precondition(lambda self: self.to_reconnector)
    @rule()
    def reconnector_works(self) -> None:
        event, *args = self.to_reconnector.popleft()
        if event == "resynchronize":
            self.resynchronize()
        else:
            self.do(getattr(self.machine, event)(*args, self.now))
        self.serve()

    @precondition(lambda self: self.machine.deadline is not None)
    @rule()
    def timed_out(self) -> None:
        self.now = max(self.now, self.machine.deadline or 0)
        self.resynchronize()
        self.do(self.machine.timer_fired(self.now))
        self.serve()

    @rule()
    def reconnector_crashes(self) -> None:
        self.resynchronize()  # its mailbox is kept
        self.serve()

    @precondition(lambda self: len(self.callers) < 3 and self.machine.status is not LinkStatus.CLOSED)
    @rule(protocols=protocols, persist=st.booleans())
    def connect(self, protocols: tuple[str, ...], persist: bool) -> None:
        self.callers.append(Caller(protocols, persist))
        self.serve()

    @precondition(lambda self: self.callers)
    @rule()
    def a_caller_is_cancelled(self) -> None:
        self.callers.pop(0)
        self.serve()

    @rule(seconds=seconds)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds if self.machine.deadline is None else 0

    # --- Connection ---

    @precondition(lambda self: self.to_connection)
    @rule()
    def connection_works(self) -> None:
        match self.to_connection.popleft():
            case OpenLink(link=link):
                assert self.dial + self.socket == 0, "the machine asked for a second socket"
                self.dial = link
            case DropLink(link=link, error=error):
                if self.dial == link:
                    self.dial_ends(error)
                elif self.socket == link:
                    self.socket_ends()

    @precondition(lambda self: self.dial)
    @rule(error=st.none() | failures)
    def dial_ends(self, error: Exception | None) -> None:
        self.dial, link = 0, self.dial
        self.dialling = 0
        if error is None:
            self.socket = link
            self.to_reconnector.append(("link_opened", link))
        else:
            self.to_reconnector.append(("link_failed", link, error))

    @precondition(lambda self: self.socket)
    @rule()
    def socket_ends(self) -> None:
        self.to_router.append(self.socket)
        self.socket = 0

    @rule()
    def connection_crashes(self) -> None:
        self.to_connection.clear()
        self.dial = self.dialling = 0
        if self.socket:
            self.socket_ends()
        self.to_reconnector.append(("resynchronize",))

    # --- Router, and the node behind it ---

    @precondition(lambda self: self.to_router)
    @rule()
    def router_works(self) -> None:
        match self.to_router.popleft():
            case int(link):
                if self.topic_link == link:
                    self.topic = ""
                self.to_reconnector.append(("link_lost", link, LOST))
            case JoinTopic(link=link):
                if self.socket == link:
                    self.topic, self.topic_link = "joining", link
            case AbandonJoin(link=link):
                if self.topic == "joining" and self.topic_link == link:
                    self.topic = ""

    @precondition(lambda self: self.topic == "joining" and self.topic_link == self.socket)
    @rule(error=st.none() | failures)
    def the_node_answers_the_join(self, error: Exception | None) -> None:
        if error is None:
            self.topic = "joined"
            self.ever_joined = True
            self.to_reconnector.append(("topic_joined", self.topic_link))
        else:
            self.topic = ""
            self.to_reconnector.append(("topic_refused", self.topic_link, error))

    @precondition(lambda self: self.topic and self.topic_link == self.socket)
    @rule()
    def the_node_ends_the_topic(self) -> None:
        self.topic = ""
        self.to_reconnector.append(("topic_lost", self.topic_link, DOWN))

    @rule()
    def router_crashes(self) -> None:
        self.to_reconnector.append(("resynchronize",))

    # --- what holds ---

    @invariant()
    def there_is_one_socket_at_most(self) -> None:
        assert not (self.dial and self.socket)
        assert sum(isinstance(command, OpenLink) for command in self.to_connection) <= 1

    @invariant()
    def the_machine_is_consistent(self) -> None:
        check_machine(self.machine)

    @invariant()
    def nobody_waits_in_connect_while_nothing_is_tried(self) -> None:
        if self.callers:
            assert self.machine.status not in (LinkStatus.IDLE, LinkStatus.CLOSED, LinkStatus.JOINED)

    def teardown(self) -> None:
        """Everybody does his work and the node is well: what was begun comes to its end, in a bounded time."""
        for _ in range(1000):
            if self.to_router:
                self.router_works()
            elif self.to_connection:
                self.connection_works()
            elif self.to_reconnector:
                self.reconnector_works()
            elif self.dial:
                self.dial_ends(None)
            elif self.topic == "joining" and self.topic_link == self.socket:
                self.the_node_answers_the_join(None)
            elif self.machine.deadline is not None:
                self.timed_out()
            else:
                break
            check_machine(self.machine)
        assert self.callers == [], "somebody was forgotten in connect"
        if self.machine.status is LinkStatus.IDLE:
            assert (self.dial, self.socket) == (0, 0), "a socket was left behind"
        elif not self.promises.gave_up:
            assert self.machine.status is LinkStatus.JOINED
            assert (self.topic, self.topic_link) == ("joined", self.socket)
            assert self.promises.up is not False, "the user was not told that the channel is back"
        if self.promises.up is not None:
            assert self.machine.status is not LinkStatus.IDLE, "a channel that was up does not come to rest by itself"


SETTINGS = settings(stateful_step_count=50, suppress_health_check=[HealthCheck.too_slow])
AnyEvent.TestCase.settings = SETTINGS
AmongActors.TestCase.settings = SETTINGS
test_the_machine_keeps_its_promises_whatever_it_is_told = AnyEvent.TestCase
test_whatever_the_actors_do_there_is_one_socket_and_nobody_is_forgotten = AmongActors.TestCase
