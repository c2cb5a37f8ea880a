"""What nodes do at night, on demand: the methods with which a test makes a :class:`CloudNode` misbehave.

All but :meth:`NodeBehaviours.flood` act at once and never checkpoint; what they send leaves in the order of the calls.
Where a method takes ``did``, ``None`` means every live socket (or every join, reply and so on to come).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio

from ..errors import NotConnected
from ..phoenix import PHX_REPLY, Frame, Ref
from .dispatching_channel import Dispatch
from .node_channel import NodeChannel
from .node_socket import NodeSocket
from .plugin_channel import PluginChannel
from .rules import JoinRule, ReplyRule, Rules, UpgradeRule

__all__ = ("NodeBehaviours",)


class NodeBehaviours:
    """The misbehaving half of :class:`CloudNode`, which is the only subclass.

    Every method with a ``did`` raises :class:`~layr8_actors.errors.NotConnected` when no live socket holds that DID,
    so that a test cannot pass because nothing happened.
    """

    def __init__(self) -> None:
        self.rules = Rules()
        self._sockets: list[NodeSocket] = []
        self._by_did: dict[str, list[NodeChannel]] = {}
        self._dispatches: list[Dispatch] = []
        self._stray_replies: list[Any] = []

    @property
    def dispatches(self) -> list[Dispatch]:
        """What was handed to plugins that say what became of it; see :class:`DispatchingChannel`."""
        return self._dispatches

    @property
    def stray_replies(self) -> list[Any]:
        """The payload of each ``dispatch_reply`` that settled nothing."""
        return self._stray_replies

    def bind(self, channel: NodeChannel) -> None:
        """Note that a channel holds its DID; called by the socket when the join was accepted."""
        if channel.did is not None:
            self._by_did.setdefault(channel.did, []).append(channel)

    def unbind(self, channel: NodeChannel) -> None:
        """Note that a channel has ended."""
        channels = self._by_did.get(channel.did, []) if channel.did is not None else []
        if channel in channels:
            channels.remove(channel)
            if not channels and channel.did is not None:
                del self._by_did[channel.did]

    # --- who is meant -------------------------------------------------------------------------------------------------

    def _targets(self, did: str | None) -> list[NodeSocket]:
        if did is None:
            return [socket for socket in self._sockets if not socket.web_socket.ended]
        return list(dict.fromkeys(channel.socket for channel in self._channels(did)))

    def _channels(self, did: str | None) -> list[NodeChannel]:
        if did is None:
            return [channel for socket in self._sockets for channel in socket.channels.values()]
        channels = list(self._by_did.get(did, ()))
        if not channels:
            raise NotConnected(f"{did} is not connected to this node")
        return channels

    # --- the socket ---------------------------------------------------------------------------------------------------

    def drop(self, did: str | None = None, *, reset: bool = False) -> None:
        """Cut the connection without a close frame, so that the client sees 1006.

        Args:
            did: whose sockets.
            reset: with RST, which loses what the client had not read yet; else with FIN.
        """
        for socket in self._targets(did):
            if reset:
                socket.web_socket.reset()
            else:
                socket.web_socket.drop()
            socket.drop_channels()

    def close(self, code: int = 1000, reason: str = "", did: str | None = None) -> None:
        """Close the WebSocket behind what was sent before, as Phoenix does: no phx_close and no phx_error first.

        Args:
            code: 1000 is what an idle timeout on Cowboy or an admin of Phoenix 1.7 gives, 1001 an admin of 1.8.8 and
                later, 1002 an idle timeout on Bandit, 1011 a crash, 1012 a restart.
            reason: at most 123 bytes; Phoenix sends none.
            did: whose sockets.
        """
        for socket in self._targets(did):
            socket.close_soon(code, reason)

    def disconnect(self, did: str | None = None) -> None:
        """Do what an admin's ``disconnect`` broadcast does: close with 1000 (before Phoenix 1.8.8) or 1001."""
        for socket in self._targets(did):
            socket.close_soon(socket.version.disconnect_code)

    def go_silent(self, did: str | None = None) -> None:
        """Read and handle everything, but send nothing until :meth:`resume`; then all of it leaves at once."""
        for socket in self._targets(did):
            socket.web_socket.writing.close()

    def stop_reading(self, did: str | None = None) -> None:
        """Read nothing until :meth:`resume`, so that the client's writes fill the buffers and block."""
        for socket in self._targets(did):
            socket.web_socket.reading.close()

    def resume(self, did: str | None = None) -> None:
        """End :meth:`go_silent` and :meth:`stop_reading`."""
        for socket in self._targets(did):
            socket.resume()

    # --- the topic ----------------------------------------------------------------------------------------------------

    def crash_topic(self, did: str | None = None) -> None:
        """Crash the topic: ``phx_error``, and ``unmatched topic`` for what is pushed to it then."""
        for channel in self._channels(did):
            channel.crash()

    def close_topic(self, did: str | None = None) -> None:
        """Close the topic from the node's side: ``phx_close`` with its join_ref."""
        for channel in self._channels(did):
            channel.stop()

    def forget_topic(self, did: str | None = None) -> None:
        """Lose the topic without a word, so that only ``unmatched topic`` tells of it."""
        for channel in self._channels(did):
            channel.socket.remove(channel)

    def mute(self, did: str | None = None) -> None:
        """Answer nothing on the topic as joined now (a hung channel process); heartbeats and leaves are answered."""
        for channel in self._channels(did):
            channel.muted = True

    def unmute(self, did: str | None = None) -> None:
        """End :meth:`mute`; what was not answered stays so."""
        for channel in self._channels(did):
            channel.muted = False

    # --- upgrades -----------------------------------------------------------------------------------------------------

    def refuse_upgrades(
        self,
        status: int = 503,
        *,
        count: int | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer upgrades with an HTTP status, a redirect (with a ``Location`` header) included.

        Args:
            status: 300 to 599; 403 is Phoenix's for a bad key, vsn or origin alike.
            count: how many; ``None`` for all until :meth:`behave`.
            body: of the answer.
            headers: of the answer.
        """
        self.rules.upgrades.append(UpgradeRule(count, status, body, tuple((headers or {}).items())))

    def ignore_upgrades(self, *, count: int | None = None) -> None:
        """Accept connections, and never answer their upgrade; the client's open deadline has to end it."""
        self.rules.upgrades.append(UpgradeRule(count))

    def delay_upgrades(self, seconds: float, *, count: int | None = None) -> None:
        """Accept upgrades only after so many seconds."""
        self.rules.upgrades.append(UpgradeRule(count, delay=seconds, accept=True))

    def answer_upgrades(self, data: bytes, *, count: int | None = None) -> None:
        """Answer upgrades with any bytes, HTTP or not, then drop the stream; ``b""`` drops it in the handshake."""
        self.rules.upgrades.append(UpgradeRule(count, raw=data))

    # --- joins --------------------------------------------------------------------------------------------------------

    def refuse_joins(self, reason: Any, *, did: str | None = None, count: int | None = None) -> None:
        """Answer joins with an error.

        Args:
            reason: such as ``"e.connect.plugin.failed: protocols_already_bound"``; any JSON value, as nodes may do.
            did: only joins of ``plugins:{did}``.
            count: how many; ``None`` for all until :meth:`behave`.
        """
        self.rules.joins.append(JoinRule(count, did, refuse={"reason": reason}))

    def delay_joins(self, seconds: float, *, did: str | None = None, count: int | None = None) -> None:
        """Run joins only after so many seconds; the whole socket waits meanwhile, heartbeats too, as in Phoenix."""
        self.rules.joins.append(JoinRule(count, did, delay=seconds))

    def answer_joins(self, payload: Any, *, did: str | None = None, count: int | None = None) -> None:
        """Run joins, but reply with any payload in place of ``{"status", "response"}``, one that is no object too."""
        self.rules.joins.append(JoinRule(count, did, payload=payload))

    def ignore_joins(self, *, did: str | None = None, count: int | None = None) -> None:
        """Run joins, and never reply to them; the rest of the socket goes on."""
        self.rules.joins.append(JoinRule(count, did, unanswered=True))

    def assign_did(self, assigned: str, *, did: str | None = None, count: int | None = 1) -> None:
        """Give the next join another DID than the one it asks for (or than an ephemeral one)."""
        self.rules.joins.append(JoinRule(count, did, assign=assigned))

    # --- replies ------------------------------------------------------------------------------------------------------

    def delay_replies(
        self, seconds: float, *, did: str | None = None, event: str | None = None, count: int | None = None
    ) -> None:
        """Send replies to pushes only after so many seconds; those of a topic that ended by then are lost."""
        self.rules.replies.append(ReplyRule(count, did, event, delay=seconds))

    def repeat_replies(
        self, times: int = 2, *, did: str | None = None, event: str | None = None, count: int | None = None
    ) -> None:
        """Send each reply to a push several times."""
        self.rules.replies.append(ReplyRule(count, did, event, times=times))

    def drop_replies(self, *, did: str | None = None, event: str | None = None, count: int | None = None) -> None:
        """Act on pushes, but never reply to them."""
        self.rules.replies.append(ReplyRule(count, did, event, times=0))

    def answer_pushes(
        self, payload: Any, *, did: str | None = None, event: str | None = None, count: int | None = None
    ) -> None:
        """Reply to pushes with any payload in place of ``{"status", "response"}``, one that is no object too."""
        self.rules.replies.append(ReplyRule(count, did, event, payload=payload))

    def ignore_heartbeats(self, ignored: bool = True) -> None:
        """Leave heartbeats unanswered, or answer them again."""
        self.rules.ignores_heartbeats = ignored

    def behave(self) -> None:
        """Forget all that was said about upgrades, joins, replies and heartbeats to come."""
        self.rules.clear()

    # --- frames that nobody asked for ---------------------------------------------------------------------------------

    def push(self, did: str, event: str, payload: Any) -> None:
        """Push any event with any payload on the topics of a DID, with the right join_ref."""
        for channel in self._channels(did):
            channel.push(event, payload)

    def deliver(self, did: str, plaintext: Any, context: Mapping[str, Any] | None = None) -> None:
        """Push a ``message`` to a DID as if another plugin had sent it.

        Args:
            did: the recipient.
            plaintext: the DIDComm plaintext.
            context: in place of the usual ``{"recipient", "authorized", "sender_credentials"}``.
        """
        for channel in self._channels(did):
            if isinstance(channel, PluginChannel):
                channel.deliver(plaintext, context)

    async def flood(self, did: str, count: int, make: Callable[[int], Any] | None = None) -> None:
        """Push ``count`` messages to a DID as fast as it reads them; checkpoints.

        Args:
            did: the recipient; the flood ends early when nobody holds the DID any more.
            count: how many.
            make: returns the plaintext for each number from 0; by default a small one with the number as ``id``.
        """
        self._channels(did)
        for number in range(count):
            plaintext = {"id": str(number), "type": "flood", "body": {}} if make is None else make(number)
            channels = [channel for channel in self._by_did.get(did, ()) if isinstance(channel, PluginChannel)]
            if not channels:
                break
            for channel in channels:
                channel.deliver(plaintext)
                await channel.socket.web_socket.wait_for_room()
        await trio.lowlevel.checkpoint()

    def send_stale(self, did: str, event: str, payload: Any, *, join_ref: Ref = "0", ref: Ref = None) -> None:
        """Push on the topics of a DID with a join_ref that is not, or no longer, the one in force."""
        for channel in self._channels(did):
            channel.socket.send_frame(Frame(join_ref, ref, channel.topic, event, payload))

    def send_foreign(self, did: str, event: str, payload: Any, *, topic: str = "plugins:did:web:foreign") -> None:
        """Push on a topic that the socket of a DID has not joined, with the join_ref of one that it has."""
        for channel in self._channels(did):
            channel.socket.send_frame(Frame(channel.channel_ref, None, topic, event, payload))

    def send_reply(self, did: str, ref: Ref, payload: Any) -> None:
        """Send a ``phx_reply`` to a ref, also one that was answered or never sent."""
        for channel in self._channels(did):
            channel.socket.send_frame(Frame(channel.channel_ref, ref, channel.topic, PHX_REPLY, payload))

    def send_frame(self, frame: Frame, did: str | None = None) -> None:
        """Send any frame; a payload of bytes makes it a binary one."""
        for socket in self._targets(did):
            socket.send_frame(frame)

    def send_raw(self, message: str | bytes, did: str | None = None) -> None:
        """Send any WebSocket message, text for ``str`` and binary for ``bytes``, whether it is a frame or not."""
        for socket in self._targets(did):
            socket.send_message(message)

    def send_wire(self, data: bytes, did: str | None = None) -> None:
        """Send bytes below WebSocket framing: half a frame, or no frame at all."""
        for socket in self._targets(did):
            socket.web_socket.send_wire(data)
