"""The demo as a whole: right on a good channel, and wrong on one that loses, doubles or stays down."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from typing import Any

import pytest
import trio

from layr8_actors.channel import ChannelOptions
from layr8_actors.cli.demo import play_demo
from layr8_actors.cli.demo_agent import NUMBERED, Agent
from layr8_actors.cli.demo_report import ACTORS
from layr8_actors.cli.demo_screen import LiveScreen, PlainScreen

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("LAYR8_")}


def table_of(text: str) -> dict[str, list[str]]:
    """The rows of the last table, by label."""
    lines = text.splitlines()
    start = max(number for number, line in enumerate(lines) if line.startswith("messages "))
    rows = {}
    for line in lines[start:]:
        if not line:
            break
        *label, alice, bob, total = line.replace("from ", "from-").split()
        rows[" ".join(label)] = [alice, bob, total]
    return rows


@pytest.mark.real_clock
def test_the_demo_ends_right_within_20_seconds_without_a_terminal() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "layr8_actors.cli", "demo"],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env=ENVIRONMENT,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert seconds < 20
    assert "\x1b" not in done.stdout
    assert "demo-key" not in done.stdout
    rows = table_of(done.stdout)
    for label in ("lost", "doubled", "out of order", "left waiting"):
        assert rows[label] == ["0", "0", "0"]
    assert rows["received once"] == rows["numbered"]
    assert int(rows["sent"][2]) == sum(
        int(rows[label][2]) for label in ("answered", "refused, recipient away", "failed, typed error")
    )
    assert [rows[f"restarts of {actor}"][2] for actor in ACTORS] == ["1"] * len(ACTORS)
    assert rows["on_disconnect calls"] == rows["on_reconnect calls"] == rows["connections lost"]
    assert int(rows["connections lost"][2]) >= 7
    assert rows["callbacks that raised"][2] == "1"
    assert 0 < float(rows["median s to recover"][2]) <= float(rows["max s to recover"][2]) < 5
    assert done.stdout.count("one_for_one") == 4  # both trees, at the start and at the end
    assert done.stdout.splitlines()[-1].startswith("ALL RIGHT: 11 faults in ")


class Sabotage:
    """Spoils the 20th numbered message that bob is handed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.count = 0
        original = Agent._on_message

        def spoilt(agent: Agent, payload: Any) -> None:
            hands = 1
            if agent.name == "bob" and payload["plaintext"]["type"] == NUMBERED:
                self.count += 1
                if self.count == 20:
                    hands = times
            for _ in range(hands):
                original(agent, payload)

        monkeypatch.setattr(Agent, "_on_message", spoilt)


@pytest.mark.parametrize(("times", "said"), [(0, "1 messages lost"), (2, "1 messages doubled")])
async def test_a_channel_that_loses_or_doubles_one_message_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, times: int, said: str
) -> None:
    Sabotage(monkeypatch, times)
    stream = io.StringIO()
    assert await play_demo(PlainScreen(stream)) == 1
    text = stream.getvalue()
    assert "NOT RIGHT:" in text
    assert f"alice: {said}" in text
    assert table_of(text)[said.rsplit(maxsplit=1)[-1]] == ["1", "0", "1"]


async def test_a_fault_that_is_never_healed_is_named_when_the_deadline_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Agent, "crash", lambda agent, actor: None)
    stream = io.StringIO()
    assert await play_demo(PlainScreen(stream), deadline=3.0) == 1
    text = stream.getvalue()
    assert "fault 2 (bob's inbox crashes: restarted alone, the socket is kept) was not healed" in text
    assert "not done within 3 s" in text
    assert trio.current_time() < 8.0


async def test_a_node_that_cannot_be_reached_is_a_problem_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ChannelOptions.__post_init__

    def elsewhere(options: ChannelOptions) -> None:
        object.__setattr__(options, "ws_url", "ws://127.0.0.1:1/plugin_socket/websocket")
        original(options)

    monkeypatch.setattr(ChannelOptions, "__post_init__", elsewhere)
    stream = io.StringIO()
    assert await play_demo(PlainScreen(stream)) == 1
    assert "ConnectFailed: cannot connect to ws://127.0.0.1:1/" in stream.getvalue()


async def test_the_live_screen_draws_trees_counters_events_and_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=150, height=40, color_system=None)
    assert await play_demo(LiveScreen(console)) == 0
    text = stream.getvalue()
    assert "alice: joined" in text
    assert "reconnector" in text
    assert "what happens" in text
    assert "ALL RIGHT: 11 faults" in text
    assert capsys.readouterr().out == ""
