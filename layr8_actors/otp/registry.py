"""Names for what runs: unique in one registry, free again the moment their holder is gone (Elixir: Registry)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import NameTaken

__all__ = ("Registry",)


class Registry:
    """A table of names that a program makes for itself and hands to whom it likes; there is no global one.

    An actor is registered by its ref, ``ActorRef("db", registry=registry)``: from before its ``init`` until it is gone.
    Anything else holds its name for the length of a block: ``with registry.register("db", pool): ...``.
    """

    __slots__ = ("_holders",)

    def __init__(self) -> None:
        self._holders: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def __contains__(self, name: object) -> bool:
        return name in self._holders

    def whereis(self, name: Hashable) -> Any:
        """Return who holds ``name`` now, or ``None`` (OTP: whereis/1); no checkpoint.

        Args:
            name: any hashable object.
        """
        return self._holders.get(name)

    def names(self) -> tuple[Hashable, ...]:
        """Return all names that are held, the oldest first (OTP: registered/0); no checkpoint."""
        return tuple(self._holders)

    @contextmanager
    def register(self, name: Hashable, holder: Any) -> Iterator[None]:
        """Hold ``name`` for the length of a ``with`` block (Elixir: Registry.register/3); no checkpoint.

        In a supervised child the block ends before the supervisor is told of the child's end, so the next incarnation
        finds the name free.

        Args:
            name: any hashable object.
            holder: what ``whereis`` shall return.

        Raises:
            NameTaken: somebody holds it; the error has the holder.
        """
        self.claim(name, holder)
        try:
            yield
        finally:
            self.release(name)

    def claim(self, name: Hashable, holder: Any) -> None:
        """For the library alone: ``holder`` has ``name`` until :meth:`release`.

        Raises:
            NameTaken: somebody holds it.
        """
        if name in self._holders:
            raise NameTaken(name, self._holders[name])
        self._holders[name] = holder

    def release(self, name: Hashable) -> None:
        """For the library alone: ``name`` is free."""
        del self._holders[name]
