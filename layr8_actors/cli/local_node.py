"""The command node: a CloudNode on a port, which says who joins and what it routes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import trio

from ..phoenix import Ref
from ..testing import CloudNode, JoinReply, PluginChannel
from .job import OK, printable

__all__ = ("LoggedChannel", "serve_node")


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {printable(text)}", flush=True)


class LoggedChannel(PluginChannel):
    """A plugin's topic that prints a line for each join, message and end; never a body, which may be private."""

    async def join(self, payload: Any) -> JoinReply:
        """Join as :class:`PluginChannel` does, and print how it went. Checkpoints as that does."""
        reply = await super().join(payload)
        who = self.did or self.topic
        if reply.status == "ok":
            _log(f"join     {who} on socket {self.socket.number}, protocols {' '.join(sorted(self.protocols))}")
        else:
            _log(f"refused  {who} on socket {self.socket.number}: {reply.response.get('reason')}")
        return reply

    def handle_message(self, payload: Any, ref: Ref) -> None:
        """Print who sends what to whom, then route it."""
        plaintext = payload if isinstance(payload, dict) else {}
        to = plaintext.get("to")
        recipients = ", ".join(map(str, to)) if isinstance(to, list) else "nobody"
        _log(f"message  {plaintext.get('id')} {plaintext.get('type')} {self.did} -> {recipients}")
        super().handle_message(payload, ref)

    def route_error(self, unknown: list[str]) -> str:
        """Print and return why a message is refused."""
        reason = super().route_error(unknown)
        _log(f"refused  {reason}")
        return reason

    def terminate(self) -> None:
        """Print that the topic has ended."""
        _log(f"leave    {self.did} on socket {self.socket.number}")
        super().terminate()


async def serve_node(port: int, api_keys: Sequence[str]) -> int:
    """Run a node until cancelled.

    Args:
        port: of 127.0.0.1; 0 for a free one.
        api_keys: the keys it accepts; empty to accept any.

    Returns:
        Nothing in fact: it ends by cancellation.

    Raises:
        OSError: the port is taken.

    Checkpoints; cancelled, it ends every socket at once.
    """
    async with CloudNode(port=port, api_keys=list(api_keys) or None, channels={"plugins:": LoggedChannel}) as node:
        print(node.url, flush=True)
        await trio.sleep_forever()
    return OK
