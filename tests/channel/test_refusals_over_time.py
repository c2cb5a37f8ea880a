"""Every refusal a node is known to give: its class, and the pace of what follows."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors import ConnectFailed, JoinRejected, LinkStatus, open_channel
from layr8_actors.channel.events import AttemptFailed, GaveUp
from layr8_actors.errors import JoinTimeout, RemoteProtocolError
from layr8_actors.testing import CloudNode
from tests.channel.refusals import ALICE, NO_STRING, PERMANENT, PROTOCOLS, TRANSIENT, Exact, settle


@pytest.fixture
def exact() -> Exact:
    return Exact()


# --- which class ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "permanent"), [*((reason, True) for reason in PERMANENT), *((reason, False) for reason in TRANSIENT)]
)
async def test_a_first_join_that_is_refused_says_the_reason_and_whether_it_can_pass(
    exact: Exact, reason: str, permanent: bool
) -> None:
    async with CloudNode(memory=True) as node, open_channel(exact.options(node)) as channel:
        node.refuse_joins(reason)
        with pytest.raises(JoinRejected) as caught:
            await channel.connect(PROTOCOLS)
        assert (caught.value.reason, caught.value.permanent) == (reason, permanent)
        (failure,) = exact.of(AttemptFailed)
        assert (failure.error, failure.attempt, failure.retry_in) == (caught.value, 1, None)
        await trio.sleep(120)
        assert node.statistics().upgrades == 1


@pytest.mark.parametrize("reason", NO_STRING)
async def test_a_reason_that_is_no_string_is_an_unknown_one_which_may_pass(exact: Exact, reason: Any) -> None:
    async with CloudNode(memory=True) as node, open_channel(exact.options(node)) as channel:
        node.refuse_joins(reason)
        with pytest.raises(JoinRejected) as caught:
            await channel.connect(PROTOCOLS)
        assert (caught.value.reason, caught.value.permanent) == ("", False)
        assert "no reason given" in str(caught.value)


@pytest.mark.parametrize(
    "payload",
    [
        {"status": "error"},
        {"status": "error", "response": None},
        {"status": "error", "response": {}},
        {"status": "error", "response": []},
        {"status": "error", "response": "e.join.plugin.parent.not-found"},
    ],
)
async def test_a_refusal_without_a_reason_is_a_refusal_that_may_pass(exact: Exact, payload: Any) -> None:
    async with CloudNode(memory=True) as node, open_channel(exact.options(node)) as channel:
        node.answer_joins(payload)
        with pytest.raises(JoinRejected) as caught:
            await channel.connect(PROTOCOLS)
        assert (caught.value.reason, caught.value.permanent) == ("", False)


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 400, 401, 403, 404, 408, 409, 429, 500, 502, 503, 504])
async def test_an_upgrade_that_is_refused_tells_its_status_and_only_401_and_403_are_for_good(
    exact: Exact, status: int
) -> None:
    async with CloudNode(memory=True) as node, open_channel(exact.options(node)) as channel:
        node.refuse_upgrades(status, body=b"no", headers={"Retry-After": "120"})
        with pytest.raises(ConnectFailed) as caught:
            await channel.connect(PROTOCOLS)
        assert (caught.value.status, caught.value.permanent) == (status, status in (401, 403))
        assert [request.status for request in node.requests] == [status]
        (failure,) = exact.of(AttemptFailed)
        assert (failure.error, failure.retry_in) == (caught.value, None)
        assert channel.state.status is LinkStatus.IDLE


async def test_a_redirect_is_not_followed_so_that_the_key_goes_nowhere_else(exact: Exact) -> None:
    async with CloudNode() as other, CloudNode() as node:
        given = exact.options(node, transport="auto")
        async with open_channel(given) as channel:
            node.refuse_upgrades(307, headers={"Location": other.url})
            with pytest.raises(ConnectFailed) as caught:
                await channel.connect(PROTOCOLS)
            assert caught.value.status == 307
            assert (len(node.requests), len(other.requests)) == (1, 0)


# --- which pace -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 404, 429, 500, 503])
async def test_a_redial_that_is_refused_for_now_is_repeated_by_the_backoff_for_as_long_as_it_lasts(
    exact: Exact, status: int
) -> None:
    async with CloudNode(memory=True) as node, open_channel(exact.options(node)) as channel:
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        node.refuse_upgrades(status)
        node.drop()
        await trio.sleep(200)
        times = [round(failure.at - start, 3) for failure in exact.of(AttemptFailed)]
        assert times == [1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
        assert [failure.error.status for failure in exact.of(AttemptFailed)] == [status] * 10
        node.behave()
        await channel.connect(PROTOCOLS)
        assert trio.current_time() - start == pytest.approx(211)
        assert exact.of(GaveUp) == []


@pytest.mark.parametrize("reason", [*TRANSIENT, *NO_STRING])
async def test_a_rejoin_that_is_refused_for_now_is_repeated_on_the_same_socket(exact: Exact, reason: Any) -> None:
    async with CloudNode(memory=True) as node, open_channel(exact.options(node)) as channel:
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        node.refuse_joins(reason)
        node.crash_topic()
        await trio.sleep(100)
        times = [round(failure.at - start, 3) for failure in exact.of(AttemptFailed)]
        assert times == [1, 3, 7, 15, 31, 61, 91]
        assert node.statistics().upgrades == 1
        assert exact.of(GaveUp) == []


@pytest.mark.parametrize("reason", PERMANENT)
async def test_a_rejoin_that_is_refused_for_good_is_tried_three_times_30_s_apart(exact: Exact, reason: str) -> None:
    async with CloudNode(memory=True) as node:
        with pytest.raises(JoinRejected) as caught:
            async with open_channel(exact.options(node)) as channel:
                await channel.connect(PROTOCOLS)
                start = trio.current_time()
                node.refuse_joins(reason)
                node.crash_topic()
                await trio.sleep_forever()
        assert [round(failure.at - start, 3) for failure in exact.of(AttemptFailed)] == [1, 31, 61]
        assert [failure.retry_in for failure in exact.of(AttemptFailed)] == [30, 30, None]
        assert (caught.value.reason, caught.value.permanent) == (reason, True)


async def test_three_refusals_for_good_have_to_come_in_a_row_and_a_transient_one_starts_the_count_again(
    exact: Exact,
) -> None:
    """Good, good, transient, good, good, good: the sixth ends it. The kinds may mix: 403, 401 and a refused join."""
    async with CloudNode(memory=True) as node:
        with pytest.raises(JoinRejected) as caught:
            async with open_channel(exact.options(node)) as channel:
                await channel.connect(PROTOCOLS)
                node.refuse_upgrades(403, count=2)
                node.refuse_upgrades(503, count=1)
                node.refuse_upgrades(401, count=1)
                node.refuse_joins("e.join.plugin.parent.not-found")
                node.drop()
                await trio.sleep_forever()
        failures = exact.of(AttemptFailed)
        assert [failure.retry_in for failure in failures] == [30, 30, 8, 30, 30, None]
        assert [getattr(failure.error, "status", None) for failure in failures] == [403, 403, 503, 401, None, None]
        assert caught.value.reason == "e.join.plugin.parent.not-found"


@pytest.mark.parametrize(
    ("interruption", "error"),
    [("ignore_joins", JoinTimeout), ("answer_joins", RemoteProtocolError), ("ignore_upgrades", ConnectFailed)],
)
async def test_a_timeout_or_nonsense_between_refusals_for_good_starts_the_count_again_too(
    exact: Exact, interruption: str, error: type[Exception]
) -> None:
    async with CloudNode(memory=True) as node:
        with pytest.raises(JoinRejected):
            async with open_channel(exact.options(node)) as channel:
                await channel.connect(PROTOCOLS)
                reason = "e.join.plugin.child.not-beneath-parent"
                node.refuse_joins(reason, count=2)
                node.drop()
                await node.wait_for(lambda: sum(node.statistics().refused_joins.values()) == 2)
                await settle()
                if interruption == "ignore_upgrades":
                    node.drop()
                    node.ignore_upgrades(count=1)
                elif interruption == "ignore_joins":
                    node.ignore_joins(count=1)
                else:
                    node.answer_joins([], count=1)
                node.refuse_joins(reason)
                await trio.sleep_forever()
        kinds = [type(failure.error) for failure in exact.of(AttemptFailed)]
        assert kinds == [JoinRejected, JoinRejected, error, JoinRejected, JoinRejected, JoinRejected]
        assert len(exact.of(GaveUp)) == 1


async def test_a_join_that_succeeds_between_refusals_for_good_starts_the_count_again(exact: Exact) -> None:
    async with CloudNode(memory=True) as node, open_channel(exact.options(node)) as channel:
        await channel.connect(PROTOCOLS)
        for joins in range(2, 6):
            node.refuse_joins("e.join.plugin.parent.not-found", count=2)
            node.drop()
            await node.wait_joined(ALICE, joins)
            await settle()
        assert (len(exact.of(AttemptFailed)), exact.of(GaveUp)) == (8, [])
        assert channel.state.joined
