"""The link's state machine alone: events and times in, commands out."""

from __future__ import annotations

import random

import pytest

from layr8_actors.channel.link_state import (
    MAX_PERMANENT_REFUSALS,
    AbandonJoin,
    AnnounceDisconnect,
    AnnounceReconnect,
    Command,
    DropLink,
    FinishConnect,
    GiveUp,
    JoinTopic,
    LinkMachine,
    LinkStatus,
    OpenLink,
    ReportFailure,
)
from layr8_actors.errors import ConnectFailed, JoinRejected, JoinTimeout, TopicDown, TransportClosed
from layr8_actors.otp import Backoff

PROTOCOLS = ("https://didcomm.org/basicmessage/2.0",)
LOST = TransportClosed(1006)


def new_machine(backoff: Backoff | None = None) -> LinkMachine:
    return LinkMachine(
        backoff=backoff or Backoff(initial=1, maximum=30, factor=2, jitter=0, reset_after=30),
        join_timeout=10,
        random=random.Random(1),
        ws_url="ws://node.test/socket",
    )


def joined_machine(now: float = 0.0) -> LinkMachine:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    machine.link_opened(machine.link, now)
    machine.topic_joined(machine.link, now)
    return machine


def kinds(commands: list[Command]) -> list[type]:
    return [type(command) for command in commands]


def test_a_first_connect_dials_joins_and_finishes_without_a_callback() -> None:
    machine = new_machine()
    assert machine.connect_requested(PROTOCOLS) == [OpenLink(1)]
    assert machine.link_opened(1, 0.0) == [JoinTopic(1, PROTOCOLS)]
    assert machine.topic_joined(1, 0.1) == [FinishConnect(None)]
    assert machine.status is LinkStatus.JOINED


def test_a_first_dial_that_fails_leaves_the_machine_idle_and_ready_for_another_connect() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    error = ConnectFailed("ws://node.test/socket", "refused")
    assert machine.link_failed(1, error, 0.0) == [ReportFailure(1, error, None), FinishConnect(error)]
    assert (machine.status, machine.protocols, machine.deadline) == (LinkStatus.IDLE, None, None)
    assert machine.connect_requested(("other",)) == [OpenLink(2)]


def test_a_first_join_that_is_refused_fails_connect_only_after_the_socket_is_gone() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    machine.link_opened(1, 0.0)
    error = JoinRejected("e.connect.plugin.failed: protocols_already_bound", permanent=False)
    assert kinds(machine.topic_refused(1, error, 0.0)) == [ReportFailure, DropLink]
    assert machine.status is LinkStatus.LEAVING
    assert machine.link_lost(1, LOST, 0.1) == [FinishConnect(error)]
    assert machine.status is LinkStatus.IDLE


def test_a_first_join_that_is_not_answered_fails_with_its_own_error_after_join_timeout() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    machine.link_opened(1, 5.0)
    assert machine.timer_fired(14.9) == []
    assert kinds(machine.timer_fired(15.0)) == [ReportFailure, DropLink]
    (finish,) = machine.link_lost(1, LOST, 15.0)
    assert isinstance(finish, FinishConnect)
    assert isinstance(finish.error, JoinTimeout)


def test_a_withdrawn_connect_drops_the_dial_and_the_next_connect_waits_for_its_end() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    assert kinds(machine.connect_withdrawn()) == [DropLink]
    assert machine.connect_requested(PROTOCOLS) == []
    assert kinds(machine.link_failed(1, LOST, 0.0)) == [FinishConnect]
    assert machine.connect_requested(PROTOCOLS) == [OpenLink(2)]


def test_a_dial_that_opens_after_it_was_withdrawn_is_dropped_and_does_not_join() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    machine.connect_withdrawn()
    assert kinds(machine.link_opened(1, 0.0)) == [DropLink]
    assert kinds(machine.link_lost(1, LOST, 0.0)) == [FinishConnect]


def test_connect_is_no_longer_withdrawn_once_the_join_stands() -> None:
    assert joined_machine().connect_withdrawn() == []


def test_a_lost_link_is_announced_once_and_dialled_again_after_the_backoff() -> None:
    machine = joined_machine()
    assert machine.link_lost(1, LOST, 5.0) == [AnnounceDisconnect(LOST)]
    assert machine.link_lost(1, LOST, 5.0) == []
    assert machine.deadline == 6.0
    assert machine.timer_fired(5.9) == []
    assert machine.timer_fired(6.0) == [OpenLink(2)]
    machine.link_opened(2, 6.0)
    assert machine.topic_joined(2, 6.0) == [AnnounceReconnect(), FinishConnect(None)]


