"""CloudNode against recorded Phoenix: driven with a scenario's client frames, it answers what Phoenix answered.

Each scenario is replayed at its own (virtual) pace. Per connection the node has to send the recorded frames and no
others, in the recorded order, and close with the recorded code; where the order is a race, the same multiset, or one
of two outcomes. The recording's stand-in of a Layr8 node had events and reasons of its own: ``ScenarioChannel`` has
them here. Nothing but times, ephemeral DIDs and HTTP headers is left out of the comparison.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.errors import TransportClosed
from layr8_actors.testing import (
    CloudNode,
    JoinCrashed,
    JoinReply,
    NodeChannel,
    PluginChannel,
    RawClient,
    UpgradeRefused,
)

TRANSCRIPTS = Path(__file__).parent / "transcripts"

NOT_CLAIMED = {
    "http_connect_raise": "the stand-in's own connect/2 raises for one key; refuse_upgrades(500) shows the same answer",
    "http_auth_token": "sub-protocol tokens of Phoenix 1.8; a Layr8 node takes its key from the query or a header",
    "http_deflate": "the node never compresses, as Phoenix by default; its connection B is http_subprotocol_offered's",
    "presence": "a Layr8 node has no presence topics; Phoenix.Presence has state of its own and is all races",
}

RACES = {"same_topic_two_sockets", "idle_timeout_server_pushes"}
"""The order of broadcasts against the sender's own frames is not fixed."""

EITHER_ORDER = {"leave_join_pipelined", "duplicate_join_pipelined"}
"""Whether the old channel still answers is a race; any outcome recorded on any version is right on each."""


class ScenarioChannel(PluginChannel):
    """The events and reasons of the stand-in that was recorded."""

    missing_protocols = "e.join.plugin.payload-types-missing"

    async def join(self, payload: Any) -> JoinReply:
        if isinstance(payload, dict):
            await trio.sleep(payload.get("test_delay_ms", 0) / 1000)
            if payload.get("test_crash"):
                raise JoinCrashed
        return await super().join(payload)

    def route_error(self, unknown: list[str]) -> str:
        return "e.route.not-found"

    def handle_in(self, event: str, payload: Any, ref: Any) -> None:
        handler = getattr(self, f"on_{event}", None)
        if handler is None:
            super().handle_in(event, payload, ref)
        else:
            handler(payload, ref)

    def on_echo(self, payload: Any, ref: Any) -> None:
        self.reply(ref, "ok", {"echo": payload})

    def on_delayed_reply(self, payload: Any, ref: Any) -> None:
        self.after(payload["ms"] / 1000, lambda: self.reply(ref, "ok", {"late": payload["tag"]}))

    def on_double_reply(self, payload: Any, ref: Any) -> None:
        self.reply(ref, "ok", {"first": True})
        self.reply(ref, "ok", {"first": False})

    def on_reply_status(self, payload: Any, ref: Any) -> None:
        self.reply(ref, payload["status"], {"status_was": payload["status"]})

    def on_reply_bare(self, payload: Any, ref: Any) -> None:
        self.reply(ref)

    def on_push_then_reply(self, payload: Any, ref: Any) -> None:
        self.deliver({"id": "pushed-before-reply"})
        self.reply(ref)

    def on_flood(self, payload: Any, ref: Any) -> None:
        for number in range(1, payload["n"] + 1):
            self.deliver({"id": f"flood-{number}", "pad": "", "seq": number})
        self.reply(ref, "ok", {"n": payload["n"]})

    def on_broadcast(self, payload: Any, ref: Any) -> None:
        self.broadcast("announcement", payload)
        self.reply(ref)

    def on_binary(self, payload: Any, ref: Any) -> None:
        self.reply(ref, "ok", payload if isinstance(payload, bytes) else bytes(range(payload["n"])))

    def on_binary_error(self, payload: Any, ref: Any) -> None:
        self.reply(ref, "error", bytes(range(4)))

    def on_binary_push(self, payload: Any, ref: Any) -> None:
        self.push("blob", bytes(range(payload["n"])))

    def on_binary_broadcast(self, payload: Any, ref: Any) -> None:
        self.broadcast("blob", bytes(range(payload["n"])))

    def on_mute(self, payload: Any, ref: Any) -> None:
        self.muted = True

    def on_crash(self, payload: Any, ref: Any) -> None:
        self.crash()

    on_kill = on_stop_abnormal = on_crash

    def on_stop(self, payload: Any, ref: Any) -> None:
        self.stop()

    on_stop_shutdown = on_stop

    def on_stop_reply(self, payload: Any, ref: Any) -> None:
        self.reply(ref, "ok", {"bye": True})
        self.stop()

    def on_kick(self, payload: Any, ref: Any) -> None:
        self.socket.node.disconnect(self.did)

    def on_drop_tcp(self, payload: Any, ref: Any) -> None:
        self.socket.node.drop(self.did)

    def on_freeze(self, payload: Any, ref: Any) -> None:
        node, did = self.socket.node, self.did
        node.go_silent(did)
        self.after(payload["ms"] / 1000, lambda: node.resume(did))


