"""Requests: how a response finds its caller, what ends the wait, and that nothing is left behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from layr8_actors import (
    PASS,
    ChannelClosed,
    Client,
    Disconnected,
    InvalidOption,
    JoinRejected,
    Layr8Error,
    Message,
    NotConnected,
    Pass,
    ProblemReportError,
    RequestTimeout,
    ServerReject,
)
from layr8_actors.client.events import HandlerFailed, ProblemReported
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    REPORT,
    REQUEST,
    RESPONSE,
    agent,
    echo_agent,
    legacy_node,
    of,
    plaintext,
    request_to,
    settle,
    settled_once,
    statuses,
    strict_node,
)


class Asker:
    """One request in a task of its own, with its outcome and the time of it."""

    def __init__(self, nursery: trio.Nursery, client: Client, message: Message | None = None, **options: Any) -> None:
        self.message = request_to() if message is None else message
        self.outcome: Any = None
        self.at: float | None = None
        nursery.start_soon(self._run, client, options)

    async def _run(self, client: Client, options: dict[str, Any]) -> None:
        try:
            self.outcome = await client.request(self.message, **options)
        except Layr8Error as error:
            self.outcome = error
        self.at = trio.current_time()


async def test_peer_bug_27_a_response_to_a_request_is_settled_like_any_message() -> None:
    """B27: the node's router waited for its timeout after each response."""
    async with strict_node() as node, echo_agent(node), agent(node) as alice:
        for number in range(3):
            assert (await alice.request(request_to(BOB, number))).body == number
        await settle()
        assert [dispatch.status for dispatch in node.dispatches if dispatch.did == ALICE] == ["handled"] * 3
        assert settled_once(node)
        assert trio.current_time() < 1, "no router waited for a timeout"


async def test_responses_find_their_requests_in_any_order() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        askers = [Asker(nursery, alice, request_to(BOB, thid=f"t{number}")) for number in range(3)]
        await settle()
        for number in (2, 0, 1):
            node.deliver(ALICE, plaintext(f"r{number}", RESPONSE, thid=f"t{number}"))
        await settle()
        assert [asker.outcome.id for asker in askers] == ["r0", "r1", "r2"]
        assert alice.statistics().requests_waiting == 0


async def test_a_request_without_a_thread_begins_one_of_its_own_id() -> None:
    async with strict_node() as node, echo_agent(node), agent(node) as alice:
        response = await alice.request(request_to(id="m1", pthid="parent"))
        (frame,) = node.frames(ALICE, event="message")
        assert (frame.payload["id"], frame.payload["thid"], frame.payload["pthid"]) == ("m1", "m1", "parent")
        assert response.thid == "m1"


async def test_the_thread_goes_before_the_parent_thread() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        first = Asker(nursery, alice, request_to(BOB, thid="first"))
        second = Asker(nursery, alice, request_to(BOB, thid="second"))
        await settle()
        node.deliver(ALICE, plaintext("a", RESPONSE, thid="second", pthid="first"))
        await settle()
        assert isinstance(second.outcome, Message)
        assert first.outcome is None
        node.deliver(ALICE, plaintext("b", RESPONSE, thid="begun by the other one", pthid="first"))
        await settle()
        assert isinstance(first.outcome, Message)


@pytest.mark.parametrize("parent", ["the thread", "the id"])
@pytest.mark.parametrize("handles", [False, True])
async def test_peer_bug_13_a_problem_report_with_only_a_pthid_fails_the_request_that_it_is_about(
    parent: str, handles: bool
) -> None:
    """B13: the node's own denial names only the denied thread or id, and the request timed out."""
    async with legacy_node() as node:
        alice = agent(node)
        if handles:
            alice.handle(REPORT)(lambda message: pytest.fail("it belongs to the request"))
        await denied(node, alice, parent)


async def denied(node: CloudNode, alice: Client, parent: str) -> None:
    async with agent(node, BOB), alice, trio.open_nursery() as nursery:
        asker = Asker(nursery, alice, request_to(BOB, id="the id", thid="the thread"))
        await settle()
        body = {"code": "e.m.authz.denied", "comment": "{1} may not {2}, {3}", "args": ["alice", "echo"]}
        node.deliver(ALICE, plaintext("r", REPORT, pthid=parent, body=body))
        await settle()
        assert isinstance(asker.outcome, ProblemReportError)
        assert asker.outcome.code == "e.m.authz.denied"
        assert asker.outcome.comment == "alice may not echo, {3}"
        assert asker.outcome.arguments == ("alice", "echo")


