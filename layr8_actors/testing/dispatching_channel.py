"""A plugin's topic on a node of ``reply_protocol/1``: one message at a time, until the plugin says what became of it.

So far as public SDKs tell: the node keeps one pending dispatch for each channel, and its router waits until it is
settled or times out. ``pass`` lets the next plugin of the DID have the message; where there is none the node answers a
trust ping itself, and else tells the sender by a problem report. Behind a plugin that never answers, messages wait.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from ..phoenix import Ref
from .plugin_channel import PluginChannel

if TYPE_CHECKING:
    from .node_socket import NodeSocket

__all__ = ("Dispatch", "DispatchingChannel")

NODE_DID: Final = "did:web:node.test"
_PING: Final = "https://didcomm.org/trust-ping/2.0/ping"
_PING_RESPONSE: Final = "https://didcomm.org/trust-ping/2.0/ping-response"
_PROBLEM: Final = "https://didcomm.org/report-problem/2.0/problem-report"


@dataclasses.dataclass(slots=True, eq=False)
class Dispatch:
    """One message that was handed to a plugin, and what the plugin said of it.

    Args:
        did: of the plugin.
        message: the plaintext.
        join_ref: of the join that it went out under.
        at: when.
        replies: every ``dispatch_reply`` that came while it was pending, one where all is well.
        settled_at: when the first came; ``None`` until then.
        timed_out: whether the node gave up waiting.
    """

    did: str
    message: Any
    join_ref: Ref
    at: float
    replies: list[Any] = dataclasses.field(default_factory=list)
    settled_at: float | None = None
    timed_out: bool = False

    @property
    def status(self) -> str | None:
        """What the plugin said first."""
        return self.replies[0].get("status") if self.replies else None


class DispatchingChannel(PluginChannel):
    """Give it to ``CloudNode(channels={"plugins:": DispatchingChannel})``; ``node.dispatches`` is what came of it.

    ``dispatch_timeout`` is how many seconds the router waits; the real one is not known. A reply that settles nothing,
    the second to one message for instance, goes to ``node.stray_replies``.
    """

    dispatch_timeout: ClassVar[float] = 15.0

    def __init__(self, socket: NodeSocket, topic: str, join_ref: Ref, ref: Ref) -> None:
        super().__init__(socket, topic, join_ref, ref)
        self._pending: Dispatch | None = None
        self._behind: deque[tuple[Any, Mapping[str, Any] | None, list[DispatchingChannel]]] = deque()
        self._next_plugins: list[DispatchingChannel] = []

    def deliver(self, plaintext: Any, context: Mapping[str, Any] | None = None) -> bool:
        return self.dispatch(plaintext, context, [])

    def dispatch(self, plaintext: Any, context: Mapping[str, Any] | None, others: list[DispatchingChannel]) -> bool:
        """Hand a message to this plugin as soon as nothing is pending; False where it is gone.

        Args:
            plaintext: the message.
            context: as in :meth:`deliver`.
            others: who gets it next when this one passes.
        """
        if not self.alive:
            return False
        if self._pending is not None:
            self._behind.append((plaintext, context, others))
            return True
        dispatch = Dispatch(self.did or "", plaintext, self.channel_ref, trio.current_time())
        self._pending = dispatch
        self._next_plugins = others
        self.socket.node.dispatches.append(dispatch)
        self.after(self.dispatch_timeout, lambda: self._time_out(dispatch))
        return super().deliver(plaintext, context)

    def handle_in(self, event: str, payload: Any, ref: Ref) -> None:
        if event == "dispatch_reply":
            self._settle(payload)
        super().handle_in(event, payload, ref)

    def handle_message(self, payload: Any, ref: Ref) -> None:
        if self.muted:
            return
        node = self.socket.node
        to = payload.get("to") if isinstance(payload, Mapping) else None
        takers: list[list[DispatchingChannel]] = []
        for did in to if isinstance(to, list) else []:
            plugins = [plugin for plugin in node.channels_of(did) if isinstance(plugin, DispatchingChannel)]
            takers.append([plugin for plugin in plugins if plugin.takes(payload)])
            if not takers[-1]:
                self.reply(ref, "error", {"reason": self.route_error([did])})
                return
        self.reply(ref)
        for first, *others in takers:
            first.dispatch(payload, None, others)

    def takes(self, plaintext: Any) -> bool:
        """Whether the plugin is bound to the protocol of a message."""
        type = plaintext.get("type") if isinstance(plaintext, Mapping) else None
        protocol = type.rpartition("/")[0] if isinstance(type, str) else ""
        return protocol in self.protocols or "*" in self.protocols

    def _settle(self, payload: Any) -> None:
        pending = self._pending
        node = self.socket.node
        if pending is None or payload.get("message_id") != pending.message.get("id"):
            node.stray_replies.append(payload)
            return
        pending.replies.append(payload)
        pending.settled_at = trio.current_time()
        others = self._next_plugins
        if pending.status == "pass":
            if others:
                others[0].dispatch(pending.message, None, others[1:])
            else:
                self._answer_for(pending.message)
        self._next()

    def _time_out(self, dispatch: Dispatch) -> None:
        if self._pending is dispatch:
            dispatch.timed_out = True
            self._next()

    def _next(self) -> None:
        self._pending = None
        if self._behind:
            self.dispatch(*self._behind.popleft())

    def _answer_for(self, message: Any) -> None:
        sender = message.get("from")
        type, body = _PROBLEM, {"code": "e.p.msg.unsupported", "comment": "no plugin took the message"}
        if message.get("type") == _PING:
            type, body = _PING_RESPONSE, {}
        answer = {"id": f"of {message.get('id')}", "type": type, "from": NODE_DID, "to": [sender], "body": body}
        answer["thid" if type == _PING_RESPONSE else "pthid"] = message.get("thid") or message.get("id")
        for channel in self.socket.node.channels_of(sender) if isinstance(sender, str) else []:
            if isinstance(channel, PluginChannel):
                channel.deliver(answer)
