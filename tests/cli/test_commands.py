"""The command line as a user types it: exit statuses, one-line errors, and no key on any screen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from layr8_actors.cli import main

pytestmark = pytest.mark.real_clock

KEY = "a-very-secret-key"
BOB = "did:web:node.test:bob"
TYPE = "https://didcomm.org/basicmessage/2.0/message"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("LAYR8_")}
COMMAND = [sys.executable, "-m", "layr8_actors.cli"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=CLEAN | environment,
        stdin=subprocess.DEVNULL,
    )
    for secret in (KEY, "wrong-secret"):
        assert secret not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


class Running:
    """A command in the background, whose output is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout: IO[str] = process.stdout
        self.stderr: IO[str] = process.stderr

    def interrupt(self) -> tuple[int, str, str]:
        """Ctrl-C it; return its exit status and the rest of its output."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=15)
        return self.process.returncode, out, err


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Running]:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=CLEAN | environment,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


@contextmanager
def running_node(*arguments: str) -> Iterator[tuple[Running, str]]:
    with running("node", "--port", "0", *arguments) as node:
        url = node.stdout.readline().strip()
        assert url.startswith("ws://127.0.0.1:")
        yield node, url


def test_node_listen_send_and_connect_work_together_and_end_cleanly_on_ctrl_c() -> None:
    with running_node("--api-key", KEY) as (node, url):
        where = {"LAYR8_NODE_URL": url, "LAYR8_API_KEY": KEY}
        with running("listen", "--did", BOB, **where) as listener:
            assert listener.stderr.readline().startswith("socket 1 is open")
            assert listener.stderr.readline().startswith(f"joined as {BOB}")
            sent = run("send", url, "--api-key", KEY, "--to", BOB, "--type", TYPE, "--body", '{"content": "hello"}')
            assert (sent.returncode, sent.stderr) == (0, "")
            assert json.loads(sent.stdout)["status"] == "ok"
            assert json.loads(listener.stdout.readline())["plaintext"]["body"] == {"content": "hello"}
            status, out, err = listener.interrupt()
            assert (status, out) == (0, "")
            assert KEY not in err
        refused = run("send", "--to", "did:web:nobody", "--type", TYPE, **where)
        assert refused.returncode == 1
        assert json.loads(refused.stdout)["status"] == "error"
        connected = run("connect", "--did", BOB, "--auth", "header", **where)
        assert (connected.returncode, connected.stderr) == (0, "")
        assert f"did           {BOB}" in connected.stdout
        status, out, err = node.interrupt()
        assert (status, err) == (0, "")
        assert f"join     {BOB} on socket 1, protocols https://didcomm.org/basicmessage/2.0" in out
        assert f"{TYPE} did:web:node.test:" in out
        assert f"-> {BOB}" in out
        assert "refused  e.route.not-found" in out
        assert f"leave    {BOB}" in out
        assert "hello" not in out
        assert KEY not in out


def test_a_wrong_key_and_a_node_that_is_away_are_one_line_and_status_1() -> None:
    with running_node("--api-key", KEY) as (node, url):
        for command in (["connect", url], ["listen", url], ["send", url, "--to", BOB, "--type", TYPE]):
            done = run(*command, LAYR8_API_KEY="wrong-secret")
            assert (done.returncode, done.stdout) == (1, "")
            assert (
                done.stderr.splitlines()
                == [f"layr8-actors: cannot connect to {url}: the node answered HTTP 403 Forbidden"]
                or command[0] == "listen"
            )
            assert "HTTP 403" in done.stderr.splitlines()[-1]
        assert node.interrupt()[0] == 0
    done = run("connect", url, "--api-key", KEY)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "ConnectionRefusedError" in done.stderr


def test_a_port_that_is_taken_is_one_line_and_status_1() -> None:
    with running_node() as (_, url):
        done = run("node", "--port", url.split(":")[2].split("/")[0])
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "ddress already in use" in done.stderr


def test_listen_ends_quietly_when_nobody_reads_its_output() -> None:
    with running_node() as (_, url), running("listen", url, "--did", BOB, LAYR8_API_KEY=KEY) as listener:
        assert listener.stderr.readline().startswith("socket 1 is open")
        assert listener.stderr.readline().startswith("joined as")
        listener.stdout.close()
        assert run("send", url, "--to", BOB, "--type", TYPE, LAYR8_API_KEY=KEY).returncode == 0
        assert listener.process.wait(timeout=15) == 1
        assert "Traceback" not in listener.stderr.read()


# --- wrong usage, in this process -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["connect"], "No URL: give it as the argument, or in LAYR8_NODE_URL."),
        (["connect", "ws://node"], "No API key: give --api-key, or LAYR8_API_KEY."),
        (["connect", "ftp://node", "--api-key", KEY], "ws_url: got a value of type str; allowed: a URL whose scheme"),
        (["connect", "ws://node", "--did", "alice", "--api-key", KEY], "agent_did: got a value of type str; allowed:"),
        (["connect", "ws://node", "--api-key"], "--api-key requires an argument"),
        (["connect", "ws://node", "--api-kye", KEY], "Unknown option: --api-kye"),
        (["connect", "ws://node", f"--api-kye={KEY}"], "Unknown option: --api-kye"),
        (["connect", "ws://node", "--auth", "cookie", "--api-key", KEY], "--auth"),
        (["node", "--port", "many"], "--port"),
        (["send", "ws://node", "--type", TYPE], "--to"),
        (["send", "ws://node", "--to", BOB, "--type", "message", "--api-key", KEY], "not a message type URI"),
        (["send", "ws://node", "--to", BOB, "--type", TYPE, "--body", "[1]", "--api-key", KEY], "not a JSON object"),
        (["send", "ws://node", "--to", BOB, "--type", TYPE, "--body", "{", "--api-key", KEY], "not a JSON object"),
        (["dance"], 'Unknown command "dance"'),
        (["--api-key", KEY, "connect", "ws://node"], ""),
    ],
)
def test_wrong_usage_is_one_line_status_2_and_never_quotes_a_key(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAYR8_NODE_URL", raising=False)
    monkeypatch.delenv("LAYR8_API_KEY", raising=False)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("layr8-actors: ")
    assert said in line
    assert KEY not in line


def test_help_names_every_command_and_never_shows_the_key_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYR8_API_KEY", KEY)
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("connect", "demo", "listen", "node", "send"):
        assert command in text
        assert main([command, "--help"]) == 0
        assert KEY not in capsys.readouterr().out


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path_factory: pytest.TempPathFactory) -> None:
    hidden = tmp_path_factory.mktemp("hidden")
    for name in ("cyclopts", "rich"):
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n")
    done = run("demo", PYTHONPATH=str(hidden))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "layr8-actors: this command needs the extra [cli]: pip install 'layr8-actors[cli]'\n"


def test_ctrl_c_ends_the_demo_with_130_and_no_traceback() -> None:
    with running("demo") as demo:
        assert "two agents on an embedded node" in demo.stdout.readline()
        status, out, err = demo.interrupt()
    assert (status, err) == (130, "")
    assert "ALL RIGHT" not in out
