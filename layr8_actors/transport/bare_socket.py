"""The socket under a Trio stream, read and written by one system call each and no pass of Trio's loop beside.

Trio's stream asks the kernel for bytes before it waits for them, which a peer that has been answered just now has
seldom sent, and gives the others their turn after each call, which whoever waits for an answer does anyhow.
"""

from __future__ import annotations

import os

import trio

__all__ = ("BareSocket", "bare_socket")


SMALL = 64 * 1024
"""What is asked for when nothing is known of what is there. What has 128 KiB or more is mapped anew by malloc for each
call (mallopt(3)), for 7 us."""


class BareSocket:
    """A connected, non-blocking socket; its stream stays whole, writes what takes long, and closes it.

    Args:
        socket: of a :class:`trio.SocketStream`.
    """

    __slots__ = ("_full", "_socket")

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket
        self._full = False  # the last read was all it could be, so that more is there now, as far as one can tell

    async def receive_some(self, size: int | None = None) -> bytes:
        """Wait for bytes, and return those that are there; none at the end of the stream.

        Args:
            size: the most that are returned; ``None`` for :data:`SMALL`.

        Raises:
            BrokenResourceError: the connection was lost.
            ClosedResourceError: the stream was closed.

        Always checkpoints; cancelled, it has read nothing.
        """
        socket = self._socket
        try:
            while True:
                if socket.fileno() < 0:
                    raise trio.ClosedResourceError("this socket was already closed")
                if self._full and size:
                    await trio.lowlevel.checkpoint()
                else:
                    size = min(size or SMALL, SMALL)
                    await trio.lowlevel.wait_readable(socket)
                self._full = False
                try:
                    data = os.read(socket.fileno(), size)
                except BlockingIOError:
                    continue  # or it was said to be readable, and is not, which Linux allows itself (select(2), BUGS)
                self._full = len(data) >= SMALL
                return data
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    def send_some(self, data: bytes) -> int:
        """Write what the kernel takes without waiting.

        Args:
            data: at least one byte.

        Returns:
            How many bytes it took. None also where the connection is lost or closed: whoever writes next learns that.
        """
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:
            return 0


def bare_socket(stream: trio.abc.Stream) -> BareSocket | None:
    """The socket of a stream, if it is one of TCP and nothing else.

    Args:
        stream: connected.

    Returns:
        ``None`` where bytes are changed on their way, as TLS does, and where sockets are no file descriptors (Windows).
    """
    if not isinstance(stream, trio.SocketStream) or os.name != "posix":
        return None
    return BareSocket(stream.socket)
