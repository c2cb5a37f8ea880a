"""The demo's accounts: which message was sent, pushed by the node, and handed to the application, and how often.

Two books are compared. The node writes down each message that it pushes, with the socket; the application writes down
each one that the channel hands to it. TCP loses only the end of what it was given, and only when it dies: so all that
went into a socket that lives has to arrive, and of one that died all up to the last message that did arrive. Behind
that it may have died with the socket, and the sender repeats it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Collection, Sequence

__all__ = ("Account", "Ledger")


class Outcome(enum.Enum):
    """How one attempt to send ended, as its sender saw it."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """What became of one direction's messages.

    Args:
        numbered: numbers that the sender began with.
        sent: calls of send_msg, repeats included.
        answered: those that the node replied ``ok`` to.
        refused: those that the node replied another status to, because the recipient was away.
        failed: those that ended in a typed error.
        unanswered: callers who wait still.
        received_once: numbers that the recipient acted on, once each.
        repeats: further attempts of numbers that it had, recognised and not acted on.
        cut_off: messages pushed into a socket that died, behind the last one that was read.
        lost: numbers never received, and messages never handed over although their socket lived or a later one came.
        doubled: messages that the channel handed over more often than the node had pushed them.
        disordered: messages handed over after one that the node had pushed later.
    """

    numbered: int = 0
    sent: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    unanswered: int = 0
    received_once: int = 0
    repeats: int = 0
    cut_off: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0

    def __add__(self, other: Account) -> Account:
        """The sum, field by field."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Account(*(one + two for one, two in zip(mine, theirs, strict=True)))


@dataclasses.dataclass(slots=True)
class _Message:
    """One message on the wire: an attempt of a number, or a receipt (then there is no number)."""

    sender: str
    number: int | None
    outcome: Outcome = Outcome.OPEN
    pushes: list[tuple[int, int]] = dataclasses.field(default_factory=list)  # socket, position in the node's book
    handed: int = 0
    due: int = 0  # how many of the pushes have to arrive, as :meth:`Ledger._mark_due` found last


class Ledger:
    """All that was written down; of the two agents only.

    Args:
        agents: their names.
    """

    def __init__(self, agents: Sequence[str]) -> None:
        self.agents = tuple(agents)
        self._messages: dict[str, _Message] = {}
        self._numbers: Counter[str] = Counter()
        self._received: dict[str, Counter[int]] = {agent: Counter() for agent in agents}
        self._receipts: Counter[str] = Counter()
        self._pushes = 0
        self._pushed_into: dict[int, list[_Message]] = {}
        self._unknown: Counter[str] = Counter()
        self._last_handed: Counter[str] = Counter()
        self._disordered: Counter[str] = Counter()

    # --- what the senders write down ----------------------------------------------------------------------------------

    def begin(self, sender: str) -> int:
        """Give out the sender's next number, from 1."""
        self._numbers[sender] += 1
        return self._numbers[sender]

    def attempt(self, sender: str, number: int, attempt: int) -> str:
        """Write down that a number is being sent, and return the id that this attempt has on the wire."""
        wire_id = f"{sender}-{number}-{attempt}"
        self._messages[wire_id] = _Message(sender, number)
        return wire_id

    def receipt(self, sender: str) -> str:
        """Write down that a receipt is being sent, and return its id on the wire."""
        self._receipts[sender] += 1
        wire_id = f"{sender}-receipt-{self._receipts[sender]}"
        self._messages[wire_id] = _Message(sender, None)
        return wire_id

    def replied(self, wire_id: str, *, ok: bool) -> None:
        """Write down the node's reply to an attempt."""
        self._messages[wire_id].outcome = Outcome.ACCEPTED if ok else Outcome.REFUSED

    def failed(self, wire_id: str) -> None:
        """Write down that an attempt ended in a typed error."""
        self._messages[wire_id].outcome = Outcome.FAILED

    # --- what the node writes down ------------------------------------------------------------------------------------

    def pushed(self, wire_id: str, socket: int) -> None:
        """Write down that the node pushed a message, behind all that it pushed before.

        Args:
            wire_id: the message's.
            socket: the number of the recipient's socket.
        """
        self._pushes += 1
        message = self._messages[wire_id]
        message.pushes.append((socket, self._pushes))
        self._pushed_into.setdefault(socket, []).append(message)

    # --- what the recipients write down -------------------------------------------------------------------------------

    def handed(self, wire_id: str, recipient: str) -> bool:
        """Write down that the channel handed a message to the application.

        Args:
            wire_id: the message's.
            recipient: who got it.

        Returns:
            True for the first message of its number, the one to act on; False for a repeat and for a receipt.
        """
        message = self._messages.get(wire_id)
        if message is None or not message.pushes:
            self._unknown[recipient] += 1  # the channel made up a message, which counts as doubled
            return False
        message.handed += 1
        position = message.pushes[min(message.handed, len(message.pushes)) - 1][1]
        if message.handed <= len(message.pushes):
            if position < self._last_handed[recipient]:
                self._disordered[recipient] += 1
            else:
                self._last_handed[recipient] = position
        if message.number is None:
            return False
        received = self._received[message.sender]
        received[message.number] += 1
        return received[message.number] == 1

    # --- what comes of it ---------------------------------------------------------------------------------------------

    def missing(self, living: Collection[int]) -> list[str]:
        """Return the messages that have to arrive and were not handed over.

        Args:
            living: the numbers of the sockets that are open.
        """
        self._mark_due(living)
        return [wire_id for wire_id, message in self._messages.items() if message.handed < message.due]

    def _mark_due(self, living: Collection[int]) -> None:
        for message in self._messages.values():
            message.due = 0
        for socket, messages in self._pushed_into.items():
            arrived = [index for index, message in enumerate(messages) if message.handed]
            end = len(messages) if socket in living else max(arrived, default=-1) + 1
            for message in messages[:end]:
                message.due += 1

    def account(self, sender: str, recipient: str, living: Collection[int]) -> Account:
        """Add up one direction, the receipts that go along with it included.

        Args:
            sender: whose messages.
            recipient: who was to get them.
            living: the numbers of the sockets that are open at the end.
        """
        self._mark_due(living)
        mine = [message for message in self._messages.values() if message.sender == sender]
        attempts = [message for message in mine if message.number is not None]
        outcomes = Counter(message.outcome for message in attempts)
        received = self._received[sender]
        never = {number for number in range(1, self._numbers[sender] + 1) if not received[number]}
        lost = len(never)
        cut_off = 0
        for message in mine:
            gone = max(0, message.due - message.handed)
            if message.number not in never:  # a number that never came is one loss, however often it was sent
                lost += gone
            cut_off += max(0, len(message.pushes) - message.handed - gone)
        return Account(
            numbered=self._numbers[sender],
            sent=len(attempts),
            answered=outcomes[Outcome.ACCEPTED],
            refused=outcomes[Outcome.REFUSED],
            failed=outcomes[Outcome.FAILED],
            unanswered=outcomes[Outcome.OPEN],
            received_once=len(received),
            repeats=sum(received.values()) - len(received),
            cut_off=cut_off,
            lost=lost,
            doubled=self._unknown[recipient] + sum(max(0, message.handed - len(message.pushes)) for message in mine),
            disordered=self._disordered[recipient],
        )
