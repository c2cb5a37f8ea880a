"""From an endpoint to a byte stream: name, TCP, TLS; the same for every adapter that speaks over a Trio stream.

Failures are values here and not exceptions. ``ConnectFailed`` is raised by the adapter from a frame that handles no
other exception, so that it has neither cause nor context: library exceptions keep frames alive whose locals may hold
what must not be shown.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeGuard

import trio

from .endpoint import Endpoint

__all__ = ("OpenStream", "Progress", "Refused", "dial", "explain", "open_tcp_stream", "receive_answer", "send_request")

OpenStream = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""An async function of host and port that returns a connected stream: TCP, a proxy's tunnel, a memory stream."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Why a dial failed.

    Args:
        detail: the step and the cause, not redacted yet.
        status: the HTTP status, where there was one.
    """

    detail: str
    status: int | None = None


@dataclasses.dataclass(slots=True)
class Progress:
    """Which step a dial has reached, for the text of a timeout."""

    step: str = "DNS and TCP connect"


async def open_tcp_stream(host: str, port: int) -> trio.abc.Stream:
    """Connect by Trio's happy eyeballs (RFC 8305): every address of the host, the first that answers wins.

    What is an address already, as that of ``localhost`` is, has no other to race with, and is dialled without a race.
    """
    family = _family_of_address(host)
    if family is None:
        return await trio.open_tcp_stream(host, port)
    await trio.lowlevel.checkpoint_if_cancelled()
    connecting = socket.socket(family, socket.SOCK_STREAM)
    connected = False
    try:
        connecting.setblocking(False)
        failure = connecting.connect_ex((host, port))
        if failure in _UNDER_WAY:
            failure = connecting.connect_ex((host, port))  # what is on this machine is connected by now, or refused
        if failure in _UNDER_WAY:
            await trio.lowlevel.wait_writable(connecting)
            failure = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure not in _CONNECTED:
            raise OSError(failure, f"Error connecting to {(host, port)!r}: {os.strerror(failure)}")
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(connecting))
        connected = True
    finally:
        if not connected:
            connecting.close()
    return stream


# What connect says of a socket that connects by itself from here on, on POSIX and on Windows.
_UNDER_WAY = frozenset(
    getattr(errno, name)
    for name in ("EINPROGRESS", "EALREADY", "EWOULDBLOCK", "EINTR", "WSAEWOULDBLOCK", "WSAEALREADY", "WSAEINVAL")
    if hasattr(errno, name)
)
_CONNECTED = (0, errno.EISCONN)


async def send_request(stream: trio.abc.Stream, request: memoryview) -> None:
    """Write the first bytes of a connection; without a pass of Trio's loop where the kernel takes them at once.

    Args:
        stream: connected, with nothing written yet.
        request: the bytes.

    Raises:
        BrokenResourceError: the connection was lost.
        ClosedResourceError: the stream was closed.

    Checkpoints only if it waits; who reads the answer does.
    """
    if _is_plain(stream):
        try:
            request = request[os.write(stream.socket.fileno(), request) :]
        except OSError:
            pass  # the stream says what is wrong, or waits
    if request:
        await stream.send_all(request)


async def receive_answer(stream: trio.abc.Stream, size: int) -> bytes | bytearray:
    """Read what a peer answers that has been written to just now, for which there is no asking before it is there.

    Args:
        stream: connected.
        size: the most bytes that are returned.

    Returns:
        Some bytes; none at the end of the stream.

    Raises:
        BrokenResourceError: the connection was lost.
        ClosedResourceError: the stream was closed.

    Always checkpoints; cancelled, it has read nothing.
    """
    if _is_plain(stream):
        await trio.lowlevel.wait_readable(stream.socket)
        try:
            return os.read(stream.socket.fileno(), size)
        except OSError:
            pass  # likewise
    return await stream.receive_some(size)


def _is_plain(stream: trio.abc.Stream) -> TypeGuard[trio.SocketStream]:
    """Whether it is a socket, which is a file descriptor, and nothing else: no TLS, and no subclass of anybody's."""
    return type(stream) is trio.SocketStream and os.name == "posix"


def _family_of_address(host: str) -> socket.AddressFamily | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except OSError:
        return None
    return family


async def dial(
    endpoint: Endpoint, open_stream: OpenStream, tls_context: Callable[[], ssl.SSLContext], progress: Progress
) -> trio.abc.Stream | Refused:
    """Connect and, for ``wss``, shake hands by TLS.

    Args:
        endpoint: where to.
        open_stream: opens the connection.
        tls_context: the context to use where the endpoint has none.
        progress: told which step is under way.

    Returns:
        A connected stream, or why there is none. Any ``Exception`` of ``open_stream`` counts as a refusal.

    Always checkpoints. Failure and cancellation leave no socket behind, provided that ``open_stream`` leaves none.
    """
    try:
        stream = await open_stream(endpoint.dial_host, endpoint.port)
    except Exception as error:  # a stream opener may raise anything; see the docstring
        return Refused(explain(error))
    if not endpoint.tls:
        return stream
    progress.step = "the TLS handshake"
    finished = False
    try:
        # https_compatible: the WebSocket close handshake already tells an end from a cut, and peers rarely send
        # close_notify. The name verified and sent as SNI is the URL's, whatever address was dialled (RFC 6066).
        tls = trio.SSLStream(
            stream,
            endpoint.ssl_context or tls_context(),
            server_hostname=endpoint.host.removesuffix("."),
            https_compatible=True,
        )
        await tls.do_handshake()
        finished = True
    except Exception as error:  # a stream opener may raise anything; see the docstring
        return Refused(f"the TLS handshake failed: {explain(error)}")
    finally:
        if not finished:
            await trio.aclose_forcefully(stream)
    return tls


def explain(error: BaseException) -> str:
    """What an exception of the network means, in one line without addresses of objects or chained tracebacks.

    Args:
        error: of the socket module, ``ssl``, Trio, or a custom ``open_stream``.

    Returns:
        The text; it may quote foreign text, so it is to be redacted before it is shown.
    """
    return "; ".join(dict.fromkeys(_one_line(leaf) for leaf in _leaves(error)))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that say most: members of groups, and the causes of Trio's own wrappers."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    elif error.__cause__ is not None and (isinstance(error, trio.BrokenResourceError) or type(error) is OSError):
        yield from _leaves(error.__cause__)
    else:
        yield error


def _one_line(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, socket.gaierror):
        return f"the host name cannot be resolved ({name}: {error.strerror or error})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message} ({name})"
    if isinstance(error, ssl.SSLError):
        return f"{name}: {error.reason or error}"
    if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError | EOFError):
        return "the connection was lost"
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    return f"{name}: {error}" if str(error) else name
