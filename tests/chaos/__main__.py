"""Chaos: ``make chaos ARGS="--minutes 20 --seed 7"``. Minutes are minutes on the wall.

Two runs share them. In this process seeds follow one another in virtual time, each complete in about two seconds and
the same each time. In a process of its own one run goes on over TCP on real time, for as long. Both end with the
ledger.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import time

import trio

from tests.chaos.account import Account, table
from tests.chaos.replay import SECONDS, deterministic, replay
from tests.chaos.world import REAL, ChaosFailed, Heap, World, open_descriptors

ROUND = 8.0
"""Seconds of faults over TCP, before it is calm and the books are closed."""

HYPOTHESIS_REMEMBERS = 70
"""Seeds of which it keeps the generator's state, 625 numbers each: so many first, or that would look like a leak."""

LAST_CALM = 120.0
"""Seconds that the other process may take beyond its time, for its last calm."""


def run_virtual(account: Account, first_seed: int, end: float) -> Account:
    """Run seed after seed until ``end``, at least one."""
    for number in range(HYPOTHESIS_REMEMBERS):
        deterministic(first_seed - 1 - number, lambda: None)
    heap = Heap()
    descriptors = open_descriptors()
    seed = first_seed
    while not account.failure and (account.runs == 0 or time.monotonic() < end):
        try:
            world = replay(seed)
        except ChaosFailed as error:
            account.failure = f'{error}\n  replay it: make chaos ARGS="--replay {seed}"'
        else:
            account.add(world, world.clock)
            del world
            heap.sample()
            seed += 1
    account.descriptors = open_descriptors() - descriptors
    account.judge(heap)
    return account


def run_tcp(account: Account, seed: int, seconds: float) -> Account:
    """Run over real sockets for so long."""
    heap = Heap()
    descriptors = open_descriptors()
    world = World(seed, memory=False, tempo=REAL, heap=heap)
    try:
        trio.run(world.run, seconds, ROUND)
    except ChaosFailed as error:
        account.failure = f'{error}\n  run it again: make chaos ARGS="--tcp --seed {seed} --minutes {seconds / 60:g}"'
    account.add(world, world.clock)
    account.descriptors = open_descriptors() - descriptors
    account.judge(heap)
    return account


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=...", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="on the wall; 1 by default")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; by default another one each time")
    parser.add_argument("--tcp", action="store_true", help="only the run over TCP, in this process")
    parser.add_argument("--virtual", action="store_true", help="only the runs in virtual time")
    parser.add_argument("--replay", type=int, default=None, metavar="SEED", help="one seed in virtual time")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    options = parser.parse_args()
    began = time.monotonic()
    if options.replay is not None:
        return replay_one(options.replay)
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    if not options.json:
        print(f"chaos: seed {seed}, {options.minutes:g} min on the wall", flush=True)
    accounts = []
    seconds = options.minutes * 60
    if options.tcp:
        accounts.append(run_tcp(Account("tcp"), seed, seconds))
    elif options.virtual:
        accounts.append(run_virtual(Account("virtual"), seed, began + seconds))
    else:
        command = [sys.executable, "-m", "tests.chaos", "--tcp", "--json", "--seed", str(seed)]
        with subprocess.Popen([*command, "--minutes", str(options.minutes)], stdout=subprocess.PIPE) as other:
            try:
                accounts.append(run_virtual(Account("virtual"), seed, began + seconds))
                accounts[0].wall = time.monotonic() - began
                accounts.append(account_of(other, seconds + LAST_CALM - accounts[0].wall))
            finally:
                other.kill()
    for account in accounts:
        account.wall = account.wall or time.monotonic() - began
    if options.json:
        print(json.dumps([dataclasses.asdict(account) for account in accounts], default=list))
        return 0
    print(table(accounts))
    failures = [account.failure for account in accounts if account.failure]
    for failure in failures:
        print(f"\n{failure}")
    print("\nFAILED" if failures else "\nall accounted for")
    return 1 if failures else 0


def account_of(process: subprocess.Popen[bytes], timeout: float) -> Account:
    """The account that the other process prints when it has ended."""
    try:
        output, _ = process.communicate(timeout=timeout)
        (account,) = json.loads(output)
    except subprocess.TimeoutExpired:
        return Account("tcp", failure="the run over TCP did not end in time")
    except ValueError:
        return Account("tcp", failure=f"the run over TCP ended with {process.returncode} and no account")
    return Account(**account)


def replay_one(seed: int) -> int:
    """Run one seed in virtual time, twice, and show that it is the same run."""
    try:
        worlds = [replay(seed), replay(seed)]
    except ChaosFailed as error:
        print(error)
        return 1
    account = Account("virtual")
    account.add(worlds[0], worlds[0].clock)
    print(table([account]))
    prints = [world.fingerprint for world in worlds]
    print(f"\n{SECONDS:g} virtual seconds, fingerprints of the events {prints[0]} and {prints[1]}")
    return 0 if prints[0] == prints[1] else 1


if __name__ == "__main__":
    sys.exit(main())