def test_failed_attempts_wait_1_2_4_8_16_30_30_seconds_and_are_all_reported() -> None:
    machine = joined_machine()
    machine.link_lost(1, LOST, 0.0)
    now, delays = 0.0, []
    for _ in range(7):
        assert machine.deadline is not None
        delays.append(machine.deadline - now)
        now = machine.deadline
        (dial,) = machine.timer_fired(now)
        assert isinstance(dial, OpenLink)
        error = ConnectFailed("ws://node.test/socket", "refused")
        assert kinds(machine.link_failed(dial.link, error, now)) == [ReportFailure]
    assert delays == [1, 2, 4, 8, 16, 30, 30]


def test_a_join_that_stood_shorter_than_reset_after_does_not_reset_the_backoff() -> None:
    machine = joined_machine()
    now = 0.0
    delays = []
    for stood in (29.9, 29.9, 29.9, 30.0):
        now += stood
        machine.link_lost(machine.link, LOST, now)
        assert machine.deadline is not None
        delays.append(machine.deadline - now)
        now = machine.deadline
        machine.timer_fired(now)
        machine.link_opened(machine.link, now)
        machine.topic_joined(machine.link, now)
    assert delays == pytest.approx([1, 2, 4, 1])


def test_jitter_never_exceeds_the_cap_nor_falls_to_nothing() -> None:
    machine = LinkMachine(
        backoff=Backoff(initial=1, maximum=30, factor=2, jitter=0.5, reset_after=30),
        join_timeout=10,
        random=random.Random(7),
        ws_url="ws://node.test/socket",
    )
    machine.connect_requested(PROTOCOLS, persist=True)
    now, delays = 0.0, []
    for _ in range(200):
        machine.link_failed(machine.link, LOST, now)
        assert machine.deadline is not None
        delays.append(machine.deadline - now)
        now = machine.deadline
        machine.timer_fired(now)
    assert max(delays) <= 30
    assert min(delays[10:]) >= 15
    assert len(set(delays)) == len(delays)


def test_a_lost_topic_is_joined_again_on_the_same_socket() -> None:
    machine = joined_machine()
    error = TopicDown("phx_error")
    assert machine.topic_lost(1, error, 1.0) == [AnnounceDisconnect(error)]
    assert machine.timer_fired(2.0) == [JoinTopic(1, PROTOCOLS)]
    assert machine.topic_joined(1, 2.0) == [AnnounceReconnect(), FinishConnect(None)]


def test_a_topic_lost_in_the_middle_of_a_join_fails_that_join() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    machine.link_opened(1, 0.0)
    assert kinds(machine.topic_lost(1, TopicDown("phx_error"), 0.0)) == [ReportFailure, DropLink]


def test_a_socket_lost_while_waiting_to_rejoin_is_dialled_and_not_joined_when_the_wait_is_over() -> None:
    machine = joined_machine()
    machine.topic_lost(1, TopicDown("phx_error"), 1.0)
    assert machine.link_lost(1, LOST, 1.5) == []
    assert machine.timer_fired(2.0) == [OpenLink(2)]


def test_a_rejoin_that_is_not_answered_is_left_so_that_a_late_ok_is_undone() -> None:
    machine = joined_machine()
    machine.topic_lost(1, TopicDown("phx_error"), 1.0)
    machine.timer_fired(2.0)
    assert kinds(machine.timer_fired(12.0)) == [AbandonJoin, ReportFailure]
    assert machine.status is LinkStatus.WAITING
    assert machine.topic_joined(1, 12.1) == []


def test_permanent_refusals_wait_the_slowest_pace_and_the_third_in_a_row_gives_up() -> None:
    machine = joined_machine()
    machine.topic_lost(1, TopicDown("phx_error"), 0.0)
    refusal = JoinRejected("e.join.plugin.parent.not-found", permanent=True)
    now = 1.0
    for attempt in range(1, MAX_PERMANENT_REFUSALS + 1):
        assert machine.timer_fired(now) == [JoinTopic(1, PROTOCOLS)]
        commands = machine.topic_refused(1, refusal, now)
        if attempt < MAX_PERMANENT_REFUSALS:
            assert machine.deadline == now + 30
            now += 30
    assert commands[-1] == GiveUp(refusal)


def test_an_http_403_at_redial_gives_up_with_join_rejected_after_the_third() -> None:
    machine = joined_machine()
    machine.link_lost(1, LOST, 0.0)
    refused = ConnectFailed("ws://node.test/socket", "HTTP 403", status=403)
    for _ in range(MAX_PERMANENT_REFUSALS):
        assert machine.deadline is not None
        now = machine.deadline
        machine.timer_fired(now)
        commands = machine.link_failed(machine.link, refused, now)
    give_up = commands[-1]
    assert isinstance(give_up, GiveUp)
    assert give_up.error.permanent
    assert give_up.error.__cause__ is refused


