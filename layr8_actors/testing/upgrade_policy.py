"""How the node answers an HTTP upgrade: what Phoenix checks, and what the node was told to do instead."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio

from .observations import Observations
from .phoenix_version import NodeSerializer, serializer_for
from .rules import Rules, UpgradeRule
from .upgrade_request import UpgradeRequest
from .web_socket import ServerWebSocket, SocketEnded

__all__ = ("UpgradePolicy",)


class UpgradePolicy:
    """Answers the upgrades of one node.

    Args:
        path: where the socket is mounted; any other is 404.
        api_keys: the keys that are accepted; ``None`` accepts any that is not empty.
        rules: what the node was told.
        observations: told of every upgrade that is not accepted.
        close_timeout: seconds that a refused client has for reading the answer.
    """

    def __init__(
        self,
        path: str,
        api_keys: frozenset[str] | None,
        rules: Rules,
        observations: Observations,
        close_timeout: float,
    ) -> None:
        self._path = path
        self._api_keys = api_keys
        self._rules = rules
        self._observations = observations
        self._close_timeout = close_timeout

    async def answer(self, web_socket: ServerWebSocket) -> tuple[UpgradeRequest, NodeSerializer] | None:
        """Read and answer one upgrade; return the request and its serializer, ``None`` where it was refused.

        Raises:
            SocketEnded: the client went away, or was left without an answer.
        """
        event = await web_socket.read_request()
        if event is None:
            return None
        request = UpgradeRequest.from_event(event, trio.current_time())
        rule = self._rules.take_upgrade_rule()
        if rule is not None:
            await trio.sleep(rule.delay)
            if not rule.accept:
                await self._misbehave(web_socket, request, rule)
                return None
        serializer = serializer_for(request.query.get("vsn"))
        if request.path != self._path:
            await self._refuse(web_socket, request, 404, b"not found")
        elif serializer is None or not self._allows(request):
            # Phoenix does not tell a bad vsn, key and origin apart: 403 and an empty body for each.
            await self._refuse(web_socket, request, 403)
        else:
            await web_socket.accept()
            return request, serializer
        return None

    def _allows(self, request: UpgradeRequest) -> bool:
        key = request.api_key
        good_key = bool(key) if self._api_keys is None else key in self._api_keys
        # check_origin looks only at requests that carry an Origin, which browsers send and other clients need not.
        origin = request.headers.get("origin")
        return good_key and (origin is None or _host_of(origin) in {_host_of(f"//{request.host}"), "localhost"})

    async def _misbehave(self, web_socket: ServerWebSocket, request: UpgradeRequest, rule: UpgradeRule) -> None:
        if rule.status is not None:
            headers = [(name.encode(), value.encode()) for name, value in rule.headers]
            await self._refuse(web_socket, request, rule.status, rule.body, headers)
            return
        self._observations.upgraded(request.answered(0))
        if rule.raw is None:
            await web_socket.wait_for_end()
        else:
            await web_socket.send_now(rule.raw)
        raise SocketEnded(1006)

    async def _refuse(
        self,
        web_socket: ServerWebSocket,
        request: UpgradeRequest,
        status: int,
        body: bytes = b"",
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        self._observations.upgraded(request.answered(status))
        await web_socket.reject(status, body, headers)
        # The client closes when it has read the answer; closing first could lose it to an RST.
        with trio.move_on_after(self._close_timeout):
            await web_socket.wait_for_end()


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
