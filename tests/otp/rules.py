"""The rules of supervision, each with its tests: the source of docs/otp-rules.md.

``python -m tests.otp.rules`` writes the page. The tests of a row are those below tests/ whose names carry its id, as in
``test_I1_I2_what_they_show``, found by reading the sources; a row without one has to say why.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "otp-rules.md"

ID = re.compile(r"[A-Z]\d{1,2}")

RULES: dict[str, dict[str, str]] = {
    "Child specs": {
        "S1": "A spec needs an id and a start alone; all else has the defaults of OTP.",
        "S2": "A wrong value is refused when the spec or the supervisor is made, and nothing has been started.",
        "S3": "Two static children of one id are refused.",
        "S4": "A significant child must be able to end, below a static supervisor that cares about its end.",
        "S5": "Each run is made afresh, and a temporary child's spec is let go of with its run.",
        "S6": "A start may hand over a value, say that there is nothing to run, or fail.",
        "S7": "A start that says there is nothing to run is no failure; the child is kept, stopped, or forgotten.",
    },
    "Starting": {
        "B1": "Children start one by one in the order of the list.",
        "B2": "A supervisor is ready once all of its static children are.",
        "B3": "When one does not start, those before it are stopped in reverse and the supervisor fails, naming it.",
        "B4": "Whoever starts the supervisor sees that failure.",
        "B5": "An actor whose init failed is not asked to terminate.",
        "B6": "A start that takes longer than its time-out is called off, with no task left.",
        "B7": "Messages sent during init wait for its end, and callers learn when it fails.",
        "B8": "What init puts off runs after readiness was reported and before the first message.",
        "B9": "A supervisor that is stopped or cancelled during a start calls it off and starts nothing more.",
        "B10": "A child that crashes in the moment of its readiness has started, and has crashed.",
    },
    "Who is restarted": {
        "R1": "A permanent child is restarted whatever ended it.",
        "R2": "A transient child is restarted unless it ended cleanly.",
        "R3": "A temporary child is never restarted, and is forgotten when it ends.",
        "R4": "A child that finished may be started by hand; a dynamic supervisor forgets it.",
        "R5": "An end that the supervisor asked for is no crash.",
        "R6": "The exit of what is not a child any more changes nothing.",
        "R7": "What ends a program is never restarted: the others stop in order and it gets out.",
        "R8": "A child may end itself cleanly by an exception made for that, even out of a nest of groups.",
    },
    "Who shares a fate": {
        "T1": "Alone: the one that crashed is restarted and nobody else is touched.",
        "T2": "All: the others stop in reverse, then all start in order.",
        "T3": "The rest: those behind it stop in reverse, then it and they start in order.",
        "T4": "A temporary sibling that is stopped with its group is forgotten.",
        "T5": "A transient sibling that is stopped with its group comes back with it.",
        "T6": "A finished sibling comes back with its group, one stopped by hand does not.",
        "T7": "One crash is one restart in the window, however many siblings share it.",
        "T9": "A sibling that fails while it stops for its group is reported and holds nothing up.",
        "T10": "A crash during the start of a group is dealt with afterwards, as one of its own.",
        "T11": "A child that is added comes last, and restarts change no order.",
        "T12": "A dynamic supervisor starts one spec many times, and each child stands alone.",
    },
    "When it gives up": {
        "I1": "A restart as old as the window counts, an older one does not.",
        "I2": "So many restarts are permitted as the limit says, and the next crash is the end.",
        "I3": "Time is exact, so the phase of the clock means nothing.",
        "I4": "The window sums over all children, and each child may have a limit besides.",
        "I5": "An attempt that fails counts as a restart.",
        "I6": "What people do by hand, and ends that need no restart, do not count.",
        "I7": "Giving up is reported, and stops the others in reverse.",
        "I8": "A restarted supervisor has its whole budget again, and each level shows its own.",
        "I9": "By default three restarts in five seconds are permitted.",
        "I10": "The window slides; it neither begins anew nor decays.",
    },
    "What a parent sees": {
        "E1": "A supervisor that gave up ends with an error, so a transient one is restarted too.",
        "E2": "One that was asked to stop, or ended with its significant children, ended cleanly.",
        "E3": "A dead supervisor is a dead child: it is rebuilt from its static specs.",
        "E4": "One that cannot start again uses up the budget of its parent.",
        "E5": "The root gives up with one exception, and the causes hang below it as a chain.",
        "E6": "A cancelled parent stops the whole tree in order and restarts nothing.",
    },
    "While a restart is on": {
        "F1": "Other work is served between two attempts.",
        "F2": "Who fails while a group starts is the pivot of the next attempt.",
        "F3": "Terminating a child that waits for its restart calls that off.",
        "F4": "A stop ends a loop of restarts at once.",
        "F5": "A waiting child is listed as such and is not active.",
        "F6": "A child that is not stopped runs, starts, or has one live timer.",
        "F7": "An earlier crash takes those who wait into its own group: one group, one timer.",
    },
    "Stopping": {
        "D1": "Children stop one after another, in reverse.",
        "D2": "Those of a dynamic supervisor stop together, each with a grace of its own.",
        "D3": "A child that needs longer than its grace is killed and waited for.",
        "D4": "A brutal kill gives no time and runs no terminate.",
        "D5": "An infinite grace waits for ever; a subtree whose grace runs out leaks nothing.",
        "D6": "A child that cannot be killed is reported with its stack, again and again, and never abandoned.",
        "D7": "An error during the stop is reported, and the stop goes on.",
        "D8": "Once it stops, nothing is started or restarted any more.",
        "D9": "A child that dies meanwhile holds nothing up.",
        "D10": "Requests that come too late are refused.",
        "D11": "Cancellation stops in the same order; the whole stop may have a deadline.",
        "D12": "An actor's terminate is told why it ends.",
    },
    "Ending with its children": {
        "A1": "Any: the first significant child that ends for good ends the supervisor, cleanly.",
        "A2": "All: the last one does, and one that waits for its restart has not ended.",
        "A3": "A significant child that is restarted ends nothing; a temporary one that crashes does.",
        "A4": "Being stopped by hand or with a group does not count.",
        "A5": "A supervisor that ended so may itself be the significant child of another.",
    },
    "Managing children": {
        "M1": "An added child is returned, or refused with what is there, and a failed start changes nothing.",
        "M2": "That a name is taken is passed to whoever asked for the start.",
        "M3": "Terminating is idempotent, and knows no handles on a static supervisor.",
        "M4": "Starting by hand and deleting need a stopped child, and exist on static supervisors alone.",
        "M5": "A dynamic child is stopped by any pid it ever had; a foreign one is not found.",
        "M6": "A cap counts those who wait for their restart too.",
        "M7": "Children are listed in start order, with all that is known of them.",
        "M8": "A look never waits.",
        "M9": "A supervisor that is gone says so at once.",
        "M10": "Nobody ever waits for its own end: who does is ended, or told.",
    },
    "Actors": {
        "G1": "One message at a time, those of one sender in order.",
        "G2": "A call to nobody fails at once.",
        "G3": "A caller learns at once that the actor died.",
        "G4": "A call that takes too long fails, and the actor lives.",
        "G5": "A late answer is dropped.",
        "G6": "The time-out covers room, queue and handler.",
        "G7": "An actor that calls itself is told at once; its helper tasks may call it.",
        "G8": "A cast to nobody is silent.",
        "G9": "What is queued behind a stop is dropped and counted, and its callers are told.",
        "G10": "A caller whose actor ends cleanly without an answer is told too.",
        "G11": "A crash in a handler reaches its caller, terminate and the supervisor; or it may answer an error.",
        "G12": "An answer may come later, and only the first counts.",
        "G13": "Terminate runs however the actor ends, but for a brutal kill and a failed init.",
        "G14": "An error of terminate is reported, and is the reason where the end was clean.",
        "G15": "Stopping an actor waits until it is gone.",
        "G16": "A stop goes in front of the queue, or behind it for an actor that drains.",
        "G17": "A cancelled caller cancels no handler; a request may ask to be skipped then.",
        "G18": "A mailbox is bounded: senders wait, or the new or the old message is dropped.",
        "G19": "Who waits for room is released when the actor dies.",
        "G20": "A message nobody knows is the sender's fault, and the actor lives.",
        "G21": "Timers die with the run that set them.",
    },
    "Monitors": {
        "L1": "An end is told exactly once, at once where it is past.",
        "L2": "It is told behind all that the dead had sent.",
        "L3": "A cancelled monitor tells nothing any more.",
        "L4": "A restart is a new identity; a ref follows it, a pid does not.",
    },
    "Names": {
        "N1": "A name has one holder in a registry, and registries do not know each other.",
        "N2": "A name is free before the next run begins, whatever ended the last.",
        "N3": "Between two runs nobody is found; a caller may wait for the next.",
    },
    "Backoff": {
        "K1": "Delays grow by a factor up to a cap.",
        "K2": "Jitter only ever shortens, so the cap is a promise.",
        "K3": "The first restart may have a delay of its own, none included.",
        "K4": "A long healthy run ends the row of failures, and is no credit for the next run.",
        "K5": "A child may say itself when it is healthy.",
        "K6": "A wait holds up nobody else.",
        "K7": "A stop or a cancellation ends a wait at once.",
        "K8": "The supervisor as a whole never pauses.",
        "K9": "A window that could never fill is refused, and there are three ways to say what is meant.",
        "K10": "A group waits for the delay of the one that failed.",
        "K11": "Messages during a wait are refused, or kept in order up to the bound of the mailbox.",
    },
    "Reports": {
        "O1": "Each step of a child and of its supervisor is an event.",
        "O2": "An event has the path, the run, the live exception, the window and what the actor was at.",
        "O3": "Failures are errors, restarts are news, clean ends are for debugging.",
        "O4": "A hook that raises harms nothing.",
        "O5": "The events of one supervisor are in one order, for all come from its own task.",
    },
}

NOTES: dict[str, str] = {
    "K8": "suture's pause of the whole supervisor is not taken. What we offer instead is never to give up, with a cap "
    "on the delays, and the tests show that.",
    "K11": "A stash is a mailbox that is kept.",
    "S5": "While a temporary child runs its arguments live on, in its spec; OTP drops them once it has started.",
}
"""What a row's tests do not say by themselves."""