async def test_peer_bug_13_the_protocol_of_problem_reports_is_bound_by_every_client() -> None:
    """B13: without it a node keeps the denial of what was sent to itself."""
    async with CloudNode(memory=True) as node, agent(node, protocols=()):
        (join,) = node.frames(ALICE, event="phx_join")
        assert join.payload["payload_types"] == ["https://didcomm.org/report-problem/2.0"]


@pytest.mark.parametrize("body", [None, [], {}, {"code": 7, "comment": {}, "args": "x"}, {"args": [1, None]}])
async def test_a_problem_report_of_any_shape_fails_its_request(body: Any) -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        asker = Asker(nursery, alice, request_to(BOB, thid="t"))
        await settle()
        node.deliver(
            ALICE, plaintext("r", "https://didcomm.org/report-problem/1.0/problem-report", thid="t", body=body)
        )
        await settle()
        assert isinstance(asker.outcome, ProblemReportError)
        assert (asker.outcome.code, asker.outcome.comment) == ("", "")


async def test_a_message_in_a_thread_begun_within_ours_is_the_response_where_nobody_else_wants_it() -> None:
    async with legacy_node() as node, agent(node, BOB):
        for handles, expected in ((False, "answered"), (True, "handled")):
            handled: list[str] = []
            alice = agent(node)
            if handles:
                alice.handle(RESPONSE)(lambda message, to=handled: to.append(message.id))
            async with alice, trio.open_nursery() as nursery:
                asker = Asker(nursery, alice, request_to(BOB, thid="ours"))
                await settle()
                node.deliver(ALICE, plaintext("r", RESPONSE, thid="its own", pthid="ours"))
                await settle()
                outcome = "handled" if handled == ["r"] else "answered" if isinstance(asker.outcome, Message) else "?"
                assert outcome == expected
                nursery.cancel_scope.cancel()


async def test_our_own_request_that_comes_back_to_us_is_no_answer_to_itself() -> None:
    async with strict_node() as node:
        alice = agent(node)
        alice.handle(REQUEST)(lambda message: message.reply(RESPONSE, "answered"))
        async with alice:
            assert (await alice.request(request_to(ALICE))).body == "answered"


async def test_a_request_goes_before_the_handler_of_the_type() -> None:
    async with strict_node() as node, echo_agent(node):
        alice = agent(node)
        handled: list[str] = []
        alice.handle(RESPONSE)(lambda message: handled.append(message.id))
        async with alice:
            response = await alice.request(request_to())
            assert handled == []
            # Once answered the thread is free: what comes next in it is the handler's.
            node.deliver(ALICE, plaintext("late", RESPONSE, thid=response.thid))
            await settle()
            assert handled == ["late"]


async def test_two_requests_cannot_wait_in_one_thread() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        Asker(nursery, alice, request_to(BOB, id="m1", thid="t"))
        await settle()
        for message in (request_to(BOB, thid="t"), request_to(BOB, id="m1")):
            with pytest.raises(InvalidOption, match="thread"):
                await alice.request(message)
        assert alice.statistics().requests_waiting == 1
        nursery.cancel_scope.cancel()


async def test_a_refused_request_is_a_server_reject_at_once() -> None:
    async with CloudNode(memory=True) as node, agent(node) as alice:
        with pytest.raises(ServerReject, match="no plugin"):
            await alice.request(request_to())
        assert alice.statistics().requests_waiting == 0


async def test_a_response_proves_that_the_request_was_taken_even_where_the_nodes_own_answer_is_lost() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        node.drop_replies(did=ALICE, event="message", count=1)
        asker = Asker(nursery, alice, request_to(BOB, thid="t"))
        await settle()
        node.deliver(ALICE, plaintext("r", RESPONSE, thid="t"))
        await settle()
        assert asker.outcome.id == "r"
        await trio.sleep(60)
        assert alice.channel.statistics().reply_timeouts == 0


# --- what ends the wait ----------------------------------------------------------------------------------------------


async def test_a_request_times_out_and_leaves_nothing() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice:
        begun = trio.current_time()
        with pytest.raises(RequestTimeout, match="within 5 s") as caught:
            await alice.request(request_to(), timeout=5)
        assert isinstance(caught.value, TimeoutError)
        assert trio.current_time() == pytest.approx(begun + 5)
        assert alice.statistics().requests_waiting == 0


async def test_a_requests_timeout_covers_its_sending() -> None:
    async with CloudNode(memory=True, capacity=1024) as node, agent(node) as alice:
        node.stop_reading()
        begun = trio.current_time()
        with pytest.raises(RequestTimeout):
            await alice.request(request_to(ALICE, "x" * 4096), timeout=2)
        assert trio.current_time() == pytest.approx(begun + 2)
        node.resume()