def test_a_transient_failure_between_permanent_refusals_starts_the_count_again() -> None:
    machine = joined_machine()
    machine.topic_lost(1, TopicDown("phx_error"), 0.0)
    permanent = JoinRejected("e.join.plugin.parent.not-found", permanent=True)
    transient = JoinRejected("e.connect.plugin.failed: protocols_already_bound", permanent=False)
    for refusal in (permanent, permanent, transient, permanent, permanent):
        assert machine.deadline is not None
        now = machine.deadline
        machine.timer_fired(now)
        assert GiveUp not in kinds(machine.topic_refused(1, refusal, now))


def test_events_of_an_older_link_change_nothing() -> None:
    machine = joined_machine()
    machine.link_lost(1, LOST, 0.0)
    machine.timer_fired(1.0)
    assert machine.status is LinkStatus.CONNECTING
    assert machine.link_lost(1, LOST, 1.0) == []
    assert machine.link_failed(1, LOST, 1.0) == []
    assert machine.topic_joined(1, 1.0) == []
    assert machine.topic_lost(1, LOST, 1.0) == []
    assert machine.status is LinkStatus.CONNECTING


def test_an_older_link_that_opens_late_is_dropped_so_that_one_socket_stays() -> None:
    machine = joined_machine()
    machine.link_lost(1, LOST, 0.0)
    machine.timer_fired(1.0)
    machine.link_failed(2, LOST, 1.0)
    assert machine.deadline is not None
    machine.timer_fired(machine.deadline)
    assert kinds(machine.link_opened(2, 9.0)) == [DropLink]
    assert machine.status is LinkStatus.CONNECTING


def test_connect_with_other_protocols_is_refused_while_connected() -> None:
    machine = joined_machine()
    assert machine.refuse_protocols(("other",)) is not None
    assert machine.refuse_protocols(PROTOCOLS) is None
    assert machine.connect_requested(PROTOCOLS) == [FinishConnect(None)]


def test_a_persistent_connect_retries_its_first_attempt_at_the_backoff() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS, persist=True)
    assert kinds(machine.link_failed(1, LOST, 0.0)) == [ReportFailure]
    assert machine.connect_withdrawn() == []
    assert machine.timer_fired(1.0) == [OpenLink(2)]


@pytest.mark.parametrize("dialling", [0, 1])
def test_resynchronizing_while_connecting_fails_the_dial_only_if_it_is_not_under_way(dialling: int) -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS, persist=True)
    commands = machine.resynchronize(open_link=0, dialling=dialling, joined=False, now=0.0)
    assert kinds(commands) == ([] if dialling else [ReportFailure])


def test_resynchronizing_finds_a_link_that_opened_a_join_that_stood_and_a_link_that_was_lost_unseen() -> None:
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    assert machine.resynchronize(open_link=1, dialling=0, joined=False, now=0.0) == [JoinTopic(1, PROTOCOLS)]
    assert machine.resynchronize(open_link=1, dialling=0, joined=True, now=0.0) == [FinishConnect(None)]
    assert machine.resynchronize(open_link=1, dialling=0, joined=True, now=0.0) == []
    assert kinds(machine.resynchronize(open_link=0, dialling=0, joined=False, now=0.0)) == [AnnounceDisconnect]


def test_resynchronizing_finds_a_topic_that_was_lost_unseen_and_a_drop_that_was_never_carried_out() -> None:
    machine = joined_machine()
    assert kinds(machine.resynchronize(open_link=1, dialling=0, joined=False, now=0.0)) == [AnnounceDisconnect]
    machine = new_machine()
    machine.connect_requested(PROTOCOLS)
    machine.connect_withdrawn()
    assert kinds(machine.resynchronize(open_link=0, dialling=1, joined=False, now=0.0)) == [DropLink]
    assert kinds(machine.resynchronize(open_link=0, dialling=0, joined=False, now=0.0)) == [FinishConnect]


def test_nothing_moves_after_the_end() -> None:
    machine = joined_machine()
    machine.closed(None)
    assert machine.link_lost(1, LOST, 0.0) == []
    assert machine.connect_requested(PROTOCOLS) == []
    assert machine.timer_fired(99.0) == []
    assert machine.status is LinkStatus.CLOSED


def test_nothing_moves_once_the_channel_was_given_up_though_its_socket_ends_later() -> None:
    machine = joined_machine()
    machine.topic_lost(1, TopicDown("phx_error"), 0.0)
    refusal = JoinRejected("e.join.plugin.parent.not-found", permanent=True)
    for _ in range(MAX_PERMANENT_REFUSALS):
        assert machine.deadline is not None
        now = machine.deadline
        machine.timer_fired(now)
        commands = machine.topic_refused(1, refusal, now)
    assert commands[-1] == GiveUp(refusal)
    assert machine.link_lost(1, LOST, now) == []
    assert machine.resynchronize(open_link=0, dialling=0, joined=False, now=now) == []
    assert machine.timer_fired(now + 60) == []
    assert machine.connect_requested(PROTOCOLS) == []
    assert (machine.status, machine.deadline, machine.last_error) == (LinkStatus.CLOSED, None, refusal)
