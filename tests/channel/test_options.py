"""Options are checked when they are made, and print without the key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from layr8_actors.channel import Callbacks, ChannelOptions
from layr8_actors.channel.options import checked_protocols
from layr8_actors.errors import InvalidOption
from layr8_actors.otp import Backoff

KEY = "s3cr3t-k3y"


def options(**changes: Any) -> ChannelOptions:
    return ChannelOptions(**{"ws_url": "ws://node.test/plugin_socket/websocket", "api_key": KEY, **changes})


@pytest.mark.parametrize(
    ("option", "value", "type_name"),
    [
        ("ws_url", "ftp://node.test/", "str"),
        ("ws_url", "node.test/plugin_socket", "str"),
        ("ws_url", None, "NoneType"),
        ("api_key", "", "str"),
        ("api_key", "   ", "str"),
        ("api_key", 7, "int"),
        ("agent_did", "alice", "str"),
        ("agent_did", None, "NoneType"),
        ("agent_did", "did:", "str"),
        ("agent_did", "did:web:a b", "str"),
        ("agent_did", "did:web:\ud800", "str"),
        ("did_spec", {"label": "\ud800"}, "dict"),
        ("did_spec", {"verificationMethods": [{"purpose": "authentication", "id": object()}]}, "dict"),
        ("callbacks", {"on_message": print}, "dict"),
        ("did_spec", "Create", "str"),
        ("heartbeat_interval", 0, "int"),
        ("heartbeat_interval", float("nan"), "float"),
        ("heartbeat_timeout", 31.0, "float"),
        ("connect_timeout", -1, "int"),
        ("join_timeout", "10", "str"),
        ("reply_timeout", True, "bool"),
        ("close_timeout", float("inf"), "float"),
        ("backoff", 1.0, "float"),
        ("auth", "basic", "str"),
        ("ssl_context", True, "bool"),
        ("max_message_size", 0, "int"),
        ("inbox_capacity", 1.5, "float"),
        ("outbox_capacity", False, "bool"),
        ("max_restarts", -1, "int"),
        ("max_seconds", 0, "int"),
        ("transport", "websocket", "str"),
        ("transport", 7, "int"),
        ("on_event", None, "NoneType"),
    ],
)
def test_a_wrong_option_names_itself_the_type_and_what_is_allowed(option: str, value: Any, type_name: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        options(**{option: value})
    assert caught.value.option.startswith(option)
    assert caught.value.value_type == type_name
    assert caught.value.allowed
    assert KEY not in str(caught.value)


def test_a_callback_that_cannot_be_called_is_refused_by_name() -> None:
    with pytest.raises(InvalidOption, match=r"callbacks\.on_disconnect"):
        Callbacks(on_disconnect="log")  # type: ignore[arg-type]


def test_http_urls_are_turned_into_ws_urls() -> None:
    assert options(ws_url="https://node.test/s").ws_url == "wss://node.test/s"
    assert options(ws_url="http://node.test/s").ws_url == "ws://node.test/s"


def test_protocols_keep_their_order_without_doubles_and_a_set_has_the_same_order_each_run() -> None:
    assert checked_protocols(["b", "a", "*", "a"]) == ("b", "a", "*")
    names = [f"https://didcomm.org/p{number}/1.0" for number in range(20)]
    assert checked_protocols(frozenset(names)) == tuple(sorted(names))


def test_the_key_is_in_no_repr_and_no_field_that_prints() -> None:
    made = options(ws_url=f"wss://node.test/s?api_key={KEY}&x=1")
    assert KEY not in repr(made)
    assert KEY not in str(dataclasses.asdict(dataclasses.replace(made, ssl_context=None)))
    assert KEY not in f"{made.api_key}{made.api_key!r}"


def test_a_copy_with_other_options_keeps_the_key_and_the_derived_child() -> None:
    parent = "did:web:node.test:parent"
    made = options(did_spec={"parentDid": parent})
    assert made.agent_did.startswith(parent + ":")
    again = dataclasses.replace(made, reply_timeout=1.0)
    assert (again.agent_did, again.api_key) == (made.agent_did, made.api_key)


def test_the_defaults_are_those_the_docstring_cites() -> None:
    made = options()
    assert (made.heartbeat_interval, made.heartbeat_timeout_s) == (30.0, 30.0)
    assert (made.connect_timeout, made.join_timeout, made.reply_timeout, made.close_timeout) == (10.0, 10.0, 15.0, 5.0)
    assert made.backoff == Backoff(initial=1.0, maximum=30.0, factor=2.0, jitter=0.5, reset_after=30.0)
    assert (made.max_restarts, made.max_seconds, made.auth, made.transport) == (3, 5.0, "query", "auto")


async def test_the_endpoint_carries_the_key_of_this_moment() -> None:
    keys = iter(["first", "second"])

    async def provider() -> str:
        return next(keys)

    made = options(api_key=provider)
    assert (await made.endpoint()).api_key.reveal() == "first"
    assert (await made.endpoint()).api_key.reveal() == "second"


async def test_a_provider_that_returns_no_key_is_an_invalid_option() -> None:
    async def provider() -> Any:
        return None

    with pytest.raises(InvalidOption, match="api_key"):
        await options(api_key=provider).endpoint()
