"""The client's configuration: arguments, environment, what is refused, and that the key is nowhere to be seen."""

from __future__ import annotations

import dataclasses
import traceback
from typing import Any

import pytest

from layr8_actors import Callbacks, Client, ClientConfig, InvalidOption
from layr8_actors.telemetry import log_event
from layr8_actors.transport import Secret
from tests.client.agents import ALICE, KEY

URL = "wss://node.example.com/plugin_socket/websocket"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAYR8_NODE_URL", "LAYR8_API_KEY", "LAYR8_AGENT_DID"):
        monkeypatch.delenv(name, raising=False)


def config(**changes: Any) -> ClientConfig:
    return ClientConfig(**{"node_url": URL, "api_key": KEY, "agent_did": ALICE, **changes})


@pytest.mark.parametrize(
    ("given", "dialled"),
    [
        ("https://node.example.com", URL),
        ("https://node.example.com/", URL),
        ("wss://node.example.com", URL),
        (URL, URL),
        ("http://localhost:4000", "ws://localhost:4000/plugin_socket/websocket"),
        ("https://node.example.com/other/websocket", "wss://node.example.com/other/websocket"),
        ("https://node.example.com?tenant=7", f"{URL}?tenant=7"),
    ],
)
def test_the_url_may_be_the_nodes_alone(given: str, dialled: str) -> None:
    assert config(node_url=given).node_url == dialled


def test_what_is_not_given_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYR8_NODE_URL", "https://node.example.com")
    monkeypatch.setenv("LAYR8_API_KEY", KEY)
    monkeypatch.setenv("LAYR8_AGENT_DID", ALICE)

    read = ClientConfig()

    assert (read.node_url, read.api_key, read.agent_did) == (URL, Secret(KEY), ALICE)


def test_what_is_given_goes_before_the_environment_and_nothing_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYR8_NODE_URL", "https://other.example.com")
    monkeypatch.setenv("LAYR8_API_KEY", "another-key")
    monkeypatch.setenv("LAYR8_AGENT_DID", "did:web:other")

    assert (config().node_url, config().api_key, config().agent_did) == (URL, Secret(KEY), ALICE)
    assert config(node_url="").node_url == "wss://other.example.com/plugin_socket/websocket"
    assert config(api_key="").api_key == Secret("another-key")
    assert config(agent_did="").agent_did == "did:web:other"


@pytest.mark.parametrize(("missing", "variable"), [("node_url", "LAYR8_NODE_URL"), ("api_key", "LAYR8_API_KEY")])
def test_what_is_missing_is_named_with_its_variable(missing: str, variable: str) -> None:
    with pytest.raises(InvalidOption, match=f"{missing}.*{variable}"):
        config(**{missing: ""})


def test_a_bad_value_of_the_environment_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYR8_NODE_URL", "node.example.com")

    with pytest.raises(InvalidOption, match=r"node_url \(from LAYR8_NODE_URL\).*scheme"):
        ClientConfig(api_key=KEY)


def test_a_blank_did_is_allowed() -> None:
    assert config(agent_did="").agent_did == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("node_url", "node.example.com"),
        ("node_url", 7),
        ("api_key", 7),
        ("api_key", "   "),
        ("agent_did", "no did"),
        ("agent_did", 7),
        ("protocols", "https://one.string/1.0"),
        ("protocols", [7]),
        ("protocols", 7),
        ("parent_did", 7),
        ("max_handlers", 0),
        ("max_queued", 0),
        ("handler_timeout", 0),
        ("shutdown_grace", 0),
        ("auth", "both"),
        ("transport", "carrier pigeon"),
        ("on_event", None),
        ("channel", 7),
        ("channel", {"agent_did": ALICE}),
        ("channel", {"reply_timeout": 0}),
    ],
)
def test_a_wrong_option_names_itself(option: str, value: Any) -> None:
    expected = "reply_timeout" if value == {"reply_timeout": 0} else option
    with pytest.raises(InvalidOption, match=expected):
        config(**{option: value})


