"""A node that does what a test says, frame by frame: no sockets, so each moment of a channel's life can be held still.

Tests of the channel over a real WebSocket and a whole CloudNode are in ``test_channel_over_sockets.py``.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, ChannelOptions, router
from layr8_actors.channel.record import Record
from layr8_actors.channel.routed_messages import route_messages
from layr8_actors.channel.router import Router
from layr8_actors.errors import ConnectFailed, TransportClosed
from layr8_actors.phoenix import Frame, Serializer
from layr8_actors.telemetry import Event
from layr8_actors.transport import Endpoint

DID = "did:web:node.test:alice"
TOPIC = f"plugins:{DID}"
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


class ScriptedSocket:
    """The client's end of one socket; what the channel sends is handed to the node at once."""

    name = "scripted"

    def __init__(self, node: ScriptedNode) -> None:
        self._node = node
        self._inbound: deque[str | bytes] = deque()
        self._news = trio.Event()
        self._closed: TransportClosed | None = None
        self.frames: list[Frame] = []
        self.ended_by = ""
        self.close_code = 0
        self.reads = 0
        self.writable = trio.Event()
        self.writable.set()

    @property
    def open(self) -> bool:
        return self._closed is None

    @property
    def pushes(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.event not in ("phx_join", "phx_leave", "heartbeat")]

    @property
    def join_ref(self) -> Any:
        return [frame.ref for frame in self.frames if frame.event == "phx_join"][-1]

    # --- what the channel calls ---

    async def receive(self) -> list[str | bytes]:
        await trio.lowlevel.checkpoint()
        while not self._inbound:
            if self._closed is not None:
                raise TransportClosed(self._closed.code, self._closed.reason)
            self._news = trio.Event()
            await self._news.wait()
        batch = list(self._inbound)
        self._inbound.clear()
        self.reads += 1
        return batch

    async def send(self, batch: Sequence[str | bytes]) -> None:
        await trio.lowlevel.checkpoint()
        await self.writable.wait()
        if self._closed is not None:
            raise TransportClosed(self._closed.code)
        for data in batch:
            frame = self._node.serializer.decode(data)
            self.frames.append(frame)
            self._node.handle(self, frame)

    def send_nowait(self, message: str | bytes) -> bool:
        if self._closed is not None or not self.writable.is_set():
            raise trio.WouldBlock
        frame = self._node.serializer.decode(message)
        self.frames.append(frame)
        self._node.handle(self, frame)
        return True

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(timeout):
            await self.writable.wait()
        self.close_code = code
        self._end("close", TransportClosed(code, reason))

    def abort(self) -> None:
        self._end("abort", TransportClosed(1006))

    # --- what the test calls ---

    def drop(self, code: int = 1006, reason: str = "") -> None:
        """The network or the node ends the socket."""
        self._end("peer", TransportClosed(code, reason))

    def stop_reading(self) -> None:
        self.writable = trio.Event()

    def say(self, *frames: Frame | str | bytes) -> None:
        """The node sends frames, or raw messages; all of them arrive in one read."""
        for frame in frames:
            self._inbound.append(self._node.serializer.encode(frame) if isinstance(frame, Frame) else frame)
        self._news.set()

    def message(self, number: int, **more: Any) -> None:
        self.say(Frame(self.join_ref, None, self._node.topic, "message", {"plaintext": {"id": str(number)}, **more}))

    def reply(self, request: Frame, status: str = "ok", response: Any = None) -> None:
        payload = {"status": status, "response": {} if response is None else response}
        self.say(Frame(request.join_ref, request.ref, request.topic, "phx_reply", payload))

    def _end(self, by: str, error: TransportClosed) -> None:
        if self._closed is None:
            self._closed = error
            self.ended_by = by
            self.writable.set()
            self._news.set()