# --- the scenarios ------------------------------------------------------------------------------------------------


def _scenarios() -> list[tuple[str, str, Path]]:
    """Every transcript, for the primary version and for the variants; what has no variant is the same there."""
    found = []
    for path in sorted(TRANSCRIPTS.glob("*.jsonl")):
        for version in ("1.7.24", "1.8.11", "1.8.12"):
            variant = TRANSCRIPTS / "variants" / f"phoenix-{version}-bandit" / path.name
            found.append((path.stem, version, variant if variant.exists() else path))
    return found


CLAIMED = [scenario for scenario in _scenarios() if scenario[0] not in NOT_CLAIMED]


def test_every_transcript_is_claimed_or_listed_with_a_reason() -> None:
    names = {path.stem for path in TRANSCRIPTS.rglob("*.jsonl")}
    assert len(names) >= 70
    assert names == {name for name, _, _ in CLAIMED} | set(NOT_CLAIMED)
    assert all(NOT_CLAIMED.values())
    used = {path for _, _, path in CLAIMED} | {p for p in TRANSCRIPTS.rglob("*.jsonl") if p.stem in NOT_CLAIMED}
    # A primary recording that all versions replace by a variant would be used by none; there is no such.
    assert used == set(TRANSCRIPTS.rglob("*.jsonl"))


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _parsed(message: str | bytes) -> Any:
    """A message as a value to compare: JSON parsed, ephemeral DIDs made equal."""
    if isinstance(message, bytes):
        return message
    return json.loads(re.sub(r"did:web:node\.test:[0-9a-f]{12}", "did:web:node.test:EPHEMERAL", message))


def _key(value: Any) -> str:
    return repr(value) if isinstance(value, bytes) else json.dumps(value, sort_keys=True)


class _Player:
    """Replays one connection of a scenario and keeps what the node answered."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.received: list[Any] = []
        self.code: int | None = None
        self.ended = trio.Event()

    async def read(self) -> None:
        try:
            while True:
                self.received.append(_parsed(await self.client.receive_raw()))
        except TransportClosed as error:
            self.code = error.code
            self.ended.set()

    async def play(self, line: dict[str, Any]) -> None:
        if "fragments" in line:
            rest, pieces = line["text"], []
            for size in line["fragments"]:
                pieces.append(rest[:size])
                rest = rest[size:]
            await self.client.send_fragments(*pieces)
        elif line.get("opcode") == "text":
            payload = bytes.fromhex(line["hex"])
            # A masked text frame, by a mask of zeros; RawClient itself cannot send what is not UTF-8.
            await self.client.send_wire(bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        else:
            await self.client.send_raw(bytes.fromhex(line["hex"]) if "hex" in line else line["text"])


async def _deliver(node: CloudNode, line: dict[str, Any]) -> None:
    """Where the recording shows a push that the scenario's second control connection asked for."""
    frame = json.loads(line["text"])
    node.deliver(frame[4]["context"]["recipient"], frame[4]["plaintext"])


CONTROL: dict[str, Callable[[CloudNode, dict[str, Any]], Awaitable[None]]] = {
    "inbound_message": _deliver,
    "idle_timeout_server_pushes": _deliver,
}


