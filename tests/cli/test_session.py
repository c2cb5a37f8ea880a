"""connect, listen and send, against a node in the same loop."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import trio

from layr8_actors.channel import ChannelOptions
from layr8_actors.cli import session
from layr8_actors.errors import ConnectFailed, JoinRejected
from layr8_actors.telemetry import Hook
from layr8_actors.testing import CloudNode

BASIC = "https://didcomm.org/basicmessage/2.0"
BOB = "did:web:node.test:bob"
ALICE = "did:web:node.test:alice"
KEY = "a-very-secret-key"


def options(node: CloudNode, did: str = "", hook: Hook = session.ignore_event) -> ChannelOptions:
    return ChannelOptions(ws_url=node.url, api_key=KEY, agent_did=did, transport=node.connector, on_event=hook)


async def listening(node: CloudNode, nursery: trio.Nursery) -> None:
    nursery.start_soon(session.listen, options(node, BOB, session.report_event), [BASIC])
    await node.wait_joined(BOB)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)


async def test_connect_prints_what_the_node_said_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    async with CloudNode(memory=True, capabilities=("reply_protocol/1", "wildcard/1")) as node:
        assert await session.connect(options(node, ALICE), [BASIC]) == 0
        await node.wait_for(lambda: not node.connections, timeout=5)
        assert [frame.event for frame in node.frames(ALICE)] == ["phx_join", "phx_leave"]
    assert capsys.readouterr().out.splitlines() == [
        f"did           {ALICE}",
        "capabilities  reply_protocol/1 wildcard/1",
        "state         joined",
    ]


async def test_connect_raises_what_went_wrong() -> None:
    async with CloudNode(memory=True) as node:
        node.refuse_upgrades(403, count=1)
        with pytest.raises(ConnectFailed):
            await session.connect(options(node, ALICE), [BASIC])
        node.refuse_joins("e.join.plugin.child.already-persistent", count=1)
        with pytest.raises(JoinRejected):
            await session.connect(options(node, ALICE), [BASIC])


async def test_listen_prints_each_message_as_one_line_of_json_and_tells_the_node_that_it_was_handled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        await listening(node, nursery)
        for number in (1, 2):
            node.deliver(BOB, {"id": f"m{number}", "type": f"{BASIC}/message", "body": {"content": "line\n\x1b[2J é"}})
        await until(lambda: len(node.frames(BOB, event="dispatch_reply")) == 2)
        assert [frame.payload for frame in node.frames(BOB, event="dispatch_reply")] == [
            {"message_id": "m1", "status": "handled"},
            {"message_id": "m2", "status": "handled"},
        ]
        nursery.cancel_scope.cancel()
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [json.loads(line)["plaintext"]["id"] for line in lines] == ["m1", "m2"]
    assert json.loads(lines[0])["plaintext"]["body"]["content"] == "line\n\x1b[2J é"
    assert "\x1b" not in captured.out
    assert "joined as did:web:node.test:bob on socket 1" in captured.err
    assert KEY not in captured.out + captured.err


async def test_listen_acknowledges_by_ack_where_the_node_has_no_reply_protocol(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with CloudNode(memory=True, capabilities=()) as node, trio.open_nursery() as nursery:
        await listening(node, nursery)
        node.deliver(BOB, {"id": "m1", "type": f"{BASIC}/message", "body": {}})
        await until(lambda: bool(node.frames(BOB, event="ack")))
        assert node.frames(BOB, event="ack")[0].payload == {"ids": ["m1"]}
        nursery.cancel_scope.cancel()
    assert '"m1"' in capsys.readouterr().out


async def test_listen_survives_messages_without_an_id_and_a_lost_connection(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        await listening(node, nursery)
        node.deliver(BOB, {"body": {}})
        node.deliver(BOB, ["not", "a", "plaintext"])
        node.deliver(BOB, {"id": "before"})
        await until(lambda: len(node.frames(BOB, event="dispatch_reply")) == 1)
        node.drop(BOB)
        await node.wait_joined(BOB, 2)
        node.deliver(BOB, {"id": "after"})
        await until(lambda: len(node.frames(BOB, event="dispatch_reply")) == 2)
        nursery.cancel_scope.cancel()
    captured = capsys.readouterr()
    assert [json.loads(line)["plaintext"] for line in captured.out.splitlines()] == [
        {"body": {}},
        ["not", "a", "plaintext"],
        {"id": "before"},
        {"id": "after"},
    ]
    assert "socket 1 is lost" in captured.err
    assert "joined again as did:web:node.test:bob on socket 2" in captured.err


async def test_send_prints_the_reply_and_returns_0_only_for_ok(capsys: pytest.CaptureFixture[str]) -> None:
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        await listening(node, nursery)
        sent = await session.send(options(node, ALICE), [BASIC], [BOB], f"{BASIC}/message", {"content": "hello"})
        assert sent == 0
        (message,) = node.frames(ALICE, event="message")
        assert message.payload["from"] == ALICE
        assert message.payload["to"] == [BOB]
        assert message.payload["body"] == {"content": "hello"}
        refused = await session.send(options(node, ALICE), [BASIC], ["did:web:nobody"], f"{BASIC}/message", {})
        assert refused == 1
        await until(lambda: bool(node.frames(BOB, event="dispatch_reply")))
        nursery.cancel_scope.cancel()
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["status"] for answer in answers if "status" in answer] == ["ok", "error"]
    assert [answer["plaintext"]["body"] for answer in answers if "plaintext" in answer] == [{"content": "hello"}]
    assert [answer["reason"] for answer in answers if answer.get("status") == "error"] == [
        "e.route.not-found: no plugin is connected for did:web:nobody"
    ]