async def test_peer_bug_20_two_hundred_cancelled_requests_leave_nothing_behind() -> None:
    """B20: each cancelled request left an entry in two tables."""
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                Asker(nursery, alice)
            await settle()
            assert alice.statistics().requests_waiting == 200
            nursery.cancel_scope.cancel()
        assert alice.statistics().requests_waiting == 0
        assert alice.channel.statistics().replies_waiting == 0


@pytest.mark.parametrize("end", ["socket", "topic", "forgotten topic"])
async def test_peer_bug_02_a_dropped_link_fails_the_requests_that_wait_for_a_response_at_once(end: str) -> None:
    """B2: the waiter was not told, and timed out."""
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        asker = Asker(nursery, alice)
        await settle()
        dropped_at = trio.current_time()
        if end == "socket":
            node.drop(ALICE)
        elif end == "topic":
            node.crash_topic(ALICE)
        else:
            node.forget_topic(ALICE)
            with pytest.raises(Disconnected):
                await alice.send(request_to())  # only now the node says so
        await settle()
        assert isinstance(asker.outcome, Disconnected)
        assert asker.outcome.written
        assert asker.at == pytest.approx(dropped_at, abs=0.01)
        assert alice.statistics().requests_waiting == 0


async def test_a_request_that_a_drop_cut_off_in_its_sending_knows_whether_it_was_written() -> None:
    async with (
        CloudNode(memory=True, capacity=1024, capabilities=[]) as node,
        agent(node) as alice,
        trio.open_nursery() as nursery,
    ):
        node.stop_reading()
        first = Asker(nursery, alice, request_to(ALICE, "x" * 4096))
        await settle()
        second = Asker(nursery, alice, request_to(ALICE))
        await settle()
        node.drop(reset=True)
        await settle()
        assert isinstance(first.outcome, Disconnected)
        assert isinstance(second.outcome, Disconnected)
        assert (first.outcome.written, second.outcome.written) == (True, False)


async def test_each_request_that_a_drop_fails_gets_an_error_of_its_own() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        askers = [Asker(nursery, alice) for _ in range(2)]
        await settle()
        node.drop(ALICE)
        await settle()
        first, second = (asker.outcome for asker in askers)
        assert isinstance(first, Disconnected)
        assert isinstance(second, Disconnected)
        assert first is not second
        assert first.__cause__ is not None


async def test_a_request_that_survives_a_reconnect_is_answered_after_it() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        asker = Asker(nursery, alice, request_to(thid="t"), survive_reconnect=True)
        await settle()
        node.drop(ALICE)
        await node.wait_joined(ALICE, 2)
        assert asker.at is None
        node.deliver(ALICE, plaintext("r", RESPONSE, thid="t"))
        await settle()
        assert asker.outcome.id == "r"


async def test_a_surviving_request_whose_sending_the_drop_cut_off_waits_on_if_it_was_written() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        node.drop_replies(did=ALICE, event="message", count=1)
        asker = Asker(nursery, alice, request_to(thid="t"), survive_reconnect=True)
        await settle()
        node.drop(ALICE)
        await node.wait_joined(ALICE, 2)
        node.deliver(ALICE, plaintext("r", RESPONSE, thid="t"))
        await settle()
        assert asker.outcome.id == "r"


async def test_a_surviving_request_that_was_never_written_fails_for_nobody_will_answer_it() -> None:
    async with (
        CloudNode(memory=True, capacity=1024, capabilities=[]) as node,
        agent(node) as alice,
        trio.open_nursery() as nursery,
    ):
        node.stop_reading()
        first = Asker(nursery, alice, request_to(ALICE, "x" * 4096), survive_reconnect=True)
        await settle()
        second = Asker(nursery, alice, request_to(ALICE), survive_reconnect=True)
        await settle()
        node.drop(reset=True)
        await settle()
        assert first.outcome is None
        assert isinstance(second.outcome, Disconnected)
        assert not second.outcome.written
        nursery.cancel_scope.cancel()


async def test_a_surviving_request_has_its_timeout_all_the_same() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        asker = Asker(nursery, alice, timeout=20, survive_reconnect=True)
        await settle()
        node.drop(ALICE)
        await trio.sleep(30)
        assert isinstance(asker.outcome, RequestTimeout)


