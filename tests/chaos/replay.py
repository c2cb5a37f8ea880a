"""One seed in virtual time, the same each time.

Trio draws the order in which ready tasks run. Under Hypothesis it orders them by age first and draws from a generator
that Hypothesis seeds: that is Trio's own plugin for it, and ``strategies.random_module`` is Hypothesis' public way to
choose the seed. Hypothesis runs the simplest example first, which has the seed 0, so the second one is the run.

The same seed therefore replays the same run, event by event, with the versions in constraints.txt, in any process. What
differs are the masks of WebSocket frames, which come from the system's randomness and change no length and no order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from unittest import mock

import hypothesis
import trio
from hypothesis import HealthCheck, Phase, settings, strategies
from trio.testing import MockClock

from tests.chaos.world import VIRTUAL, World

__all__ = ("SECONDS", "deterministic", "replay")

SECONDS = 300.0
"""Virtual seconds of a run; with it and the seed a run is complete."""

PAUSES = (1.5, 6.0, 12.0)
"""The longest pause between two faults: a storm, bad weather, a bad day."""


def deterministic(seed: int, function: Callable[[], None]) -> None:
    """Call ``function`` with Trio's scheduling and the module ``random`` seeded; what it raises comes out as it is.

    Args:
        seed: of both.
        function: runs Trio.
    """
    raised: list[BaseException] = []
    calls = 0

    @hypothesis.seed(seed)
    @settings(
        database=None,
        deadline=None,
        derandomize=False,
        max_examples=2,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategies.random_module())
    def run(random_module: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            try:
                function()
            except BaseException as error:  # Hypothesis would run it again, to find a smaller one
                raised.append(error)

    run()
    assert calls >= 2, "Hypothesis ran one example only"
    if raised:
        raise raised[0]


def replay(seed: int, seconds: float = SECONDS) -> World:
    """Run one seed in virtual time.

    Args:
        seed: of the run.
        seconds: virtual ones.

    Raises:
        ChaosFailed: something did not hold.
    """
    tempo = dataclasses.replace(VIRTUAL, pause=Random(f"{seed}/pause").choice(PAUSES))
    world = World(seed, memory=True, tempo=tempo)
    jitter = Random(f"{seed}/jitter")

    def run() -> None:
        # Where nobody gives them a generator, these make a new one for each delay.
        with (
            mock.patch("layr8_actors.channel.link_state.random_module", SimpleNamespace(Random=lambda: jitter)),
            mock.patch("layr8_actors.otp.restarts.Random", return_value=jitter),
        ):
            trio.run(world.run, seconds, seconds, clock=MockClock(autojump_threshold=0))

    deterministic(seed, run)
    return world
