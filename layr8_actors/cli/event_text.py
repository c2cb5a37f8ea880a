"""Events in a line of plain words: what happened, and why, without payloads."""

from __future__ import annotations

from ..channel import events as channel_events
from ..otp import events as otp_events
from ..telemetry import Event
from .job import printable

__all__ = ("event_text",)


def event_text(event: Event) -> str | None:
    """Say in one line what happened.

    Args:
        event: of a channel or of its supervisor.

    Returns:
        The line, or ``None`` for an event that is of no interest to people who watch.
    """
    text = _channel_text(event) if event.layer == "channel" else _supervisor_text(event)
    return None if text is None else printable(text)


def _channel_text(event: Event) -> str | None:
    match event:
        case channel_events.LinkOpened(link=link, transport=transport):
            return f"socket {link} is open ({transport}), joining"
        case channel_events.LinkLost(link=link, error=error):
            return f"socket {link} is lost: {error}"
        case channel_events.LinkClosed(link=link):
            return f"socket {link} is closed"
        case channel_events.TopicJoined(link=link, assigned_did=did, rejoin=rejoin):
            return f"joined {'again ' if rejoin else ''}as {did} on socket {link}"
        case channel_events.TopicLost(error=error):
            return f"the topic is lost, its socket is kept: {error}"
        case channel_events.AttemptFailed(attempt=attempt, error=error, retry_in=retry_in):
            then = "" if retry_in is None else f"; again in {retry_in:.1f} s"
            return f"attempt {attempt} failed: {error}{then}"
        case channel_events.GaveUp(error=error):
            return f"gave up: {error}"
        case channel_events.AssignedDidChanged(before=before, after=after):
            return f"the node bound {after} now, it was {before}"
        case channel_events.FrameRefused(error=error, count=count):
            return f"refused frame {count} of the node: {error}"
        case channel_events.SendsDiscarded(count=count):
            return f"discarded {count} unwritten frames of a join that ended"
        case channel_events.CallbackFailed(callback=callback, error=error):
            return f"{callback} raised {error!r}; the next message is delivered"
        case channel_events.CallbacksSkipped(count=count):
            return f"skipped {count} calls of on_disconnect and on_reconnect, because one of them does not return"
        case channel_events.MessageInterrupted():
            return "on_message was interrupted by the end of the inbox"
        case channel_events.MessageDropped(count=count):
            return f"dropped {count} messages that nobody reads"
        case _:
            return None


def _supervisor_text(event: Event) -> str | None:
    match event:
        case otp_events.ChildRestarted(id=child, incarnation=incarnation):
            return f"{child} is restarted, incarnation {incarnation}"
        case otp_events.ChildStarted() | otp_events.ChildStopped():
            return None
        case otp_events.ChildExited(id=child, reason=reason, restarts_used=used, restarts_allowed=allowed):
            return f"{child} crashed ({reason}); {used} of {allowed} restarts used"
        case otp_events.ChildStartFailed(id=child, error=error):
            return f"{child} did not start: {error!r}"
        case otp_events.RestartScheduled(id=child, delay=delay) if delay > 0:
            return f"{child} is restarted in {delay:.1f} s"
        case otp_events.ShutdownError(id=child, reason=reason):
            return f"{child} did not end well: {reason}"
        case otp_events.StopTimeout(id=child, waited=waited):
            return f"{child} has not ended for {waited:.0f} s"
        case otp_events.LimitReached(id=child, max_restarts=allowed, max_seconds=seconds):
            return f"{child} needed more than {allowed} restarts in {seconds:g} s; the channel ends"
        case _:
            return None