CASES: dict[str, str] = {
    "C1": "supervisor_SUITE: order_of_children",
    "C2": "supervisor_SUITE: one_for_one",
    "C3": "supervisor_SUITE: child_adm",
    "C4": "supervisor_SUITE: rest_for_one_other_child_fails_restart",
    "C5": "supervisor_SUITE: sup_stop_timeout",
    "C6": "Elixir DynamicSupervisor: transient child is restarted unless normal, shutdown or {shutdown, _}",
    "C7": "Elixir GenServer: call/3 exit messages",
    "C8": "supervisor_SUITE: significant_escalation",
    "C9": "supervisor_SUITE: do_not_save_child_specs_for_temporary_children",
    "C10": "supervisor_SUITE: child_unlink",
    "C11": "Elixir Supervisor: terminates with mixed children",
    "C12": "Elixir Registry: clean up registry on process crash",
    "C13": "Pekko BackoffSupervisor: stop restarting the child after reaching maxNrOfRetries",
    "C14": "suture: TestStoppingStillWorksWithHungServices",
    "C15": "suture: TestFailures",
}


def proofs() -> dict[str, list[str]]:
    """The tests of each id that a test name carries, as ``file.py::test_name``, in the order of the files."""
    found: dict[str, list[str]] = {}
    for path in sorted((TESTS / "otp").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                for id in ids_of(node.name):
                    found.setdefault(id, []).append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


def ids_of(test: str) -> Iterator[str]:
    """The ids at the beginning of the name of a test."""
    for part in test.removeprefix("test_").split("_"):
        if not ID.fullmatch(part):
            return
        yield part


def rules() -> dict[str, str]:
    """Every row, without the sections."""
    return {id: sentence for section in RULES.values() for id, sentence in section.items()}


def page() -> str:
    """The whole of docs/otp-rules.md."""
    found = proofs()
    lines = [
        "# The rules of supervision, and what proves them",
        "",
        "Written by `python -m tests.otp.rules`; a test fails when this page is older than the tests that it names.",
        "The rules are those of OTP and Elixir, and where ours differs from theirs it is ours that stands here. Paths",
        "are below [tests](../tests).",
    ]
    for section, sentences in RULES.items():
        lines += ["", f"## {section}", "", "| Row | Rule | Proof |", "|---|---|---|"]
        for id, sentence in sentences.items():
            note = f" {NOTES[id]}" if id in NOTES else ""
            lines.append(f"| {id} | {sentence}{note} | {listed(found.get(id, []))} |")
    lines += ["", "## Cases ported from others", "", "| Case | From | Proof |", "|---|---|---|"]
    lines += [f"| {id} | {source} | {listed(found.get(id, []))} |" for id, source in CASES.items()]
    lines += ["", "The suite's scale_start_stop_many_children is a measurement, so it is one of [bench](../bench)."]
    return "\n".join(lines) + "\n"


def listed(tests: list[str]) -> str:
    return "<br>".join(f"`{test}`" for test in tests)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
