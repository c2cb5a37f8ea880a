"""The accounts of chaos: what became of every send, and of every message that the node pushed.

Four books are compared as they are written, so that hours of them fit into memory: what senders were told, what the
node got and pushed, what each channel's connection read from its transport, and what was handed to the application.

The rules are those of supervisor.md. Of one socket, what was read is a prefix of what was pushed: nothing missing in
the middle, nothing twice. All of it was read where the node's own close frame was. What was read is handed over once
and in order, except what came under a join that the channel had given up, because its acknowledgement or three replies
did not come in time; those it has to count as ignored. A send that was said not to be written never reaches the node,
one that was answered has.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping

__all__ = ("Ledger", "Outcome", "Stamp")

REMEMBERED = 2000
"""Ended sends of which the node may still hear, and ended sockets into which it may still push."""


class Outcome(enum.Enum):
    """What a caller of send_msg was told, or did."""

    ANSWERED = "answered"
    REFUSED = "refused"
    WRITTEN = "failed, written"
    UNWRITTEN = "failed, not written"
    CANCELLED = "cancelled by its caller"


@dataclasses.dataclass(frozen=True, slots=True)
class Stamp:
    """Where a message stands among those that the node pushed to one DID.

    Args:
        socket: the node's number of the socket.
        join: the join_ref that it was pushed under.
        number: among those of this socket, from 1.
    """

    socket: int
    join: str
    number: int


@dataclasses.dataclass(slots=True)
class _Send:
    due: float
    got: int = 0
    outcome: Outcome | None = None


@dataclasses.dataclass(slots=True)
class _Inbound:
    """The books of one DID."""

    pushed: Counter[int] = dataclasses.field(default_factory=Counter)
    read: Counter[int] = dataclasses.field(default_factory=Counter)
    ended: deque[int] = dataclasses.field(default_factory=lambda: deque(maxlen=REMEMBERED))
    unhanded: deque[Stamp] = dataclasses.field(default_factory=deque)
    acknowledged: deque[str] = dataclasses.field(default_factory=lambda: deque(maxlen=REMEMBERED))
    given_up: deque[str] = dataclasses.field(default_factory=lambda: deque(maxlen=REMEMBERED))
    handed: int = 0
    ignored: int = 0
    cut_off: int = 0
    down: bool = False

    def ignorable(self, stamp: Stamp) -> bool:
        """True for a message of a join that the channel had given up before, or while, it waited for it."""
        return stamp.join in self.given_up or stamp.join not in self.acknowledged


class Ledger:
    """All books of one run; each entry that breaks a rule is a violation, in words."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.outcomes: Counter[Outcome] = Counter()
        self.began = 0
        self.pushes = 0
        self._open: dict[str, _Send] = {}
        self._over: OrderedDict[str, _Send] = OrderedDict()
        self._inbound: dict[str, _Inbound] = {}

    def _of(self, did: str) -> _Inbound:
        return self._inbound.setdefault(did, _Inbound())

    def _violated(self, text: str) -> None:
        self.violations.append(text)

    # --- sends --------------------------------------------------------------------------------------------------------

    def send_began(self, wire_id: str, due: float) -> None:
        """A caller of send_msg waits, and has to be told something by the time ``due``."""
        self.began += 1
        self._open[wire_id] = _Send(due)

    def send_ended(self, wire_id: str, outcome: Outcome, now: float) -> None:
        """A caller was told, or has cancelled."""
        send = self._open.pop(wire_id, None)
        if send is None:
            self._violated(f"send {wire_id} ended twice, or never began")
            return
        self.outcomes[outcome] += 1
        send.outcome = outcome
        if now > send.due:
            self._violated(f"send {wire_id} hung: it ended ({outcome.value}) {now - send.due:.1f} s after its deadline")
        if outcome is Outcome.UNWRITTEN and send.got:
            self._violated(f"send {wire_id} was said not to be written, but the node got it")
        if outcome in (Outcome.ANSWERED, Outcome.REFUSED) and not send.got:
            self._violated(f"send {wire_id} was answered, but the node never got it")
        self._over[wire_id] = send
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    def node_got(self, wire_id: str) -> None:
        """The node received a message."""
        send = self._open.get(wire_id) or self._over.get(wire_id)
        if send is None:
            return  # so old that it was forgotten
        send.got += 1
        if send.got > 1:
            self._violated(f"send {wire_id} reached the node twice")
        if send.outcome is Outcome.UNWRITTEN:
            self._violated(f"send {wire_id} was said not to be written, but the node got it")

    def hanging(self, now: float) -> list[str]:
        """The sends whose callers wait beyond their deadline."""
        return [wire_id for wire_id, send in self._open.items() if now > send.due]

    @property
    def open(self) -> int:
        """How many callers wait."""
        return len(self._open)

    # --- messages, from the node to the application -------------------------------------------------------------------

    def next_number(self, did: str, socket: int) -> int:
        """The number of the next message that is pushed to a DID on a socket."""
        return self._of(did).pushed[socket] + 1

    def pushed(self, did: str, stamp: Stamp) -> None:
        """The node wrote a message on a live join."""
        self.pushes += 1
        book = self._of(did)
        if stamp.socket in book.ended:
            book.cut_off += 1
        book.pushed[stamp.socket] = stamp.number

    def read(self, did: str, stamp: Stamp) -> None:
        """The channel's connection took a message out of its transport."""
        book = self._of(did)
        last = book.read[stamp.socket]
        if stamp.number <= last:
            self._violated(f"{did} read {stamp} behind number {last}: doubled or disordered on the wire")
        elif stamp.number > last + 1:
            self._violated(f"{did} read {stamp} right behind number {last}: lost in the middle of a socket")
        elif stamp.number > book.pushed[stamp.socket]:
            self._violated(f"{did} read {stamp}, which the node never pushed")
        book.read[stamp.socket] = max(last, stamp.number)
        book.unhanded.append(stamp)

    def socket_ended(self, did: str, socket: int, *, whole: bool) -> None:
        """The channel's connection has come to the end of a socket.

        Args:
            did: whose.
            socket: the node's number of it.
            whole: the end was the node's own close frame, behind which nothing can be missing.
        """
        book = self._of(did)
        tail = book.pushed[socket] - book.read[socket]
        if whole and tail:
            self._violated(f"{did} read the close frame of socket {socket}, but not {tail} messages before it")
        book.cut_off += tail
        book.ended.append(socket)

    def joined(self, did: str, join: str) -> None:
        """The channel took a join for acknowledged."""
        self._of(did).acknowledged.append(join)

    def gave_up(self, did: str, join: str) -> None:
        """The channel took a join for hung, after replies that did not come; what comes under it still is ignored."""
        self._of(did).given_up.append(join)

    def handed(self, did: str, stamp: Stamp) -> None:
        """The channel handed a message to the application."""
        book = self._of(did)
        book.handed += 1
        while book.unhanded and book.unhanded[0] != stamp and book.ignorable(book.unhanded[0]):
            book.unhanded.popleft()
            book.ignored += 1
        if book.unhanded and book.unhanded[0] == stamp:
            book.unhanded.popleft()
        elif stamp in book.unhanded:
            position = book.unhanded.index(stamp)
            self._violated(f"{did} was handed {stamp} before {book.unhanded[0]}: {position} lost or disordered")
            del book.unhanded[position]
        else:
            self._violated(f"{did} was handed {stamp}, which is doubled, disordered, or was never read")

    def disconnected(self, did: str) -> None:
        """on_disconnect was called."""
        book = self._of(did)
        if book.down:
            self._violated(f"{did}: on_disconnect twice without on_reconnect between")
        book.down = True

    def reconnected(self, did: str) -> None:
        """on_reconnect was called."""
        book = self._of(did)
        if not book.down:
            self._violated(f"{did}: on_reconnect without on_disconnect")
        book.down = False

    # --- when all is calm ---------------------------------------------------------------------------------------------

    def unsettled(self, living: Mapping[str, int]) -> list[str]:
        """What still has to happen before all is accounted for, in words; none of it may last on a network that works.

        Args:
            living: of each DID, the number of its socket.
        """
        missing = [f"{self.open} callers wait"] if self.open else []
        for did, book in self._inbound.items():
            socket = living.get(did)
            if socket is None:
                missing.append(f"{did} has no socket")
            elif book.read[socket] < book.pushed[socket]:
                missing.append(f"{did} has read {book.read[socket]} of {book.pushed[socket]} on socket {socket}")
            kept = [stamp for stamp in book.unhanded if not book.ignorable(stamp)]
            if kept:
                missing.append(f"{did} was not handed {len(kept)} messages, of which {kept[0]} is the first")
            if book.down:
                missing.append(f"{did} was not told of its reconnect")
        return missing

    def settle(self, living: Mapping[str, int], ignored: Mapping[str, int]) -> None:
        """Close the books of an interval: what has not come by now is lost.

        Args:
            living: of each DID, the number of its socket.
            ignored: of each DID, the frames that its channel says it has ignored since the run began.
        """
        for text in self.unsettled(living):
            self._violated(f"when all was calm: {text}")
        for did, book in self._inbound.items():
            book.ignored += sum(book.ignorable(stamp) for stamp in book.unhanded)
            book.unhanded.clear()
            counted = ignored.get(did, 0)
            if book.ignored > counted:
                self._violated(f"{did}: {book.ignored} messages were passed over, the channel counts {counted}")
            for socket in [number for number in book.pushed if number != living.get(did)]:
                if socket not in book.ended:  # nothing was ever read of it
                    book.cut_off += book.pushed[socket]
                    book.ended.append(socket)
                del book.pushed[socket]
                book.read.pop(socket, None)

    @property
    def handed_over(self) -> int:
        """How many messages the applications got."""
        return sum(book.handed for book in self._inbound.values())

    @property
    def cut_off(self) -> int:
        """How many messages were pushed into sockets that died, behind the last one that was read."""
        return sum(book.cut_off for book in self._inbound.values())

    @property
    def ignored(self) -> int:
        """How many messages came under a join that was given up."""
        return sum(book.ignored for book in self._inbound.values())