async def test_a_request_while_the_link_is_down_fails_at_once() -> None:
    async with CloudNode(memory=True) as node, agent(node) as alice:
        async with node.down():
            for survive_reconnect in (False, True):
                with pytest.raises(NotConnected):
                    await alice.request(request_to(), survive_reconnect=survive_reconnect)
            assert alice.statistics().requests_waiting == 0


async def test_closing_fails_requests_that_survivors_too() -> None:
    async with legacy_node() as node, agent(node, BOB), trio.open_nursery() as nursery:
        async with agent(node) as alice:
            askers = [Asker(nursery, alice), Asker(nursery, alice, survive_reconnect=True, timeout=math.inf)]
            await settle()
        await settle()
        assert [type(asker.outcome) for asker in askers] == [ChannelClosed, ChannelClosed]


async def test_a_client_that_gives_up_fails_its_requests_with_the_reason_as_their_cause() -> None:
    async with legacy_node() as node, agent(node, BOB), trio.open_nursery() as nursery:
        with pytest.raises(JoinRejected):
            async with agent(node) as alice:
                asker = Asker(nursery, alice, survive_reconnect=True, timeout=math.inf)
                await settle()
                node.refuse_joins("e.join.plugin.parent.not-found", did=ALICE)
                node.drop(ALICE)
                await trio.sleep_forever()
        await settle()
        assert isinstance(asker.outcome, ChannelClosed)
        assert isinstance(asker.outcome.__cause__, JoinRejected)


async def test_a_crash_of_the_dispatcher_costs_no_request() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        asker = Asker(nursery, alice, request_to(thid="t"))
        await settle()
        alice.supervisor.exit_child("dispatcher", ValueError("staged"))
        await settle()
        node.deliver(ALICE, plaintext("r", RESPONSE, thid="t"))
        await settle()
        assert asker.outcome.id == "r"


# --- within a handler ------------------------------------------------------------------------------------------------


async def test_a_handler_that_asks_has_taken_its_message_so_that_the_response_can_come() -> None:
    """A node that waits for the handler's dispatch_reply would keep the response back until it times out."""
    carol = "did:web:node.test:carol"
    async with strict_node() as node, echo_agent(node, carol):
        bob = agent(node, BOB)

        @bob.handle(REQUEST)
        async def relay(message: Message) -> Message:
            first = await bob.request(request_to(carol, message.body))
            second = await bob.request(request_to(carol, [first.body, first.body]))
            return message.reply(RESPONSE, second.body)

        async with bob, agent(node) as alice:
            begun = trio.current_time()
            assert (await alice.request(request_to(BOB, "x"))).body == ["x", "x"]
            assert trio.current_time() - begun < 1
            await settle()
            assert settled_once(node)
            order = [frame.event for frame in node.frames(BOB) if frame.event in ("dispatch_reply", "message")]
            assert order == ["dispatch_reply", "message", "dispatch_reply", "message", "dispatch_reply", "message"]


async def test_a_handler_whose_request_fails_tells_the_sender_though_the_node_has_heard_handled() -> None:
    events: list[Event] = []
    async with strict_node() as node:
        bob = agent(node, BOB, events)

        @bob.handle(REQUEST)
        async def relay(message: Message) -> Message:
            return await bob.request(request_to("did:web:node.test:nobody"))

        async with bob, agent(node) as alice:
            with pytest.raises(ProblemReportError, match="no plugin is connected"):
                await alice.request(request_to(BOB))
            assert len(of(events, HandlerFailed)) == 1
            assert list(statuses(node, BOB).values()) == [["handled"]]


async def test_a_handler_that_asks_through_another_client_has_not_taken_its_message() -> None:
    carol = "did:web:node.test:carol"
    async with strict_node() as node, echo_agent(node, carol), agent(node) as alice:
        bob = agent(node, BOB)

        @bob.handle(REQUEST)
        async def relay(message: Message) -> Pass:
            await alice.request(request_to(carol))
            return PASS

        async with bob:
            node.deliver(BOB, plaintext("m1"))
            await settle()
            assert statuses(node, BOB)["m1"] == ["pass"]
            assert settled_once(node)


async def test_a_late_problem_report_is_an_event_and_answered_by_nothing() -> None:
    events: list[Event] = []
    async with strict_node() as node, agent(node, BOB), agent(node, events=events) as alice:
        with pytest.raises(ProblemReportError):
            await alice.request(request_to(BOB, thid="t"))
        node.deliver(ALICE, plaintext("late", REPORT, thid="t", body={"code": "e.x", "comment": "late"}))
        await settle()
        (event,) = of(events, ProblemReported)
        assert (event.thread, event.error.code) == ("t", "e.x")
        assert len(node.frames(ALICE, event="message")) == 1
