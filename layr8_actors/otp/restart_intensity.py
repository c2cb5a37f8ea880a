"""The sliding window over which a supervisor counts restarts; time is an argument."""

from __future__ import annotations

from .validation import checked_count, checked_seconds

__all__ = ("RestartIntensity",)


class RestartIntensity:
    """Counts restarts in a window that slides (OTP: ``add_restart``), in exact seconds where OTP truncates.

    Args:
        max_restarts: how many restarts the window permits; 0 permits none.
        max_seconds: the window's length; a restart exactly that old still counts.

    Raises:
        InvalidOption: a value that is not allowed.
    """

    __slots__ = ("_stamps", "max_restarts", "max_seconds")

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self.max_restarts = checked_count("max_restarts", max_restarts)
        self.max_seconds = checked_seconds("max_seconds", max_seconds, allow_zero=False)
        self._stamps: list[float] = []

    def add(self, now: float) -> bool:
        """Count one needed restart.

        Args:
            now: monotonic seconds.

        Returns:
            False when this one exceeds the limit, so that the supervisor has to give up.
        """
        self._drop_old(now)
        self._stamps.append(now)
        # At most max_restarts + 1 are ever needed to know that the limit is exceeded, whatever the rate.
        del self._stamps[: -(self.max_restarts + 1)]
        return len(self._stamps) <= self.max_restarts

    def used(self, now: float) -> int:
        """Return how many restarts the window holds.

        Args:
            now: monotonic seconds.
        """
        self._drop_old(now)
        return len(self._stamps)

    def _drop_old(self, now: float) -> None:
        while self._stamps and now - self._stamps[0] > self.max_seconds:
            del self._stamps[0]
