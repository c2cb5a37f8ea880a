"""One joined topic of the node: the counterpart of a ``Phoenix.Channel`` process, to be subclassed.

Where Phoenix runs a process, this is a plain object that its socket calls: what it does is done before the next frame
is read, so the order of frames is always the same. Only replies and actions put off with :meth:`NodeChannel.after`
come later, and die with the channel as messages to a dead process do.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..phoenix import PHX_CLOSE, PHX_ERROR, PHX_REPLY, Frame, Ref

if TYPE_CHECKING:
    from .node_socket import NodeSocket

__all__ = ("JoinCrashed", "JoinReply", "NodeChannel")


class JoinCrashed(Exception):
    """Raised by :meth:`NodeChannel.join` where a callback of Phoenix raises: the client gets ``join crashed``."""


@dataclass(frozen=True, slots=True)
class JoinReply:
    """What a join callback returned.

    Args:
        status: ``"ok"``, or ``"error"`` for a refusal.
        response: any JSON value.
    """

    status: str
    response: Any


class NodeChannel(abc.ABC):
    """A topic on one socket, from its join to its end.

    Args:
        socket: the socket it was joined on.
        topic: the topic as joined.
        join_ref: the join_ref as sent, ``None`` included; ``phx_close`` and ``phx_error`` carry it.
        ref: the ref of the join; replies and pushes carry it where join_ref is ``None``.

    ``did`` is the DID that the join was given, ``assigned`` the one that the test wants it to be given, ``muted``
    whether replies are withheld.
    """

    def __init__(self, socket: NodeSocket, topic: str, join_ref: Ref, ref: Ref) -> None:
        self.socket = socket
        self.topic = topic
        self.join_ref = join_ref
        self.channel_ref = ref if join_ref is None else join_ref
        self.alive = True
        self.muted = False
        self.did: str | None = None
        self.assigned: str | None = None
        self._event = ""

    # --- callbacks, for subclasses ------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def join(self, payload: Any) -> JoinReply:
        """Answer ``phx_join``; the whole socket waits for it, as in Phoenix.

        Raises:
            JoinCrashed: to show what a callback that raises does.
        """

    def handle_in(self, event: str, payload: Any, ref: Ref) -> None:
        """Handle a push; the default knows no event, which crashes the channel, as an unmatched clause does."""
        self.crash()

    def after_join(self) -> None:  # noqa: B027 - a callback that a subclass may leave out, as in Phoenix
        """Called right after the reply to an accepted join went out, the place for a first push."""

    def terminate(self) -> None:  # noqa: B027 - likewise
        """Called once when a channel whose join was accepted ends, whatever ended it."""

    def receive(self, frame: Frame) -> None:
        """Hand a push to :meth:`handle_in`; called by the socket."""
        self._event = frame.event
        self.handle_in(frame.event, frame.payload, frame.ref)

    # --- what a callback may do ---------------------------------------------------------------------------------------

    def reply(self, ref: Ref, status: str = "ok", response: Any = None) -> None:
        """Reply to a push; any number of times, at any time until the channel ends.

        Args:
            ref: the ref of the push.
            status: ``"ok"``, ``"error"``, or any other.
            response: any JSON value, or bytes for a binary reply; ``None`` sends an empty object.
        """
        payload: Any = {"status": status, "response": {} if response is None else response}
        rule = self.socket.node.rules.take_reply_rule(self, self._event)
        if rule is None:
            self.reply_payload(ref, payload)
            return
        if rule.has_payload:
            payload = rule.payload
        for _ in range(rule.times):
            if rule.delay:
                self.after(rule.delay, lambda: self.reply_payload(ref, payload))
            else:
                self.reply_payload(ref, payload)

    def reply_payload(self, ref: Ref, payload: Any) -> None:
        """Send a ``phx_reply`` with any payload, also one that Phoenix would never send."""
        if self.alive and not self.muted:
            self.socket.send_frame(Frame(self.channel_ref, ref, self.topic, PHX_REPLY, payload))

    def push(self, event: str, payload: Any) -> bool:
        """Push to this client; False when the channel or its socket is gone."""
        return self.alive and self.socket.send_frame(Frame(self.channel_ref, None, self.topic, event, payload))

    def broadcast(self, event: str, payload: Any) -> None:
        """Push to all who have joined this topic on any socket, itself included; join_ref is null, as in Phoenix."""
        for channel in self.socket.node.channels_on(self.topic):
            channel.socket.send_frame(Frame(None, None, self.topic, event, payload))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` in so many seconds, unless the channel has ended by then."""
        self.socket.after(seconds, lambda: action() if self.alive else None)

    def stop(self) -> None:
        """End normally: ``phx_close`` (``{:stop, :normal, socket}``, ``{:stop, {:shutdown, _}, socket}``)."""
        if self.socket.remove(self):
            self.socket.send_frame(Frame(self.join_ref, self.join_ref, self.topic, PHX_CLOSE, {}))

    def crash(self) -> None:
        """End abnormally: ``phx_error`` (a callback raised, the process was killed, ``{:stop, :boom, socket}``)."""
        if self.socket.remove(self):
            payload = dict(self.socket.version.error_payload)
            self.socket.send_frame(Frame(self.join_ref, self.join_ref, self.topic, PHX_ERROR, payload))
