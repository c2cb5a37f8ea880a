"""What a client counts, and the picture of itself that it gives away."""

from __future__ import annotations

import dataclasses

__all__ = ("ClientStatistics", "Counters")


@dataclasses.dataclass(slots=True)
class Counters:
    """The running totals of one run of a client."""

    messages_received: int = 0
    messages_handled: int = 0
    messages_passed: int = 0
    messages_failed: int = 0
    messages_unhandled: int = 0
    messages_malformed: int = 0
    messages_interrupted: int = 0
    responses: int = 0
    problem_reports: int = 0
    replies_failed: int = 0
    dispatch_replies_discarded: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ClientStatistics:
    """Counts since the client's run began, and gauges of this moment.

    Args:
        messages_received: inbound messages, of whatever became of them.
        messages_handled: handlers that returned an answer or None.
        messages_passed: handlers that returned PASS.
        messages_failed: handlers that raised, were not done in time, or returned what is no answer.
        messages_unhandled: messages for which there is no handler.
        messages_malformed: what came as a message and is none.
        messages_interrupted: messages whose handler was cut off by the end or by a crash.
        responses: messages that answered a request.
        problem_reports: problem reports that answered none and had no handler.
        replies_failed: answers and problem reports of ours that did not go out.
        dispatch_replies_discarded: messages of which the node was told nothing, because their join was over.
        handlers_running: handlers at work.
        messages_waiting: messages that wait for a handler.
        threads: threads with a message at work or waiting.
        requests_waiting: requests that wait for their response.
    """

    messages_received: int
    messages_handled: int
    messages_passed: int
    messages_failed: int
    messages_unhandled: int
    messages_malformed: int
    messages_interrupted: int
    responses: int
    problem_reports: int
    replies_failed: int
    dispatch_replies_discarded: int
    handlers_running: int
    messages_waiting: int
    threads: int
    requests_waiting: int
