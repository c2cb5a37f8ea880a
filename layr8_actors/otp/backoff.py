"""How long to wait before an attempt; pure arithmetic, the generator of randomness is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from ..errors import InvalidOption
from .validation import checked_count, checked_seconds

__all__ = ("Backoff",)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow by a factor up to a cap, spread by jitter (Akka/Pekko: BackoffOpts, with the cap kept).

    Args:
        initial: seconds of the first delay, > 0.
        maximum: the longest delay in seconds, a promise: jitter only ever shortens.
        factor: growth per attempt, >= 1 (Pekko: 2).
        jitter: share of a delay that is random, 0 (exact) to 1; a herd is spread at the cap too.
        reset_after: seconds an incarnation must have run for its failures to be forgotten.
        first_delay: where given, the delay of attempt 0, and ``initial`` is that of attempt 1; 0.0 is OTP's immediate
            first restart.

    Raises:
        InvalidOption: a value that is not allowed.
    """

    initial: float = 1.0  # design of Layr8.Channel: 1 s -> 30 s
    maximum: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5
    reset_after: float = 30.0
    first_delay: float | None = None

    def __post_init__(self) -> None:
        checked_seconds("initial", self.initial, allow_zero=False)
        checked_seconds("maximum", self.maximum, allow_zero=False)
        if self.maximum < self.initial:
            raise InvalidOption("maximum", self.maximum, "at least initial")
        if (
            isinstance(self.factor, bool)
            or not isinstance(self.factor, (int, float))
            or not 1 <= self.factor < math.inf
        ):
            raise InvalidOption("factor", self.factor, "a finite number >= 1")
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter <= 1:
            raise InvalidOption("jitter", self.jitter, "a number from 0 to 1")
        checked_seconds("reset_after", self.reset_after, allow_infinity=True)
        if self.first_delay is not None:
            checked_seconds("first_delay", self.first_delay)

    def longest_delay(self, attempt: int) -> float:
        """Return the delay in seconds before ``attempt``, without jitter: the longest that :meth:`delay` can give.

        Args:
            attempt: how many attempts failed before, 0 for the first.
        """
        checked_count("attempt", attempt)
        if self.first_delay is not None:
            if attempt == 0:
                return self.first_delay
            attempt -= 1
        # Compared as logarithms, because factor ** attempt overflows long before a retry loop ends (2.0 ** 1024).
        if self.factor > 1 and attempt >= math.log(self.maximum / self.initial, self.factor):
            return float(self.maximum)
        return min(float(self.maximum), self.initial * self.factor**attempt)

    def delay(self, attempt: int, random: Random) -> float:
        """Return the delay in seconds before ``attempt``.

        Args:
            attempt: how many attempts failed before, 0 for the first.
            random: where the jitter comes from.
        """
        longest = self.longest_delay(attempt)
        return longest if self.jitter == 0 else longest * random.uniform(1 - self.jitter, 1)