def test_what_is_no_config_is_refused() -> None:
    with pytest.raises(InvalidOption, match="config"):
        Client({"node_url": URL})  # type: ignore[arg-type]


def test_options_of_the_channel_go_through() -> None:
    options = config(channel={"reply_timeout": 3.0, "inbox_capacity": 5}, auth="header").channel_options(
        Callbacks(), log_event
    )

    assert (options.reply_timeout, options.inbox_capacity, options.auth) == (3.0, 5, "header")
    assert (options.ws_url, options.agent_did) == (URL, ALICE)


def test_what_the_caller_changes_later_is_not_the_configs() -> None:
    tuning: Any = {"reply_timeout": 3.0}
    protocols = ["https://x.org/1.0"]
    made = config(channel=tuning, protocols=protocols)
    tuning["reply_timeout"] = 9.0
    protocols.append("https://y.org/1.0")

    assert made.channel == {"reply_timeout": 3.0}
    assert made.protocols == ("https://x.org/1.0",)


# --- borrowed identities ---------------------------------------------------------------------------------------------

PARENT = "did:web:node.test:parent"


def test_a_child_that_nobody_named_is_named_once() -> None:
    made = config(agent_did="", parent_did=PARENT)

    assert made.agent_did.rpartition(":")[0] == PARENT
    assert len(made.agent_did.rpartition(":")[2]) == 12
    assert made.did_spec == {"childNameSource": "sdk", "parentDid": PARENT}
    assert dataclasses.replace(made).agent_did == made.agent_did
    assert config(agent_did="", parent_did=PARENT).agent_did != made.agent_did


def test_a_child_that_the_caller_named_keeps_its_name() -> None:
    made = config(agent_did=f"{PARENT}:mine", parent_did=PARENT, did_spec={"label": "l"})

    assert made.agent_did == f"{PARENT}:mine"
    assert made.did_spec == {"childNameSource": "client", "label": "l", "parentDid": PARENT}


@pytest.mark.parametrize("did", [ALICE, PARENT, f"{PARENT}:", f"{PARENT}:a:b", f"{PARENT}x:a"])
def test_a_did_that_is_not_beneath_its_parent_is_refused_before_anything_is_dialled(did: str) -> None:
    with pytest.raises(InvalidOption, match="agent_did"):
        config(agent_did=did, parent_did=PARENT)


# --- the key ---------------------------------------------------------------------------------------------------------


def test_the_key_is_in_no_text_of_config_and_client() -> None:
    made = config(node_url=f"{URL}?tenant=7")
    shown = " ".join(
        [repr(made), str(made), repr(Client(made)), str(dataclasses.asdict(made)), str(vars(Client(made)))]
    )

    assert KEY not in shown
    assert "tenant" not in repr(made)


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_a_config_that_is_refused_shows_the_key_in_no_local_of_its_traceback(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"max_handlers": 0, "node_url": f"{URL}?api_key={KEY}"}
    if source == "environment":
        monkeypatch.setenv("LAYR8_API_KEY", KEY)
        changes["api_key"] = ""
    for broken in (changes, {**changes, "node_url": f"no-scheme?api_key={KEY}"}):
        with pytest.raises(InvalidOption) as caught:
            config(**broken)
        frames = [
            frame
            for frame, _ in traceback.walk_tb(caught.value.__traceback__)
            if "layr8_actors" in frame.f_code.co_filename
        ]
        assert KEY not in str([frame.f_locals for frame in frames])
        assert KEY not in str(caught.value)


async def test_a_key_that_is_asked_for_is_asked_before_the_dial() -> None:
    async def provide() -> str:
        return KEY

    options = config(api_key=provide).channel_options(Callbacks(), log_event)
    assert (await options.endpoint()).api_key == Secret(KEY)
