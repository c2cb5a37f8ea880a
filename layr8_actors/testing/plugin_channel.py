"""The Layr8 part of the node: the topics ``plugins:{did}``, their joins, and the routing of messages between DIDs.

What the node answers is known from public SDKs only (its source is closed); where they differ the newest is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..phoenix import Ref
from .node_channel import JoinReply, NodeChannel

__all__ = ("PluginChannel",)


class PluginChannel(NodeChannel):
    """A plugin's topic: joins bind a DID and its protocols; ``message`` is routed by ``to``.

    Subclass it and give the class to ``CloudNode(channels={"plugins:": YourChannel})`` to answer events of your own.
    """

    missing_protocols: ClassVar[str] = "e.join.plugin.protocol.missing: No protocol specified"
    already_bound: ClassVar[str] = "e.connect.plugin.failed: protocols_already_bound"
    not_found: ClassVar[str] = "e.route.not-found: no plugin is connected for "

    protocols: frozenset[str] = frozenset()

    async def join(self, payload: Any) -> JoinReply:
        protocols = payload.get("payload_types") if isinstance(payload, Mapping) else None
        if not isinstance(protocols, list) or not protocols:
            return JoinReply("error", {"reason": self.missing_protocols})
        self.protocols = frozenset(str(protocol) for protocol in protocols)
        node = self.socket.node
        did = self.assigned or self.topic.partition(":")[2] or node.new_did()
        if node.exclusive and any(self._rivals(did)):
            return JoinReply("error", {"reason": self.already_bound})
        self.did = did
        return JoinReply("ok", {"did": did, "capabilities": list(node.capabilities)})

    def _rivals(self, did: str) -> list[bool]:
        # A plugin is a DID with its protocols: the same DID may be bound twice when the protocols differ.
        return [
            other.protocols == self.protocols
            for other in self.socket.node.channels_of(did)
            if isinstance(other, PluginChannel) and other.socket is not self.socket
        ]

    def handle_in(self, event: str, payload: Any, ref: Ref) -> None:
        if event == "message":
            self.handle_message(payload, ref)
        elif event == "dispatch_reply":
            self.reply(ref)
        elif event != "ack":
            self.crash()

    def handle_message(self, payload: Any, ref: Ref) -> None:
        """Reply, then push the message to every live join of each DID in ``to``; all of them, or none."""
        if self.muted:
            return
        to = payload.get("to") if isinstance(payload, Mapping) else None
        recipients = [did for did in to if isinstance(did, str)] if isinstance(to, list) else []
        node = self.socket.node
        unknown = [did for did in recipients if not node.channels_of(did)]
        if unknown or not recipients:
            self.reply(ref, "error", {"reason": self.route_error(unknown)})
            return
        self.reply(ref)
        for did in recipients:
            for channel in node.channels_of(did):
                if isinstance(channel, PluginChannel):
                    channel.deliver(payload)

    def route_error(self, unknown: list[str]) -> str:
        """The reason of a refused message."""
        return self.not_found + (", ".join(unknown) or "nobody: `to` names no DID")

    def deliver(self, plaintext: Any, context: Mapping[str, Any] | None = None) -> bool:
        """Push a message to this plugin as the node does; False when its socket is closing or gone.

        Args:
            plaintext: the DIDComm plaintext.
            context: in place of the usual one.
        """
        if context is None:
            context = {"recipient": self.did, "authorized": True, "sender_credentials": []}
        sent = self.push("message", {"context": dict(context), "plaintext": plaintext})
        if sent and self.did is not None:
            self.socket.node.observations.message_delivered(self.did)
        return sent
