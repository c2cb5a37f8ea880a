"""An option that is refused takes no key along: neither in its text nor in any local of any frame of its traceback."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from layr8_actors.channel import ChannelOptions
from layr8_actors.errors import InvalidOption
from layr8_actors.transport import Endpoint, Secret, normalize_url
from tests.secrets.shown import leaks

KEY = "s3cr3t-k3y/&=+'\"\\"
URL = "ws://node.test/plugin_socket/websocket"


def options(**changes: Any) -> ChannelOptions:
    return ChannelOptions(**{"ws_url": URL, "api_key": KEY, **changes})


class Hostile(dict[str, Any]):
    """A mapping of the user's own that fails when it is read."""

    def items(self) -> Any:
        raise RuntimeError("not today")

    __iter__ = keys = items


@pytest.mark.parametrize(
    "construct",
    [
        *(
            lambda option=option, value=value: options(**{option: value})
            for option, value in [
                ("ws_url", "ftp://node.test/"),
                ("ws_url", f"ftp://node.test/?api_key={KEY}"),
                ("ws_url", f"ws://user:{KEY}@node.test/"),
                ("ws_url", KEY.encode()),
                ("api_key", KEY.encode()),
                ("api_key", [KEY]),
                ("agent_did", "alice"),
                ("callbacks", None),
                ("did_spec", {"label": object()}),
                ("did_spec", Hostile()),
                ("heartbeat_interval", 0),
                ("heartbeat_timeout", 31.0),
                ("reply_timeout", True),
                ("max_message_size", 0),
                ("max_seconds", 0),
                ("backoff", None),
                ("auth", "basic"),
                ("ssl_context", True),
                ("transport", "websocket"),
                ("transport", 7),
                ("on_event", None),
                ("no_such_option", 1),
            ]
        ),
        lambda: ChannelOptions(URL, KEY),  # type: ignore[call-arg]
        lambda: ChannelOptions(api_key=KEY),  # type: ignore[call-arg]
        lambda: dataclasses.replace(options(), auth="basic"),  # type: ignore[arg-type]
        lambda: Endpoint(url=f"ws://node.test:0/?api_key={KEY}", api_key=Secret(KEY)),
        lambda: Endpoint(url=URL, api_key=KEY),  # type: ignore[arg-type]
        lambda: Endpoint(url=URL, api_key=KEY.encode()),  # type: ignore[arg-type]
        lambda: Endpoint(url=URL, api_key=Secret(KEY + "é"), auth="header"),
        lambda: Endpoint(url=URL, api_key=Secret(KEY), open_timeout=0),
        lambda: Endpoint.parse_url(f"ftp://node.test/?api_key={KEY}"),
        lambda: normalize_url(f"ftp://node.test/?api_key={KEY}"),
        lambda: Secret(KEY.encode()),  # type: ignore[arg-type]
    ],
)
def test_a_construction_that_fails_shows_no_key(construct: Callable[[], object]) -> None:
    with pytest.raises((InvalidOption, TypeError, RuntimeError)) as caught:
        construct()
    assert leaks(KEY, caught.value) == []


def test_a_construction_that_fails_still_shows_where_the_users_own_code_failed() -> None:
    with pytest.raises(RuntimeError, match="not today") as caught:
        options(did_spec=Hostile())
    names = [entry.name for entry in caught.traceback]
    assert "items" in names
    assert "__post_init__" in names
    assert "__init__" not in names


def test_the_signature_and_the_type_of_the_options_are_the_dataclasses_own() -> None:
    parameters = inspect.signature(ChannelOptions).parameters
    assert list(parameters) == [field.name for field in dataclasses.fields(ChannelOptions)]


@pytest.mark.parametrize(
    ("key", "auth"),
    [
        (KEY + "é", "header"),
        (f" {KEY}", "header"),
        (f"{KEY}\r\nx: y", "header"),
        (KEY.encode(), "query"),
        ([KEY], "query"),
        (None, "query"),
        ("", "query"),
        (Secret(""), "query"),
    ],
)
async def test_a_provider_that_returns_what_cannot_be_sent_shows_no_key(key: Any, auth: Any) -> None:
    async def provider() -> Any:
        return key

    with pytest.raises(InvalidOption) as caught:
        await options(api_key=provider, auth=auth).endpoint()
    assert leaks(KEY, caught.value) == []


def test_options_endpoints_and_secrets_show_no_key_nor_does_any_of_their_attributes() -> None:
    made = options(ws_url=f"{URL}?api_key={KEY}&token={KEY}")
    endpoint = Endpoint(url=made.ws_url, api_key=Secret(KEY))
    shown = [repr(made), str(made), repr(endpoint), made.public_url, endpoint.public_url]
    assert leaks(KEY, *shown, Secret(KEY), made.api_key, endpoint.request_target(), endpoint.auth_headers()) == []


# --- the search itself ------------------------------------------------------------------------------------------------


class Holder:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def with_local(make: Callable[[], object]) -> BaseException:
    """An error whose traceback has a frame, outside of tests/ by its name, with that object as a local."""
    scope: dict[str, Any] = {"make": make}
    exec(compile("def f():\n    it = make()\n    raise ValueError\n", "/app/theirs.py", "exec"), scope)
    try:
        scope["f"]()
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "thing",
    [
        ValueError(KEY),
        raised(ValueError("x"), OSError(KEY)),
        ExceptionGroup("x", [ValueError("y"), ExceptionGroup("z", [ValueError(KEY)])]),
        Holder(KEY),
        Holder({"a": [KEY]}),
        "s3cr3t-k3y%2F%26%3D%2B%27%22%5C",
        "s3cr3t-k3y%2f%26%3d%2b%27%22%5c",
        "czNjcjN0LWszeS8mPSsnIlw",
        with_local(lambda: KEY),
        with_local(lambda: Holder(KEY)),
    ],
    ids=repr,
)
def test_the_search_finds_what_does_leak(thing: object) -> None:
    assert leaks(KEY, thing) != []
