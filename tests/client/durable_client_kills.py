"""A whole durable Client that is killed with SIGKILL at random points, again and again, and the ledger of it.

``python -m tests.client.durable_client_kills --kills 200 --seed 1`` kills 200 times. This process runs the node, over
TCP, which hands out messages one at a time and again after each death until it is told ``handled``; and Bob, who gets
the answers. A second process has imported everything and forks the agents. An agent is Alice, who joins Carol on the
same socket; each second message is for Carol. It handles a message by a line in a file and an answer. It dies from
outside after a random time, or by its own hand at a random call or return.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import trio

from layr8_actors import Backoff, Client, ClientConfig, Message
from layr8_actors.client import DidHandlers, HandlerFunction
from layr8_actors.client.durable import QueueOptions, SqliteStore
from layr8_actors.testing import CloudNode, DispatchingChannel
from tests.client.agents import ALICE, BOB, PROTOCOL, REQUEST, RESPONSE, plaintext
from tests.client.durable.kills import ROOT, die_at

CAROL = "did:web:node.test:carol"
OURS = (ALICE, CAROL)
PER_LIFE = 8
MOST_CALLS = 20_000
"""Calls and returns after which an agent dies by its own hand at the latest."""


def did_of(id: str) -> str:
    """Whom a message is for."""
    return OURS[int(id) % 2]


def config(url: str, did: str) -> ClientConfig:
    return ClientConfig(
        node_url=url,
        api_key="key",
        agent_did=did,
        protocols=[PROTOCOL],
        on_event=lambda _: None,
        max_handlers=4,
        channel={"backoff": Backoff(initial=0.01, maximum=0.02)},
    )


async def agent(url: str, path: str, effects: int, durable: bool) -> None:
    """Handle what comes until killed. One that is not durable accepts first, for the test of this test."""
    options = QueueOptions(lease=0.25, max_attempts=100_000)  # no death is one of its last attempts
    async with SqliteStore(
        path, power_safe=False, inbox=options, outbox=options, poll_interval=0.05, on_event=lambda _: None
    ) as store:
        client = Client(config(url, ALICE), durable=store if durable else None)
        carol = DidHandlers()

        def handler_of(did: str) -> HandlerFunction:
            async def handle(message: Message) -> Message:
                await trio.sleep(0.002)
                os.write(effects, f"{message.id} {did}\n".encode())
                await trio.lowlevel.checkpoint()
                return message.reply(RESPONSE)

            return handle

        client.handle(REQUEST, accept_first=True)(handler_of(ALICE))
        carol.handle(REQUEST, accept_first=True)(handler_of(CAROL))
        async with client:
            await client.join_did(CAROL, carol)
            await trio.sleep_forever()


def fork_agents() -> None:
    """Fork an agent for each line on stdin, and say how it ended."""
    for line in sys.stdin:
        life = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                effects = os.open(life["effects"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                if life["die_at"]:
                    die_at(life["die_at"], os.open(os.devnull, os.O_WRONLY))
                trio.run(agent, life["url"], life["store"], effects, life["durable"])
            finally:
                os._exit(1)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


@dataclasses.dataclass
class Report:
    """What became of all messages."""

    kills: int = 0
    accepted: int = 0
    seconds: float = 0.0
    lost: list[str] = dataclasses.field(default_factory=list[str])
    unanswered: list[str] = dataclasses.field(default_factory=list[str])
    misplaced: list[str] = dataclasses.field(default_factory=list[str])
    duplicates: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    answered_twice: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    failed: list[str] = dataclasses.field(default_factory=list[str])

    def __str__(self) -> str:
        return "\n".join(
            [
                f"killed {self.kills} times with SIGKILL in {self.seconds:.1f} s",
                f"{self.accepted} messages were accepted",
                f"lost: {len(self.lost)} {self.lost or ''}",
                f"not answered: {len(self.unanswered)} {self.unanswered or ''}",
                f"handled or answered by another DID: {len(self.misplaced)} {self.misplaced or ''}",
                f"ended otherwise than by a kill: {len(self.failed)} {self.failed or ''}",
                f"answered more than once: {len(self.answered_twice)}",
                f"handled more than once: {len(self.duplicates)}",
                *(
                    f"  {id}: {times} times"
                    for id, times in sorted(self.duplicates.items(), key=lambda one: int(one[0]))
                ),
            ]
        )


def is_gone(pid: int) -> bool:
    """Whether a process has died, and its parent has been told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Lines:
    """What the second process says, line by line."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def next(self) -> int:
        while b"\n" not in self._buffer:
            received = await self._stream.receive_some()
            assert received, "the process that forks has ended"
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return int(line)


async def run(kills: int, seed: int, *, durable: bool = True, patience: float = 20.0) -> Report:
    """Kill an agent so many times, then let the last one finish.

    Args:
        kills: how often; at most, for one that is not durable: what it was at when it died is lost, and that is enough.
        seed: of the times and points of death.
        durable: whether the agent is.
        patience: seconds for the last one.
    """
    report, chance, started = Report(), random.Random(seed), time.monotonic()
    answers: Counter[str] = Counter()
    given: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        effects = Path(folder, "effects")

        def handled() -> Counter[str]:
            lines = [line.split() for line in effects.read_text().splitlines()] if effects.exists() else []
            report.misplaced.extend(id for id, did in lines if did != did_of(id))
            return Counter(id for id, _ in lines)

        command = [sys.executable, "-c", "from tests.client.durable_client_kills import fork_agents; fork_agents()"]
        async with CloudNode(channels={"plugins:": DispatchingChannel}) as node, trio.open_nursery() as nursery:
            bob = Client(config(node.url, BOB))

            @bob.handle(RESPONSE)
            async def count(message: Message) -> None:
                answers[message.thid] += 1
                if message.from_ != did_of(message.thid):
                    report.misplaced.append(message.thid)

            async with bob:
                forks = await trio.lowlevel.open_process(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                assert forks.stdin is not None
                assert forks.stdout is not None
                lines = Lines(forks.stdout)

                def accepted() -> set[str]:
                    ours = [dispatch for dispatch in node.dispatches if dispatch.did in OURS]
                    return {dispatch.message["id"] for dispatch in ours if dispatch.status == "handled"}

                async def live(own: int) -> int:
                    """Begin a life; hand out what is not accepted, and something new."""
                    life = {"url": node.url, "store": f"{folder}/agent.db", "effects": str(effects)}
                    line = json.dumps({**life, "die_at": own, "durable": durable})
                    await forks.stdin.send_all(f"{line}\n".encode())  # type: ignore[union-attr]
                    pid = await lines.next()
                    with trio.move_on_after(0 if own and chance.random() < 0.2 else 1):
                        while not (set(OURS) <= set(node.dids) or is_gone(pid)):
                            await trio.sleep(0.005)
                    done = accepted()
                    # One that died by its own hand may not have come to its joins.
                    for id in [id for id in given if id not in done and did_of(id) in node.dids]:
                        node.deliver(did_of(id), plaintext(id, thid=f"{id}", to=[did_of(id)]))
                    return pid

                while report.kills < kills and (durable or accepted() <= set(handled())):
                    given.extend([str(len(given) + number) for number in range(PER_LIFE)])
                    own = int(chance.triangular(1000, MOST_CALLS, 6000)) if durable and chance.random() < 0.5 else 0
                    pid = await live(own)
                    ended = None
                    with trio.move_on_after(0.5 if own else chance.uniform(0, 0.1)):
                        ended = await lines.next()
                    if ended is None:
                        os.kill(pid, signal.SIGKILL)
                        ended = await lines.next()
                    report.kills += 1
                    if not (os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL):
                        report.failed.append(f"status {ended}")
                    await node.wait_for(lambda: not set(OURS) & set(node.dids))
                pid = await live(0)
                with trio.move_on_after(patience):
                    while not (accepted() == set(given) == set(handled()) == set(answers)):
                        await trio.sleep(0.02)
                await trio.sleep(0.1)
                os.kill(pid, signal.SIGKILL)
                await lines.next()
                await forks.stdin.aclose()
                await forks.wait()
                await forks.stdout.aclose()
            nursery.cancel_scope.cancel()
        ledger = handled()
    report.accepted = len(accepted())
    report.lost = [id for id in given if id in accepted() and not ledger[id]]
    report.unanswered = [id for id in given if id in accepted() and not answers[id]]
    report.duplicates = {id: times for id, times in ledger.items() if times > 1}
    report.answered_twice = {id: times for id, times in answers.items() if times > 1}
    report.seconds = time.monotonic() - started
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.client.durable_client_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    async def all_of_it() -> Report:
        return await run(arguments.kills, arguments.seed, patience=60)

    report = trio.run(all_of_it)
    print(report)
    sys.exit(bool(report.lost or report.unanswered or report.misplaced or report.failed))


if __name__ == "__main__":
    main()
