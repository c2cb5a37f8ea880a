"""What users, peers and nodes do wrong, and what a client makes of it: mostly nothing but an error that says so."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from layr8_actors import (
    ChannelClosed,
    ClientConfig,
    InvalidOption,
    Layr8Error,
    LocalProtocolError,
    Message,
    ProblemReportError,
    RequestTimeout,
)
from layr8_actors.client.events import HandlerFailed, HandlerInterrupted, ReplyFailed
from layr8_actors.otp.events import ChildExited, ChildStopped, ShutdownError
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    KEY,
    REQUEST,
    RESPONSE,
    agent,
    of,
    plaintext,
    request_to,
    settle,
    settled_once,
    statuses,
    strict_node,
)

# --- handlers --------------------------------------------------------------------------------------------------------

CONTAINS_ITSELF: list[Any] = []
CONTAINS_ITSELF.append(CONTAINS_ITSELF)


@pytest.mark.parametrize(
    "body",
    [{"a": {1, 2}}, {"a": object()}, {"a": "\ud800"}, {"a": math.nan}, {1: 2}, CONTAINS_ITSELF],
    ids=["set", "object", "surrogate", "nan", "key", "itself"],
)
async def test_an_answer_that_no_json_holds_is_the_handlers_failure_and_its_sender_hears_of_it(body: Any) -> None:
    events: list[Event] = []
    async with strict_node() as node:
        alice = agent(node, events=events)
        alice.handle(REQUEST)(lambda message: message.reply(RESPONSE, body))
        async with alice, agent(node, BOB) as bob:
            with pytest.raises(ProblemReportError):
                await bob.request(request_to(ALICE), timeout=3)
            assert list(statuses(node).values()) == [["error"]]
            assert [type(event.error) for event in of(events, HandlerFailed)] == [LocalProtocolError]
            assert not of(events, ReplyFailed)
            assert not [event for event in events if type(event) is ChildExited]
            assert alice.statistics().messages_handled == 0


async def test_no_part_of_the_key_reaches_a_peer_where_a_long_error_is_cut() -> None:
    async with strict_node() as node:
        alice = agent(node)

        @alice.handle(REQUEST)
        def fail(message: Message) -> None:
            raise ValueError("x" * message.body + KEY)

        async with alice, agent(node, BOB) as bob:
            for before in range(270, 302):
                with pytest.raises(ProblemReportError) as caught:
                    await bob.request(request_to(ALICE, before), timeout=3)
                assert KEY[:2] not in caught.value.comment
                assert len(caught.value.comment) <= 303
            assert KEY[:8] not in repr([dispatch.replies for dispatch in node.dispatches])


async def test_a_handler_that_outlives_even_the_end_costs_nothing_more() -> None:
    """It shields itself for longer than the grace, and comes back when all that waited has been passed on."""
    events: list[Event] = []
    async with strict_node() as node:
        alice = agent(node, events=events, shutdown_grace=0.5)

        @alice.handle(REQUEST, accept_first=True)
        async def handle(message: Message) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)

        async with alice:
            node.deliver(ALICE, plaintext("m1", thid="t"))
            node.deliver(ALICE, plaintext("m2", thid="t"))
            await settle()
        assert not of(events, ShutdownError)
        assert [event.reason.error for event in of(events, ChildStopped) if event.id == "dispatcher"] == [None]
        assert alice.statistics().threads == 0


async def test_an_answer_that_the_node_is_slow_to_take_is_no_interrupted_handler_when_the_client_ends() -> None:
    """The sender must not hear both the answer and that there will be none."""
    events: list[Event] = []
    heard: list[str] = []
    async with strict_node() as node:
        alice, bob = agent(node, events=events, shutdown_grace=1), agent(node, BOB)
        alice.handle(REQUEST)(lambda message: message.reply(RESPONSE))
        bob.handle_all(lambda message: heard.append(message.type))
        async with bob:
            async with alice:
                node.delay_replies(60, did=ALICE)
                await bob.send(request_to(ALICE))
                await settle()
            await settle()
            assert heard == [RESPONSE]
            assert not of(events, HandlerInterrupted)
            assert [type(event.error) for event in of(events, ReplyFailed)] == [ChannelClosed]
            assert alice.statistics().messages_interrupted == 0
            assert settled_once(node)


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [ALICE, None, 7])
async def test_a_recipient_that_is_no_list_is_refused_before_it_is_sent(to: Any) -> None:
    """A str would go out as a list of its letters."""
    async with strict_node() as node, agent(node, ALICE), agent(node, BOB) as bob:
        with pytest.raises(InvalidOption, match="to: "):
            await bob.send(Message(type=REQUEST, to=to))
        with pytest.raises(InvalidOption, match="to: "):
            await bob.request(Message(type=REQUEST, to=to), timeout=3)
        assert node.frames(BOB, event="message") == []
        assert bob.statistics().requests_waiting == 0


@pytest.mark.parametrize(
    "wrong", [{"id": ""}, {"id": 7}, {"type": ""}, {"thid": 7}, {"pthid": None}, {"from_": b"did"}]
)
async def test_a_message_by_which_no_response_would_be_found_is_refused(wrong: dict[str, Any]) -> None:
    async with strict_node() as node, agent(node, ALICE), agent(node, BOB) as bob:
        with pytest.raises(InvalidOption, match=f"^{next(iter(wrong))}: "):
            await bob.request(Message(**{"type": REQUEST, "to": [ALICE], **wrong}), timeout=3)
        assert node.frames(BOB, event="message") == []
        assert bob.statistics().requests_waiting == 0


async def test_an_answer_to_a_str_is_the_handlers_failure() -> None:
    async with strict_node() as node:
        alice = agent(node)
        alice.handle(REQUEST)(lambda message: message.reply(RESPONSE, to=message.from_))
        async with alice, agent(node, BOB) as bob:
            with pytest.raises(ProblemReportError, match="a list of DIDs"):
                await bob.request(request_to(ALICE), timeout=3)


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [" ", "\n", "no DID", "did:x:a\n", "\udcff"])
def test_a_did_of_the_environment_that_is_none_names_the_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LAYR8_AGENT_DID", value)
    with pytest.raises(InvalidOption, match=r"^agent_did \(from LAYR8_AGENT_DID\): "):
        ClientConfig(node_url="https://node.test", api_key=KEY)


def test_a_given_did_that_is_none_names_the_argument_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYR8_AGENT_DID", "did:x:a")
    with pytest.raises(InvalidOption, match=r"^agent_did: "):
        ClientConfig(node_url="https://node.test", api_key=KEY, agent_did="no DID")


@pytest.mark.parametrize("spec", [5, "x", [("a", 1)]])
@pytest.mark.parametrize("parent", ["", "did:x:p"])
def test_a_did_spec_that_is_no_mapping_is_an_invalid_option_with_a_parent_too(spec: Any, parent: str) -> None:
    with pytest.raises(InvalidOption, match=r"^did_spec: "):
        ClientConfig(node_url="https://node.test", api_key=KEY, did_spec=spec, parent_did=parent)


@pytest.mark.parametrize("broken", [f"{KEY}\n", f" {KEY}", f"{KEY}\r\nx-admin: 1", f"{KEY}\0", f"{KEY}\udcff"])
def test_a_key_that_came_with_its_files_newline_is_refused_before_any_node_does(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    with pytest.raises(InvalidOption, match=r"^api_key: .* newline") as caught:
        ClientConfig(node_url="https://node.test", api_key=broken, auth="header")
    assert KEY not in str(caught.value)
    if "\0" not in broken:
        monkeypatch.setenv("LAYR8_API_KEY", broken)
        with pytest.raises(InvalidOption, match=r"^api_key \(from LAYR8_API_KEY\): .* newline"):
            ClientConfig(node_url="https://node.test")


# --- requests --------------------------------------------------------------------------------------------------------


async def test_a_request_within_a_handler_times_out_in_time_though_the_link_takes_nothing() -> None:
    """The handler's message has to be settled first, and that waits for room as all else does."""
    unlimited = {"outbox_capacity": 1, "heartbeat_interval": 1000.0, "reply_timeout": 500.0}
    async with CloudNode(memory=True, capacity=1024) as node:
        alice = agent(node, channel=unlimited)
        took: list[float] = []

        @alice.handle(REQUEST, timeout=400)
        async def handle(message: Message) -> None:
            begun = trio.current_time()
            with pytest.raises(RequestTimeout):
                await alice.request(request_to(BOB), timeout=2)
            took.append(trio.current_time() - begun)

        async def send() -> None:
            with pytest.raises(Layr8Error):
                await alice.send(request_to(BOB, "x" * 500))

        async with alice, trio.open_nursery() as nursery:
            node.stop_reading()
            while not alice.channel.statistics().outbox_waiting:
                nursery.start_soon(send)
                await settle()
            node.deliver(ALICE, plaintext("m1"))
            await trio.sleep(10)
            assert took == [2]
            node.resume()
            await node.wait_for(lambda: node.frames(ALICE, event="dispatch_reply"), timeout=10)
            await settle()
            told = [frame.payload["message_id"] for frame in node.frames(ALICE, event="dispatch_reply")]
            assert told == ["m1"]


async def test_the_node_is_told_of_a_handler_that_asks_with_a_message_that_is_none() -> None:
    """Asking tells the node ``handled``, but not where nothing can be asked."""
    async with strict_node() as node:
        alice = agent(node)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            await alice.request(Message(type=REQUEST, to=BOB))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

        async with alice, agent(node, BOB):
            node.deliver(ALICE, plaintext("m1"))
            await settle()
            assert statuses(node) == {"m1": ["error"]}