async def _http(node: CloudNode, line: dict[str, Any]) -> None:
    """Compare the status of a request that is no upgrade."""
    stream = await node.open_stream()
    await stream.send_all(f"{line['method']} {line['url']} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while data := await stream.receive_some():
        answer += data
    await stream.aclose()
    assert answer.split(b" ")[1] == str(line["code"]).encode()


@pytest.mark.parametrize(
    ("name", "version", "path"), CLAIMED, ids=[f"{name}-{version}" for name, version, _ in CLAIMED]
)
async def test_it_answers_what_phoenix_answered(name: str, version: str, path: Path) -> None:
    lines = _read(path)
    short = any(line.get("url", "").startswith("/short_socket") for line in lines)
    node = CloudNode(
        memory=True,
        phoenix=version,
        api_keys=["good-key"],
        exclusive=False,
        idle_timeout=1.5 if short else 60.0,
        max_message_size=65536 if short else None,
        channels={"plugins:": ScenarioChannel},
    )
    async with node, trio.open_nursery() as nursery:
        players = await _replay(node, nursery, lines, name)
    for conn, player in players.items():
        expected = [
            _parsed(bytes.fromhex(line["hex"]) if "hex" in line else line["text"])
            for line in lines
            if line["conn"] == conn and line["dir"] == "s2c"
        ]
        if name in RACES:
            assert sorted(map(_key, player.received)) == sorted(map(_key, expected))
        elif name in EITHER_ORDER:
            _check_race(name, version, player.received)
        else:
            assert player.received == expected
        (end,) = (line for line in lines if line["conn"] == conn and line["dir"] == "close")
        assert player.code == end["code"]


async def _replay(node: CloudNode, nursery: trio.Nursery, lines: list[dict[str, Any]], name: str) -> dict[str, _Player]:
    players: dict[str, _Player] = {}
    began = trio.current_time()
    for line in lines:
        # The recording sends the moment an answer is in, so it is at hand 0.1 ms later at the latest, here at once.
        await trio.sleep_until(began + line["t_ms"] / 1000)
        await trio.testing.wait_all_tasks_blocked()
        conn, kind = line["conn"], line["dir"]
        player = players.get(conn)
        if kind == "http":
            opened = await _open(node, nursery, line)
            if opened is not None:
                players[conn] = opened
        elif kind == "s2c":
            if name in CONTROL and '"ctl-' in line["text"]:
                await CONTROL[name](node, line)
        elif kind == "server":
            nursery.start_soon(_stop, node, line["text"] == "SIGKILL")
        else:
            assert player is not None
            if kind == "c2s":
                await player.play(line)
            elif kind == "ping":
                await player.client.ping(b"p")
            elif kind == "pong":
                assert player.client.pongs.pop() == b"p"
            elif line["by"] == "client":
                await player.client.begin_close(line["sent"])
                await player.ended.wait()
            else:
                # At most the drift of the recorded times; a node that never closes fails here.
                with trio.fail_after(0.5):
                    await player.ended.wait()
    return players


async def _stop(node: CloudNode, abrupt: bool) -> None:
    await node.stop(abrupt=abrupt)


async def _open(node: CloudNode, nursery: trio.Nursery, line: dict[str, Any]) -> _Player | None:
    if "request_headers" not in line:
        await _http(node, line)
        return None
    path = line["url"].replace("/short_socket/", "/plugin_socket/")
    if line["code"] != 101:
        with pytest.raises(UpgradeRefused) as caught:
            async with RawClient.connect(node, path=path, headers=list(line["request_headers"].items())):
                pass
        assert (caught.value.status, caught.value.body.decode()) == (line["code"], line["text"])
        return None
    player = await nursery.start(_connected, node, path, list(line["request_headers"].items()))
    assert isinstance(player, _Player)
    names = {header for header, _ in line["headers"]} & {"sec-websocket-protocol", "sec-websocket-extensions"}
    assert names == set(player.client.headers) & {"sec-websocket-protocol", "sec-websocket-extensions"}
    return player


async def _connected(
    node: CloudNode, path: str, headers: list[tuple[str, str]], *, task_status: trio.TaskStatus[_Player]
) -> None:
    async with RawClient.connect(node, path=path, headers=headers) as client:
        player = _Player(client)
        task_status.started(player)
        await player.read()


def _check_race(name: str, version: str, received: list[Any]) -> None:
    """Per join_ref the frames of one of the recordings; the new join's reply before all else of the new join."""
    outcomes = []
    for path in TRANSCRIPTS.rglob(f"{name}.jsonl"):
        if name == "duplicate_join_pipelined" and (version == "1.7.24") != (path.parent == TRANSCRIPTS):
            continue  # 1.7.24 answers the push with the stale join_ref, 1.8 does not; only the rest is a race.
        outcomes.append([_parsed(line["text"]) for line in _read(path) if line["dir"] == "s2c"])
    joins: dict[str, list[Any]] = {}
    for frame in received:
        joins.setdefault(frame[0], []).append(frame)
    for join_ref, frames in joins.items():
        allowed = [[frame for frame in outcome if frame[0] == join_ref] for outcome in outcomes]
        if name == "duplicate_join_pipelined" and join_ref == "1":
            # What the old channel sent before it was killed: all, some or none of it, then its phx_close.
            longest = max(
                (
                    [_parsed(x["text"]) for x in _read(p) if x["dir"] == "s2c"]
                    for p in TRANSCRIPTS.rglob(f"{name}.jsonl")
                ),
                key=len,
            )
            whole = [frame for frame in longest if frame[0] == "1"]
            allowed = [whole[:count] + whole[-1:] for count in range(len(whole))]
        assert frames in allowed


async def test_a_channel_class_is_asked_for_each_topic_by_its_prefix() -> None:
    class Lobby(NodeChannel):
        async def join(self, payload: Any) -> JoinReply:
            return JoinReply("ok", {"lobby": self.topic})

    async with CloudNode(memory=True, channels={"lobby:": Lobby}) as node, RawClient.connect(node) as client:
        assert (await client.join("lobby:1"))["response"] == {"lobby": "lobby:1"}
        assert (await client.join("plugins:x", ref="2"))["response"] == {"reason": "unmatched topic"}
