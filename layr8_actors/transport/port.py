"""The seam between the channel and a WebSocket library: what every adapter promises, and nothing of how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import trio

from .endpoint import Endpoint

__all__ = ("AttendedConnector", "AttendedTransport", "Connector", "Transport")


@runtime_checkable
class Transport(Protocol):
    """One open socket that carries whole messages: ``str`` for text, ``bytes`` for binary (RFC 6455 section 5.6).

    Delivery: what one side's :meth:`send` has written arrives at the other side's :meth:`receive` in order, each
    message once, or not at all: the link breaks only at its end, never in the middle. A ``send`` that returned has
    handed its messages to the operating system, no more; whether the peer read them only the peer can say.

    Tasks: one task receives, one task sends, and any task may close or abort at any time, also while the other two are
    waiting. Two tasks that send at once keep each message whole, but mix the messages of their batches.

    Drain duty: the socket is read by whoever receives, or ahead of it by the adapter, by a bounded amount, and not
    before nobody has received for a while (a second at the most). Beyond that bound, while nobody receives, the socket
    is not read, TCP slows the peer down, and neither a ping nor a close of the peer is noticed. So whoever owns a
    transport keeps receiving.

    Attributes:
        name: the adapter, for statistics and events.
    """

    @property
    def name(self) -> str: ...

    async def receive(self) -> list[str | bytes]:
        """Wait for messages, and return all that are there.

        Returns:
            At least one message, in order of arrival.

        Raises:
            TransportClosed: the link has ended, by whoever's doing, and everything that had arrived before was
                returned. ``code`` and ``reason`` are the peer's, 1006 where the link broke without a close frame, 1009
                where the peer's message exceeded ``max_message_size``. Every further call raises it too, each time a
                new instance. Open another transport.

        Always checkpoints. Cancellation loses nothing: the next call returns what this one would have. Where the stream
        is somebody else's (``open_stream``), its ``receive_some`` has to keep that promise too, as all of Trio's do.
        """
        ...

    async def send(self, batch: Sequence[str | bytes]) -> None:
        """Write messages in order.

        Args:
            batch: the messages; an empty batch writes nothing, but for the rest of what :meth:`send_nowait` has begun.

        Raises:
            TransportClosed: the link has ended, or ended under the write; some of the batch may have been written.

        Always checkpoints. Cancellation leaves it open which of the batch was written; where it cut a message in two,
        the link is aborted at once, since everything written after that would be garbage to the peer.
        """
        ...

    def send_nowait(self, message: str | bytes) -> bool:
        """Write a message at once, where that takes no waiting: for one that comes alone, and whose answer is awaited.

        Args:
            message: as those of a batch.

        Returns:
            True where all of it is written. False where it is begun, and :meth:`send` has to be called soon, be it with
            an empty batch: it writes the rest first, and raises where that cannot be written.

        Raises:
            WouldBlock: nothing was written and nothing will be: :meth:`send` the message. An adapter that cannot do
                better may always say so, and does so for whatever has gone wrong, of which ``send`` tells.

        Never checkpoints. Nobody may be in :meth:`send` meanwhile, or it may refuse.
        """
        ...

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        """End the link politely: close frame, the peer's answer, then the socket is gone.

        Idempotent, and never later than the deadline: a peer that does not read or does not answer is dropped then.
        Where a write was cut in two, no close frame can be sent, and the link is dropped at once.

        Args:
            code: the close code to send (RFC 6455 section 7.4).
            reason: a text for the peer, cut at 123 bytes of UTF-8.
            timeout: seconds for all of it.

        Raises: nothing but ``Cancelled``.

        Always checkpoints. Cancellation drops the link at once: the socket is gone when ``Cancelled`` comes out.
        """
        ...

    def abort(self) -> None:
        """Drop the link at once, without a word to the peer; for links that are of no use any more.

        Synchronous and idempotent. The socket is closed when the adapter's task next runs; nothing can be written any
        more from here on, and the tasks waiting in :meth:`receive` and :meth:`send` get ``TransportClosed``.
        """
        ...


@runtime_checkable
class Connector(Protocol):
    """Opens transports; it keeps no state of any one of them, so that one connector may serve many channels.

    Attributes:
        name: the adapter, the same as its transports'.
    """

    @property
    def name(self) -> str: ...

    async def open(self, nursery: trio.Nursery, endpoint: Endpoint) -> Transport:
        """Resolve, connect, shake hands, upgrade.

        Args:
            nursery: the transport's own task runs in it, which does what no caller is there to do (answers pings, reads
                ahead, closes the socket), and nothing but ``Cancelled`` escapes into it; when it is cancelled, the link
                is dropped.
            endpoint: where to dial; its ``open_timeout`` bounds all steps together.

        Returns:
            An open transport.

        Raises:
            ConnectFailed: with ``status`` where the peer answered with HTTP, and a ``detail`` that says which step
                failed and why. It carries no cause, no context and no key. Try again later, unless ``permanent``.

            RuntimeError: the nursery takes no more tasks.

        Always checkpoints. Failure and cancellation, at whatever step, leave no task and no socket behind.
        """
        ...


class AttendedTransport(Transport, Protocol):
    """One that holds no task of its own while somebody has promised to receive; see :class:`AttendedConnector`."""

    def attend(self, attended: bool) -> None:
        """Say whether the promise holds from now on.

        Args:
            attended: False before the one who receives does anything else that may take long: from then on the
                transport sees to what is due while nobody receives. True before it receives again.

        Never blocks.
        """
        ...


class AttendedConnector(Connector, Protocol):
    """One that can leave it to the caller to look after a link.

    An adapter need not be one; what only :meth:`open` can open is looked after by the transport's own task.
    """

    async def open_attended(self, nursery: trio.Nursery, endpoint: Endpoint) -> AttendedTransport:
        """Open a transport for a caller who promises to receive, and to abort it in the end, come what may.

        The caller receives in a task of the nursery, at once and without a pause, but where it says so by
        :meth:`AttendedTransport.attend`. In return there is no task of the transport's own while nothing is to be done:
        when the nursery is cancelled the caller is too, and aborts.

        Args:
            nursery: as in :meth:`open`; a task of the transport's runs in it whenever there is something to do.
            endpoint: likewise.

        Returns, raises and checkpoints as :meth:`open` does.
        """
        ...
