"""The two heads of the upgrade, for every adapter alike: the request that gets the key, and the answer to it.

A WebSocket library composes the one and checks the other; here is what must not be left to it. The key is put into the
request behind the library's back, and whatever is no 101 is refused as soon as it can be told.
"""

from __future__ import annotations

import http
import re

from .dial import Refused
from .endpoint import Endpoint

__all__ = ("AnswerHead", "UpgradeFailed", "request_with_key")

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n")
# Cowboy and Bandit send a few hundred bytes; 64 KiB is the order of what HTTP servers themselves accept as a head.
_MAX_HEAD = 64 * 1024


class UpgradeFailed(Exception):
    """The upgrade has failed for the reason given; internal, it never leaves the adapter."""

    def __init__(self, refused: Refused) -> None:
        self.refused = refused
        super().__init__(refused.detail)


def request_with_key(request: bytes, endpoint: Endpoint) -> memoryview:
    """The upgrade request with the real request line, and with the headers that carry the key.

    Args:
        request: what the library would send.
        endpoint: gives the request target and the headers.

    Returns:
        The bytes to write, as a view, which prints as an address.
    """
    _, _, headers = request.partition(b"\r\n")
    line = f"GET {endpoint.request_target().reveal()} HTTP/1.1\r\n".encode("ascii")
    extra = "".join(f"{name}: {value.reveal()}\r\n" for name, value in endpoint.auth_headers())
    return memoryview(line + headers.removesuffix(b"\r\n") + extra.encode("ascii") + b"\r\n")


class AnswerHead:
    """Collects the head of the answer, however it is cut, and refuses it where it cannot become a 101.

    The body of a refusal is not read: it may be endless, and may quote the request.
    """

    __slots__ = ("_head",)

    def __init__(self) -> None:
        self._head = b""

    def feed(self, data: bytes | bytearray, lost: str = "") -> tuple[bytes, bytes] | None:
        """Take more of the answer.

        Args:
            data: what was read; nothing for the end of the stream.
            lost: why it ended, where that is known.

        Returns:
            The head and what came behind it, once the head is whole. It may hold whatever the peer wrote, the key too.

        Raises:
            UpgradeFailed: the answer is none, or ended, or refuses.
        """
        if not data:
            raise UpgradeFailed(Refused(f"the connection was closed during the upgrade{f' ({lost})' if lost else ''}"))
        self._head += data
        if not self._head.startswith(b"HTTP/1."[: len(self._head)]):
            raise UpgradeFailed(Refused("the answer to the upgrade is not HTTP/1.1; is it the right port and scheme?"))
        line = _STATUS_LINE.match(self._head)
        if line is None and b"\n" in self._head:
            raise UpgradeFailed(Refused("the answer to the upgrade has no valid HTTP status line"))
        if line is not None and int(line[1]) != http.HTTPStatus.SWITCHING_PROTOCOLS:
            raise UpgradeFailed(_refusal(int(line[1])))
        end = _END_OF_HEAD.search(self._head)
        if end is not None:
            head, self._head = self._head, b""
            return head[: end.end()], head[end.end() :]
        if len(self._head) > _MAX_HEAD:
            raise UpgradeFailed(Refused(f"the answer to the upgrade has more than {_MAX_HEAD} bytes of headers"))
        return None


def _refusal(status: int) -> Refused:
    """The text of a refusal by HTTP; the phrase is the standard's, since the peer's own may quote the request."""
    try:
        phrase = f" {http.HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    advice = "; redirects are not followed, correct ws_url" if 300 <= status < 400 else ""
    return Refused(f"the node answered HTTP {status}{phrase}{advice}", status)
