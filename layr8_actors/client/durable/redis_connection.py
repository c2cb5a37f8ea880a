"""The link to a Redis server: coredis behind the errors of this package; the only module that imports it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import trio

from ...errors import (
    InvalidOption,
    StoreClosed,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
    StoreUnreachable,
    StoreVersion,
)
from ...transport.secret import Secret
from .redis_scripts import SCRIPTS

if TYPE_CHECKING:
    import coredis
    from coredis.commands import Script
    from coredis.retry import RetryPolicy

__all__ = ("RedisConnection",)

MOST_WAITS = 16
"""Connections that wait for entries at a time, each for one stream: coredis has 64 in all, and puts need some too."""

OLDEST_REDIS = (7, 0)  # what Debian 12 has and what is tested


class RedisConnection:
    """Connections to one server, open inside ``async with``.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout: seconds for a connection or an answer.

    Raises:
        InvalidOption: a URL that is none, or the extra ``redis`` is not installed.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.address = _address_of(url)
        try:
            import coredis.exceptions  # noqa: PLC0415
            import coredis.retry  # noqa: PLC0415 - the extra is needed here and nowhere else
        except ImportError:
            raise InvalidOption(
                "url", url, 'a Redis needs the extra redis: pip install "layr8-actors[redis]"'
            ) from None
        self._url = Secret(url)
        self._timeout = timeout
        self._no_retry: RetryPolicy = coredis.retry.NoRetryPolicy()
        self._make: Callable[..., coredis.Redis[bytes]] = coredis.Redis.from_url
        self._errors = coredis.exceptions
        self._client: coredis.Redis[bytes] | None = None
        self._waits = 0
        self._scripts: Mapping[str, Script[bytes]] = {}
        self._stack: contextlib.AsyncExitStack | None = None

    async def __aenter__(self) -> RedisConnection:
        """Connect, and see whether the server is new enough.

        Raises:
            StoreFailed: as the server, or its absence, said.
        """
        if self._stack is not None:
            raise StoreFailed(self.address, "this store is open already; make another for another block")
        try:
            async with contextlib.AsyncExitStack() as stack:
                nursery = await stack.enter_async_context(trio.open_nursery())
                stop = trio.Event()
                stack.callback(stop.set)
                client = await self._connected(nursery, stop)
                await self._refuse_an_old_server(client)
                self._scripts = {name: client.register_script(script) for name, script in SCRIPTS.items()}
                self._client = client
                self._stack = stack.pop_all()
        except Exception as raised:
            await trio.lowlevel.checkpoint_if_cancelled()
            error = _only(raised)
            raise self._failed(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        stack, self._stack, self._client = self._stack, None, None
        assert stack is not None
        try:
            await stack.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # A nursery wraps what the block raised; it is to come out as itself.
            if _only(group) is not error:
                raise

    async def _connected(self, nursery: trio.Nursery, stop: trio.Event) -> coredis.Redis[bytes]:
        """Have coredis' connections held until ``stop``.

        In a task of their own and shielded: were they cancelled together with the block, nothing in it could be given
        back or acknowledged any more.
        """
        # Not retried: the answer to the second try of a put or claim would hide what the first one did.
        client = self._make(
            self._url.reveal(),
            retry_policy=self._no_retry,
            connect_timeout=self._timeout,
            stream_timeout=self._timeout,
        )
        ready = trio.Event()

        async def hold() -> None:
            with trio.CancelScope(shield=True):
                async with client:
                    ready.set()
                    await stop.wait()

        # Not nursery.start: cancelled, that would wait for a task which waits for stop.
        nursery.start_soon(hold, name=f"{self!r}: connections")
        await ready.wait()
        return client

    def _opened(self) -> coredis.Redis[bytes]:
        if self._client is None:
            raise StoreClosed(self.address, "the store is not open; use it inside its async with block")
        return self._client

    async def run(self, script: str, stem: str, *arguments: str | bytes | float) -> Any:
        """Run one of our scripts.

        Raises:
            StoreFailed: as the server, or its absence, said.
        """
        self._opened()

        async def call() -> Any:
            return await self._scripts[script](keys=[stem], args=list(arguments))

        return await self._ask(call)

    @property
    def may_wait(self) -> bool:
        """Whether one more stream may be waited for."""
        return self._waits < MOST_WAITS

    async def wait_for_entry(self, stream: str, after: bytes, seconds: float) -> None:
        """Return when the stream has an entry after that one, or after ``seconds`` at the latest."""
        client = self._opened()
        seconds = min(seconds, self._timeout / 2)  # beyond the timeout the server would be taken for dead

        async def call() -> Any:
            return await client.xread({stream: after}, count=1, block=max(1, int(seconds * 1000)))

        self._waits += 1
        try:
            await self._ask(call)
        finally:
            self._waits -= 1

    async def weaknesses(self) -> list[str]:
        """Return what in the settings of the server may cost a message that was put."""
        client = self._opened()
        facts = await self._ask(lambda: client.info("persistence", "memory"))
        weak: list[str] = []
        if int(facts.get("aof_enabled", 0)) != 1:
            weak.append("appendonly is off: what came after the last snapshot goes with the server")
        else:
            try:
                sync = (await client.config_get(["appendfsync"])).get(b"appendfsync", b"").decode()
            except self._errors.RedisError:
                sync = "not for us to read"
            if sync != "always":
                weak.append(f"appendfsync is {sync}: a power cut may take the last messages")
        policy = str(facts.get("maxmemory_policy", ""))
        if int(facts.get("maxmemory", 0)) and policy != "noeviction":
            weak.append(f"maxmemory-policy is {policy}: it may evict messages")
        return weak

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except (self._errors.RedisError, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # Cancelled while it connects, coredis says that it could not.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise self._failed(error) from error

    async def _refuse_an_old_server(self, client: coredis.Redis[bytes]) -> None:
        facts = cast("Mapping[str, Any]", await client.info("server"))
        version = str(facts.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
            wanted = ".".join(map(str, OLDEST_REDIS))
            raise StoreVersion(self.address, f"the server is Redis {version}, {wanted} is needed")

    def _failed(self, error: BaseException) -> StoreFailed:
        """Return the error of this package that says what an error of coredis means."""
        if isinstance(error, StoreFailed):
            return error
        errors = self._errors
        detail = str(error) or type(error).__name__
        if isinstance(error, (errors.AuthenticationError, errors.AuthorizationError)):
            return StoreFailed(self.address, "the server refuses the user or password, or does not allow this user")
        if isinstance(error, errors.ReadOnlyError):
            return StoreReadOnly(self.address, "this server is a replica; give the address of the primary")
        if detail.startswith("OOM") or "maxmemory" in detail:
            return StoreFull(self.address, "the server's memory is used up; raise maxmemory, or handle what waits")
        if detail.startswith("MISCONF") or "unable to persist" in detail.lower():
            return StoreFull(self.address, "the server cannot write to its disk and takes nothing; see its log")
        if isinstance(error, (errors.ConnectionError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)):
            return StoreUnreachable(self.address, f"no answer ({type(error).__name__}); whether it acted is open")
        return StoreFailed(self.address, detail)


def _address_of(url: str) -> str:
    """The URL without user, password and query."""
    allowed = "redis://host[:port][/db], rediss://... or unix://path"
    if not isinstance(url, str):
        raise InvalidOption("url", url, allowed)
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise InvalidOption("url", url, allowed) from None
    if parts.scheme not in ("redis", "rediss", "unix") or not (parts.hostname or parts.path):
        raise InvalidOption("url", url, allowed)
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _only(error: BaseException) -> BaseException:
    """What a group of one wraps."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
