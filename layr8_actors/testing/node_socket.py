"""One WebSocket of the node: the counterpart of a ``Phoenix.Socket`` process and its transport.

Rules of Phoenix 1.7.24, 1.8.11 and 1.8.12 on Bandit, as recorded: how frames are routed to the channels of the socket,
what answers a frame that none takes, and with which code the socket closes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from ..errors import MalformedFrame
from ..phoenix import HEARTBEAT, PHOENIX_TOPIC, PHX_CLOSE, PHX_JOIN, PHX_LEAVE, PHX_REPLY, Frame, Ref
from .node_channel import JoinCrashed, JoinReply, NodeChannel
from .phoenix_version import NodeSerializer, PhoenixVersion
from .upgrade_request import UpgradeRequest
from .web_socket import ServerWebSocket, SocketEnded

if TYPE_CHECKING:
    from .cloud_node import CloudNode

__all__ = ("MAX_CHANNELS", "NodeSocket")

MAX_CHANNELS: Final = 100
"""Topics of one socket (``max_channels_per_transport``, Phoenix 1.7.24 and from 1.8.9 on)."""

_INTERNAL_ERROR: Final = 1011
_IDLE: Final = 1002


class NodeSocket:
    """One client's connection, from the accepted upgrade to its end; :meth:`run` is its life.

    Args:
        node: the node it belongs to.
        number: counts the sockets of a node from 1.
        request: the upgrade it came with.
        web_socket: the accepted WebSocket.
        serializer: V1 or V2, as the upgrade's ``vsn`` selected.
    """

    def __init__(
        self,
        node: CloudNode,
        number: int,
        request: UpgradeRequest,
        web_socket: ServerWebSocket,
        serializer: NodeSerializer,
    ) -> None:
        self.node = node
        self.number = number
        self.request = request
        self.web_socket = web_socket
        self.version: PhoenixVersion = node.version
        self.channels: dict[str, NodeChannel] = {}
        self.dids: dict[str, str] = {}  # By topic; kept after the topic's end, so that its frames can be looked up.
        self._serializer = serializer
        self._nursery: trio.Nursery | None = None
        self._active_at = trio.current_time()

    def __repr__(self) -> str:
        return f"<NodeSocket {self.number} topics={list(self.channels)}>"

    @property
    def live(self) -> bool:
        """True until a close frame was sent or received, or the stream has ended."""
        return self.web_socket.open

    # --- its life -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the client until the WebSocket has ended; leaves no task and no open stream, also when cancelled."""
        web_socket = self.web_socket
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(web_socket.write_loop)
                if not math.isinf(self.node.idle_timeout):
                    nursery.start_soon(self._watch_idle)
                try:
                    while True:
                        for message in await web_socket.receive():
                            await self._receive(message)
                        self._active_at = trio.current_time()
                except SocketEnded:
                    self.drop_channels()
                    # The close frame that is due goes out, but a client that does not read it holds up nothing.
                    with trio.move_on_after(self.node.close_timeout):
                        if web_socket.close_code is not None and not web_socket.ended:
                            await web_socket.finish()
                finally:
                    self._nursery = None  # before it closes: nobody must start a task in it then, cancelled or not
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self.drop_channels()
            web_socket.drop()

    async def _watch_idle(self) -> None:
        timeout = self.node.idle_timeout
        while True:
            left = self._active_at + timeout - trio.current_time()
            if left <= 0 and self.web_socket.writing.is_open and self.web_socket.reading.is_open:
                await self.close(_IDLE)
                return
            await trio.sleep(left if left > 0 else timeout)

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code, wait for the client's echo until the node's ``close_timeout``, then drop the stream."""
        self.begin_close(code, reason)
        await trio.sleep(self.node.close_timeout)
        self.web_socket.drop()

    def resume(self) -> None:
        """Read and write again; a suspended process's timers begin anew."""
        self._active_at = trio.current_time()
        self.web_socket.writing.open()
        self.web_socket.reading.open()

    def begin_close(self, code: int, reason: str = "") -> None:
        """Send a close frame behind what waits in the outbox; all channels end without a word, as in Phoenix."""
        self.web_socket.close(code, reason)
        self.drop_channels()

    def close_soon(self, code: int, reason: str = "") -> None:
        """Do :meth:`close` in a task of the socket."""
        if self._nursery is not None:
            self.begin_close(code, reason)
            self._nursery.start_soon(self.close, code, reason)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` in so many seconds, unless the socket has ended by then."""
        if self._nursery is not None:
            self._nursery.start_soon(self._act_after, seconds, action)

    async def _act_after(self, seconds: float, action: Callable[[], None]) -> None:
        await trio.sleep(seconds)
        action()

    # --- frames in ----------------------------------------------------------------------------------------------------

    async def _receive(self, message: str | bytes) -> None:
        if not self.web_socket.open:
            return
        try:
            frame = self._serializer.decode(message)
        except MalformedFrame:
            # The exception kills the socket process: every channel dies without phx_error.
            self.node.observations.bad_frame()
            self.close_soon(_INTERNAL_ERROR)
            return
        self.node.observations.received(self, frame)
        if frame.topic == PHOENIX_TOPIC and frame.event == HEARTBEAT:
            if not self.node.rules.ignores_heartbeats:
                self._answer(None, frame, "ok", {})
            return
        channel = self.channels.get(frame.topic) if isinstance(frame.topic, str) else None
        if frame.event == PHX_JOIN:
            await self._join(frame, channel)
        elif frame.event == PHX_LEAVE:
            self._leave(frame, channel)
        elif channel is None:
            self._answer(None, frame, "error", {"reason": "unmatched topic"})
        elif self.version.handles_push(frame.join_ref, channel.join_ref):
            channel.receive(frame)

    async def _join(self, frame: Frame, old: NodeChannel | None) -> None:
        channel_type = self.node.channel_type(frame.topic) if isinstance(frame.topic, str) else None
        if channel_type is None or not isinstance(frame.topic, str):
            self._answer(None, frame, "error", {"reason": "unmatched topic"})
            return
        if old is not None:
            # The old channel is gone before the new join runs, but its phx_close follows the new join's reply.
            self.remove(old)
        if len(self.channels) >= self.node.max_channels:
            self._answer(frame.join_ref, frame, "error", {"reason": "too many channels joined"})
        else:
            await self._run_join(channel_type(self, frame.topic, frame.join_ref, frame.ref), frame)
        if old is not None:
            self.send_frame(Frame(old.join_ref, old.join_ref, old.topic, PHX_CLOSE, {}))

    async def _run_join(self, channel: NodeChannel, frame: Frame) -> None:
        rule = self.node.rules.take_join_rule(channel.topic)
        if rule is not None:
            channel.assigned = rule.assign
            if rule.delay:
                await trio.sleep(rule.delay)
        if rule is not None and rule.refuse is not None:
            outcome = JoinReply("error", rule.refuse)
        else:
            try:
                outcome = await channel.join(frame.payload)
            except JoinCrashed:
                outcome = JoinReply("error", {"reason": "join crashed"})
        if not self.web_socket.open:
            return
        if outcome.status == "ok":
            self.channels[channel.topic] = channel
            if channel.did is not None:
                self.dids[channel.topic] = channel.did
            self.node.bind(channel)
        self.node.observations.joined(self, channel.topic, accepted=outcome.status == "ok")
        payload: Any = {"status": outcome.status, "response": outcome.response}
        if rule is not None and rule.has_payload:
            payload = rule.payload
        if rule is None or not rule.unanswered:
            self.send_frame(Frame(frame.join_ref, frame.ref, channel.topic, PHX_REPLY, payload))
        if outcome.status == "ok":
            channel.after_join()

    def _leave(self, frame: Frame, channel: NodeChannel | None) -> None:
        if channel is None:
            self._answer(frame.join_ref, frame, "ok", {})
        elif self.version.handles_leave(frame.join_ref, channel.join_ref):
            self._answer(channel.channel_ref, frame, "ok", {})
            channel.stop()

    # --- frames out ---------------------------------------------------------------------------------------------------

    def _answer(self, join_ref: Ref, frame: Frame, status: str, response: Any) -> None:
        payload = {"status": status, "response": response}
        self.send_frame(Frame(join_ref, frame.ref, frame.topic, PHX_REPLY, payload))

    def send_frame(self, frame: Frame) -> bool:
        """Put a frame into the outbox; False when the socket is closing or gone."""
        return self.send_message(self._serializer.encode(frame))

    def send_message(self, message: str | bytes) -> bool:
        """Put one WebSocket message into the outbox; False when the socket is closing or gone."""
        self._active_at = trio.current_time()
        return self.web_socket.send(message)

    # --- channels -----------------------------------------------------------------------------------------------------

    def remove(self, channel: NodeChannel) -> bool:
        """End a channel without a word to the client; False when it had ended already."""
        if self.channels.get(channel.topic) is not channel:
            return False
        del self.channels[channel.topic]
        channel.alive = False
        self.node.unbind(channel)
        channel.terminate()
        self.node.observations.changed()
        return True

    def drop_channels(self) -> None:
        """End all channels without a word to the client, as the end of a socket process does."""
        for channel in list(self.channels.values()):
            self.remove(channel)
