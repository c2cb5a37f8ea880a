"""The reference client, phoenix.js on Node.js, finds in CloudNode what it finds in Phoenix.

It needs Node.js 20 and the packages of ``package.json``, which ``make interop`` installs; elsewhere it is skipped.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, ChannelOptions, open_channel
from layr8_actors.testing import CloudNode
from layr8_actors.testing.node_socket import NodeSocket

HERE = Path(__file__).parent
NODE_JS = shutil.which("node")
INSTALLED = (HERE / "node_modules" / "phoenix").is_dir() and (HERE / "node_modules" / "ws").is_dir()

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(NODE_JS is None, reason="Node.js is not here, so phoenix.js cannot be run against CloudNode"),
    pytest.mark.skipif(not INSTALLED, reason="phoenix.js is not here: `make interop` installs and runs it"),
]

DID = "did:web:node.test:alice"
TOPIC = f"plugins:{DID}"
JOIN = {"payload_types": ["https://didcomm.org/basicmessage/2.0"], "reply_protocol": True, "did_spec": {}}
KEY = "s3cr3t/&="
WITHIN = 20.0
"""Seconds of real time for any one thing to happen; each takes some milliseconds."""


class PhoenixJS:
    """One process of ``client.mjs``: what it is told, and what it saw."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""
        self.seen: list[dict[str, Any]] = []

    async def do(self, command: str, **more: Any) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps({"do": command, **more}).encode() + b"\n")

    async def next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self._process.stdout.receive_some(65536)
            assert data, f"phoenix.js ended; it saw {self.seen}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        self.seen.append(event)
        return event

    async def until(self, saw: str) -> dict[str, Any]:
        """Read on to the next event of that kind; the others are kept in ``seen``."""
        with trio.move_on_after(WITHIN):
            while True:
                event = await self.next()
                if event["saw"] == saw:
                    return event
        pytest.fail(f"phoenix.js did not see {saw!r} within {WITHIN} s, but {self.seen}")

    async def ask(self, event: str, payload: Any, id: int) -> dict[str, Any]:
        await self.do("push", topic=TOPIC, event=event, payload=payload, id=id)
        while (reply := await self.until("reply"))["id"] != id:
            pass
        return reply


@contextlib.asynccontextmanager
async def phoenix_js(node: CloudNode) -> AsyncIterator[PhoenixJS]:
    """A client of ``node`` in a process of its own, which ends with the block."""
    endpoint = node.url.removesuffix("/websocket")  # phoenix.js adds it
    start = partial(
        trio.run_process,
        [str(NODE_JS), "client.mjs", endpoint, KEY],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        check=False,
    )
    async with trio.open_nursery() as nursery:
        client = PhoenixJS(await nursery.start(start))
        await client.until("ready")
        yield client
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def joined(phoenix: str) -> AsyncIterator[tuple[CloudNode, PhoenixJS]]:
    async with CloudNode(phoenix=phoenix, api_keys=[KEY]) as node, phoenix_js(node) as client:
        await client.do("connect")
        # The key and vsn=2.0.0 come in the query, which the node has checked; ws offers compression, and gets none.
        assert (await client.until("open"))["extensions"] == ""
        await client.do("join", topic=TOPIC, payload=JOIN)
        response = (await client.until("joined"))["response"]
        assert response == {"did": DID, "capabilities": list(node.capabilities)}
        yield node, client


def only_socket(node: CloudNode) -> NodeSocket:
    (socket,) = node.connections
    return socket


@pytest.mark.parametrize("phoenix", ["1.7.24", "1.8.12"])
async def test_phoenix_js_joins_pushes_is_answered_is_sent_messages_and_leaves(phoenix: str) -> None:
    async with joined(phoenix) as (node, client):
        plaintext = {"id": "1", "to": [DID], "body": {"content": "héllo \U0001f600"}}
        assert (await client.ask("message", plaintext, 1))["status"] == "ok"
        assert [event for event in client.seen if event["saw"] == "message"] == []  # the reply comes first
        assert (await client.until("message"))["message"]["plaintext"] == plaintext

        refused = await client.ask("message", {"id": "2", "to": ["did:web:node.test:nobody"]}, 2)
        assert refused["status"] == "error"
        assert refused["response"]["reason"].startswith("e.route.not-found")

        await node.wait_for(lambda: node.statistics().heartbeats >= 3, timeout=WITHIN)
        assert node.statistics().bad_frames == 0

        await client.do("leave", topic=TOPIC)
        await client.until("left")
        await node.wait_for(lambda: not node.dids, timeout=WITHIN)
        await client.do("disconnect")
        await node.wait_for(lambda: not node.connections, timeout=WITHIN)
        assert "channel error" not in {event["saw"] for event in client.seen}


@pytest.mark.parametrize("phoenix", ["1.7.24", "1.8.12"])
async def test_phoenix_js_joins_again_after_a_crash_of_the_topic_and_after_a_lost_socket(phoenix: str) -> None:
    async with joined(phoenix) as (node, client):
        first = only_socket(node)
        node.crash_topic(DID)
        await client.until("channel error")
        await client.until("joined")
        assert only_socket(node) is first
        assert node.joins(DID) == 2
        assert (await client.ask("message", {"id": "1", "to": [DID]}, 1))["status"] == "ok"

        node.drop(DID)
        assert (await client.until("close"))["code"] == 1006
        await client.until("joined")
        assert only_socket(node) is not first
        assert node.joins(DID) == 3
        assert (await client.ask("message", {"id": "2", "to": [DID]}, 2))["status"] == "ok"


async def test_phoenix_js_is_refused_a_join_without_protocols_and_goes_on() -> None:
    async with joined("1.8.12") as (_node, client):
        other = "plugins:did:web:node.test:bob"
        await client.do("join", topic=other, payload={})
        refused = await client.until("join refused")
        assert refused["response"] == {"reason": "e.join.plugin.protocol.missing: No protocol specified"}
        await client.do("forget", topic=other)
        assert (await client.ask("message", {"id": "1", "to": [DID]}, 1))["status"] == "ok"


async def test_phoenix_js_is_refused_with_a_wrong_key() -> None:
    async with CloudNode(api_keys=["another"]) as node, phoenix_js(node) as client:
        await client.do("connect")
        await client.until("close")
        await node.wait_for(lambda: node.statistics().refused_upgrades >= 1, timeout=WITHIN)
        assert node.statistics().upgrades == 0


async def test_phoenix_js_and_layr8_actors_talk_to_each_other_through_the_node() -> None:
    """Both clients bind a DID at the same node, and each message arrives at the other."""
    bob = "did:web:node.test:bob"
    send, receive = trio.open_memory_channel[Any](1)
    async with joined("1.8.12") as (node, client):
        options = ChannelOptions(ws_url=node.url, api_key=KEY, agent_did=bob, callbacks=Callbacks(send.send))
        async with open_channel(options) as channel:
            await channel.connect(["https://didcomm.org/basicmessage/2.0"])
            assert (await channel.send_msg("message", {"id": "1", "from": bob, "to": [DID]})).status == "ok"
            assert (await client.until("message"))["message"]["plaintext"]["from"] == bob
            assert (await client.ask("message", {"id": "2", "from": DID, "to": [bob]}, 2))["status"] == "ok"
            with trio.fail_after(WITHIN):
                message = await receive.receive()
            assert message["plaintext"]["from"] == DID