class ScriptedNode:
    """A connector whose node answers as ``on_frame`` says, or well where it does not."""

    name = "scripted"

    def __init__(self) -> None:
        self.serializer = Serializer()
        self.sockets: list[ScriptedSocket] = []
        self.dials = 0
        self.dialling = 0
        self.most_at_once = 0
        self.endpoints: list[Endpoint] = []
        self.dial_error: Exception | None = None
        self.dial_gate: trio.Event | None = None
        self.topic = TOPIC
        self.join_response: Any = {"did": DID, "capabilities": ["reply_protocol/1"]}
        self.join_refusal: str | None = None
        self.hold_joins = False
        self.held_joins: list[tuple[ScriptedSocket, Frame]] = []
        self.deaf = False
        self.mute = False
        self.on_push: Callable[[ScriptedSocket, Frame], None] | None = None
        self.events: list[Event] = []

    @property
    def socket(self) -> ScriptedSocket:
        return self.sockets[-1]

    @property
    def open_sockets(self) -> int:
        return sum(socket.open for socket in self.sockets)

    @property
    def joins(self) -> int:
        return sum(frame.event == "phx_join" for socket in self.sockets for frame in socket.frames)

    async def open(self, nursery: trio.Nursery, endpoint: Endpoint) -> ScriptedSocket:
        self.dials += 1
        self.dialling += 1
        self.most_at_once = max(self.most_at_once, self.dialling + self.open_sockets)
        self.endpoints.append(endpoint)
        try:
            await trio.lowlevel.checkpoint()
            if self.dial_gate is not None:
                with trio.move_on_after(endpoint.open_timeout) as scope:
                    await self.dial_gate.wait()
                if scope.cancelled_caught:
                    raise ConnectFailed(endpoint.public_url, f"no connection within {endpoint.open_timeout:g} s")
            if self.dial_error is not None:
                raise self.dial_error
        finally:
            self.dialling -= 1
        self.sockets.append(ScriptedSocket(self))
        return self.socket

    def handle(self, socket: ScriptedSocket, frame: Frame) -> None:
        if self.deaf:
            return
        match frame.event:
            case "heartbeat":
                socket.say(Frame(None, frame.ref, "phoenix", "phx_reply", {"status": "ok", "response": {}}))
            case "phx_join" if self.hold_joins:
                self.held_joins.append((socket, frame))
            case "phx_join":
                self.answer_join(socket, frame)
            case "phx_leave":
                socket.reply(frame)
                socket.say(Frame(frame.join_ref, frame.join_ref, frame.topic, "phx_close", {}))
            case _ if self.on_push is not None:
                self.on_push(socket, frame)
            case _ if not self.mute:
                socket.reply(frame)

    def answer_join(self, socket: ScriptedSocket, frame: Frame) -> None:
        if self.join_refusal is not None:
            socket.reply(frame, "error", {"reason": self.join_refusal})
        else:
            socket.reply(frame, "ok", self.join_response)

    def release_joins(self) -> None:
        self.hold_joins = False
        held, self.held_joins = self.held_joins, []
        for socket, frame in held:
            self.answer_join(socket, frame)

    def options(self, **changes: Any) -> ChannelOptions:
        """Options of a channel to this node, whose events are collected."""
        defaults: dict[str, Any] = {
            "ws_url": "ws://node.test/plugin_socket/websocket",
            "api_key": "s3cr3t-k3y",
            "agent_did": DID,
            "transport": self,
            "on_event": self.events.append,
        }
        return ChannelOptions(**{**defaults, **changes})

    def seen(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


class Calls:
    """Callbacks that write down what they were called with, with the time."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.disconnects: list[Exception] = []
        self.reconnects = 0
        self.order: list[str] = []

    def on_message(self, payload: Any) -> None:
        self.messages.append(payload)

    def on_disconnect(self, error: Exception) -> None:
        self.disconnects.append(error)
        self.order.append("disconnect")

    def on_reconnect(self) -> None:
        self.reconnects += 1
        self.order.append("reconnect")

    @property
    def ids(self) -> list[int]:
        return [int(message["plaintext"]["id"]) for message in self.messages]

    def callbacks(self) -> Callbacks:
        return Callbacks(self.on_message, self.on_disconnect, self.on_reconnect)


def poison_router(monkeypatch: pytest.MonkeyPatch, id: str) -> list[None]:
    """Let each router crash on the message of this id, and on nothing before it; returns an entry for each crash."""
    route_one = Router._route_one
    crashes: list[None] = []

    def poisonous(frame: Frame) -> bool:
        return isinstance(frame.payload, dict) and frame.payload.get("plaintext", {}).get("id") == id

    def poisoned_messages(record: Record, link: int, frames: list[Frame], sizes: list[int]) -> None:
        good = list(itertools.takewhile(lambda frame: not poisonous(frame), frames))
        route_messages(record, link, good, sizes)

    def poisoned(self: Router, link: int, frame: Frame) -> bool:
        if poisonous(frame):
            crashes.append(None)
            raise RuntimeError("poison")
        return route_one(self, link, frame)

    monkeypatch.setattr(router, "route_messages", poisoned_messages)
    monkeypatch.setattr(Router, "_route_one", poisoned)
    return crashes


@pytest.fixture
def node() -> ScriptedNode:
    return ScriptedNode()


@pytest.fixture
def calls() -> Calls:
    return Calls()
