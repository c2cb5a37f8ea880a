"""What the documents say is held against the package: names, defaults, tables, programs and the logs they show.

How a document asks for it:

- A ``python`` block compiles, always; top-level ``await`` is allowed.
- ``<!-- runnable -->`` before a ``python`` block: its ``main`` is run under virtual time, and what it prints is the
  ``text`` block behind the next line, ``It prints:``.
- ``<!-- pytest -->`` before a ``python`` block: pytest passes on it.
- ``<!-- log: name -->`` before a ``text`` block: it is what the story of that name below logs. ``...`` stands for any
  text, on a line of its own for any lines.
- ``file.py::test_name``, below tests/: that test exists.
- A name in backticks is one of the package, or stands in ``FOREIGN``.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import enum
import functools
import importlib
import inspect
import io
import logging
import re
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import layr8_actors
from layr8_actors import (
    Channel,
    ChannelOptions,
    ChannelState,
    ChannelStatistics,
    Client,
    ClientConfig,
    ClientStatistics,
    Message,
    Reply,
    RestartLimitExceeded,
)
from layr8_actors.channel import events as channel_events
from layr8_actors.channel.router import Router
from layr8_actors.channel.tree import Tree
from layr8_actors.client import events as client_events
from layr8_actors.client.durable import events as durable_events
from layr8_actors.otp import Supervisor, events as otp_events, format_tree
from layr8_actors.telemetry import Event, log_event
from layr8_actors.testing import CloudNode, FaultProxy
from layr8_actors.testing.network_faults import NetworkFaults
from layr8_actors.testing.node_behaviours import NodeBehaviours
from tests.peers import official_names
from tests.peers.scenario_names import NAMES as SCENARIOS

ROOT = Path(__file__).parent.parent
PATHS = [ROOT / "README.md", ROOT / "supervisor.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PATHS}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARKED = re.compile(
    r"^<!-- ([\w: -]+) -->\n+```\w*\n(.*?)^```$(?:\n+It prints:\n+```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE
)
TEST_NAME = re.compile(r"([\w/]*test_\w+\.py)::(\w+)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    kind: str
    text: str
    follower: str | None = None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def python_blocks() -> list[Block]:
    return [
        Block(document, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for document, text in TEXTS.items()
        for found in FENCE.finditer(text)
        if found[1] == "python"
    ]


def marked_blocks(kind: str) -> list[Block]:
    return [
        Block(document, text.count("\n", 0, found.start()) + 1, found[1], found[2], found[3])
        for document, text in TEXTS.items()
        for found in MARKED.finditer(text)
        if found[1].partition(":")[0] == kind
    ]


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table under a heading, without its two head lines."""
    section = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", TEXTS[document], re.DOTALL | re.MULTILINE)
    assert section is not None, f"{document} has no heading {heading!r}"
    lines = [line for line in section[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# --- names ------------------------------------------------------------------------------------------------------------


def test_every_test_that_a_document_names_exists() -> None:
    named = [(document, *found) for document, text in TEXTS.items() for found in TEST_NAME.findall(text)]
    assert len(named) > 50
    missing = [f"{document}: {file}::{test}" for document, file, test in named if test not in functions_in(file)]
    assert missing == []


@functools.cache
def functions_in(file: str) -> set[str]:
    path = ROOT / "tests" / file
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_row_of_the_failure_table_names_its_proof() -> None:
    numbers = [row[0] for row in rows("supervisor.md", "What fails, and what it costs")]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    proofs = re.findall(r"^- \*\*(\d+)\*\* (.*?)(?=^- |^$)", TEXTS["supervisor.md"], re.DOTALL | re.MULTILINE)
    assert [number for number, proof in proofs if TEST_NAME.search(proof)] == numbers


@pytest.mark.parametrize("heading", SCENARIOS)
def test_every_scenario_of_the_peers_has_its_row_and_every_row_a_proof_or_what_it_waits_for(heading: str) -> None:
    table = rows("docs/scenarios.md", heading)
    assert [row[0] for row in table] == list(SCENARIOS[heading])
    assert [row[0] for row in table if not TEST_NAME.search(row[2]) and not row[2].startswith("client: ")] == []
    assert [row[0] for row in table if (row[1] == "-") != (not TEST_NAME.search(row[2]))] == []


def test_every_guarantee_is_one_sentence_with_a_proof() -> None:
    """Below its introduction the page is tables alone, so that no promise can stand beside them unproved."""
    introduction, *sections = re.split(r"^## ", TEXTS["docs/guarantees.md"], flags=re.MULTILINE)
    assert "::" not in introduction
    assert len(sections) > 5
    for section in sections:
        heading, *lines = [line for line in section.splitlines() if line]
        assert [line for line in lines if not line.startswith("|")] == [], heading
        for sentence, proof in rows("docs/guarantees.md", heading):
            assert re.fullmatch(r"[^.]+(?:\.\w+[^.]*)*\.", sentence), sentence
            assert TEST_NAME.search(proof), sentence
            assert re.sub(r"`[\w/]+\.py::\w+`(?:, )?", "", proof) == "", proof


PUBLIC = (
    *(f"layr8_actors{name}" for name in ("", ".errors", ".telemetry", ".phoenix", ".otp", ".otp.events")),
    *(f"layr8_actors.{name}" for name in ("transport", "channel", "channel.events", "testing")),
    *(f"layr8_actors.{name}" for name in ("client", "client.events", "client.durable", "blocking")),
)
VARIABLES: dict[str, type] = {
    "channel": Channel,
    "client": Client,
    "event": Event,
    "message": Message,
    "node": CloudNode,
    "options": ChannelOptions,
    "proxy": FaultProxy,
    "reply": Reply,
    "supervisor": Supervisor,
}
FOREIGN = {
    "__cause__",
    "anyio",
    "anyio.from_thread.check_cancelled()",
    "await",
    "BaseExceptionGroup",
    "cli",
    "demo",
    "dispatch_reply",
    "exc_info",
    "ExceptionGroup",
    "functools.partial",
    "GenServer",
    "handle_info",
    "json.dumps(dataclasses.asdict(snapshot))",
    "KeyboardInterrupt",
    "LAYR8_AGENT_DID",
    "LAYR8_API_KEY",
    "LAYR8_NODE_URL",
    "Layr8.Channel",
    "listen",
    "logging",
    "MockClock",
    "node",
    "phx_close",
    "phx_error",
    "pytest",
    "simple_one_for_one",
    "SystemExit",
    "task_status.started(handle)",
    "trap_exit",
    "trio.Cancelled",
    "trio.current_time()",
    "trio.fail_after",
    "trio.Nursery",
    "trio.Nursery.start",
    "trio.run(supervisor.run)",
    "trio.serve_tcp",
    "yield",
}
"""Words of OTP, Phoenix, Layr8, Trio, Python and the shell that the documents put in backticks."""


def known_names(document: str = "") -> set[str]:
    """Every public name of the package, of its classes and of their constructors; child ids; values of enums.

    What the classes of ``testing`` have counts in its own document alone: those are many and common words.
    """
    known = {spec.id for spec in Tree(ChannelOptions(ws_url="ws://node.test", api_key="k")).supervisor.children}
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        known.update(module_name.split("."))
        for name, value in vars(module).items():
            if name.startswith("_") or isinstance(value, types.ModuleType):
                continue
            known.add(name)
            if module_name.endswith(".testing") and document != "docs/testing.md":
                continue
            if inspect.isclass(value):
                known.update(member for member in dir(value) if not member.startswith("_"))
                if issubclass(value, enum.Enum):
                    known.update(str(member.value) for member in value)
                for function in (value.__init__, *(member for cls in value.__mro__ for member in vars(cls).values())):
                    known.update(parameters(getattr(function, "__func__", function)))
            else:
                known.update(parameters(value))
    return known


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters) if inspect.isfunction(function) else []


def spans(text: str) -> Iterator[str]:
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", text))


def unknown_names(text: str, known: set[str]) -> list[str]:
    """The names in backticks of a text that neither the package nor ``FOREIGN`` has, and that no file has."""
    unknown = []
    for span in spans(text):
        found = re.fullmatch(r"([A-Za-z_][\w.]*)(?:\(.*\)|=.*)?", span)
        if found is None or span in FOREIGN or found[1] in FOREIGN or (ROOT / span).exists():
            continue
        first, _, rest = found[1].partition(".")
        if rest and first in VARIABLES:
            good = hasattr(VARIABLES[first], rest.partition(".")[0])
        else:
            good = all(part in known or part in FOREIGN for part in found[1].strip(".").split("."))
        if not good:
            unknown.append(span)
    return unknown


@pytest.mark.parametrize("document", TEXTS)
def test_every_name_in_backticks_is_one_of_the_package(document: str) -> None:
    text = TEXTS[document]
    if document == OFFICIAL:  # the first column of its tables has the names of the other
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE).replace("`layr8`", "layr8")
    assert unknown_names(text, known_names(document)) == []


OFFICIAL = "docs/from-the-official-sdk.md"


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Client", official_names.CLIENT),
        ("Config", official_names.CONFIG),
        ("Messages and errors", (*(set(official_names.NAMES) - {"Client", "Config"}), *official_names.MESSAGE)),
    ],
)
def test_every_public_name_of_the_official_sdk_has_its_row(heading: str, names: tuple[str, ...]) -> None:
    words = {word for row in rows(OFFICIAL, heading) for span in spans(row[0]) for word in re.findall(r"\w+", span)}
    assert sorted(set(names) - words) == []
    assert all(len(row) == 3 and row[1] and row[2] for row in rows(OFFICIAL, heading))


@pytest.mark.parametrize(
    "wrong", ["LinkGone", "heartbeat_period=30", "channel.status", "send_message(...)", "x.LinkLost"]
)
def test_a_name_that_the_package_does_not_have_is_noticed(wrong: str) -> None:
    assert unknown_names(f"Look at `{wrong}`.", known_names()) == [wrong]


def test_every_foreign_word_occurs() -> None:
    """An allowance for a word that no document has would only hide a mistake."""
    assert FOREIGN - {span for text in TEXTS.values() for span in spans(text)} == set()


def test_every_link_inside_the_project_leads_somewhere() -> None:
    broken = []
    for document, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
            if target.startswith(("http:", "https:")):
                continue
            file, _, anchor = target.partition("#")
            path = (ROOT / document).parent / file if file else ROOT / document
            anchors = anchors_of(path) if path.suffix == ".md" and path.exists() else set()
            if not path.exists() or (anchor and anchor not in anchors):
                broken.append(f"{document}: {target}")
    assert broken == []


def anchors_of(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", python_blocks(), ids=str)
def test_every_python_block_compiles(block: Block) -> None:
    compile_block(block)


def compile_block(block: Block) -> types.CodeType:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile("\n" * block.line + block.text, block.document, "exec", flags=flags, dont_inherit=True)
    assert isinstance(code, types.CodeType)
    return code


@pytest.mark.parametrize("block", marked_blocks("runnable"), ids=str)
async def test_a_runnable_block_prints_what_stands_below_it(
    block: Block, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("a_program_of_the_documents")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile_block(block), module.__dict__)
    with trio.fail_after(600):
        await module.main()
    assert block.follower is not None, f"{block}: a runnable block is followed by the text that it prints"
    assert capsys.readouterr().out == block.follower


@pytest.mark.real_clock
@pytest.mark.parametrize("block", marked_blocks("pytest"), ids=str)
def test_a_pytest_block_passes(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "test_from_the_documents.py"
    file.write_text(block.text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n", encoding="utf-8")
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    tests = len(re.findall(r"^async def test_", block.text, re.MULTILINE))
    assert tests > 0
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_the_structlog_recipe_hands_over_each_field(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[int, str, dict[str, Any]]] = []

    class Logger:
        def log(self, level: int, name: str, **fields: Any) -> None:
            lines.append((level, name, fields))

    structlog = types.ModuleType("structlog")
    vars(structlog)["get_logger"] = lambda name: Logger()
    monkeypatch.setitem(sys.modules, "structlog", structlog)
    (block,) = (block for block in python_blocks() if "structlog" in block.text)
    namespace: dict[str, Any] = {}
    exec(compile_block(block), namespace)
    error = ValueError("boom")
    namespace["to_structlog"](
        channel_events.CallbackFailed(at=1.0, topic="plugins:x", callback="on_message", error=error)
    )
    namespace["to_structlog"](channel_events.MessageInterrupted(at=2.0, topic="plugins:x", payload={"private": 1}))
    (level, name, fields), (_, _, interrupted) = lines
    assert (level, name) == (logging.ERROR, "CallbackFailed")
    assert (fields["topic"], fields["callback"], fields["exc_info"]) == ("plugins:x", "on_message", error)
    assert "private" not in str(interrupted)


# --- tables -----------------------------------------------------------------------------------------------------------


def event_types() -> list[type[Event]]:
    """Every event that is emitted: the classes below Event that are nobody's root."""
    found: list[type[Event]] = []
    for module in (channel_events, client_events, durable_events, otp_events):
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, Event) and value.__module__ == module.__name__:
                roots: tuple[type, ...] = (
                    channel_events.ChannelEvent,
                    client_events.ClientEvent,
                    client_events.MessageEvent,
                    durable_events.DurableEvent,
                    otp_events.SupervisorEvent,
                    otp_events.ChildEvent,
                )
                found.extend([value] if value not in roots else [])
    return found


def event_table(layer: str) -> list[list[str]]:
    """The rows that docs/telemetry.md has to have for one layer."""
    common = {"at", "topic", "path", "did", "queue"}
    table = []
    for kind in event_types():
        if kind.layer != layer:
            continue
        fields = [f"`{field.name}`" for field in dataclasses.fields(kind) if field.name not in common]
        table.append([f"`{kind.__name__}`", logging.getLevelName(kind.level), ", ".join(fields)])
    return table


@pytest.mark.parametrize(
    ("layer", "document", "heading"),
    [
        ("channel", "docs/telemetry.md", "Events of a channel"),
        ("client", "docs/telemetry.md", "Events of a client"),
        ("otp", "docs/telemetry.md", "Events of a supervisor"),
        ("durable", "docs/durable.md", "Events"),
    ],
)
def test_the_tables_of_events_are_complete(layer: str, document: str, heading: str) -> None:
    expected = event_table(layer)
    assert [row[:3] for row in rows(document, heading)] == expected, "the table has to be:\n" + "\n".join(
        f"| {' | '.join(row)} |" for row in expected
    )


def seconds(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def test_the_table_of_timeouts_has_every_option_of_time_with_its_default() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(ChannelOptions)}
    said = {row[0].strip("`"): row[1] for row in rows("docs/timeouts.md", "What you can set")}
    timed = {name for name in defaults if name.endswith(("_timeout", "_interval", "_seconds"))}
    assert timed <= set(said)
    for name, default in said.items():
        option, _, field = name.partition(".")
        value = defaults[option]
        assert default.split(" ")[0] == seconds(getattr(value, field) if field else value), name
    backoff = {f"backoff.{field.name}" for field in dataclasses.fields(layr8_actors.Backoff)} - {"backoff.first_delay"}
    assert backoff <= set(said)


def test_the_table_of_misbehaviour_has_every_method_of_the_node() -> None:
    methods = {
        name for name, value in vars(NodeBehaviours).items() if inspect.isfunction(value) and not name.startswith("_")
    } - {"bind", "unbind"}
    named = {name for row in rows("docs/testing.md", "What a node does on demand") for name in spans(row[1])}
    assert {name.partition("(")[0].removeprefix("node.") for name in named} == methods | {"down", "stop", "start"}


def test_the_table_of_network_faults_has_every_method_of_the_proxy() -> None:
    methods = {
        name for name, value in vars(NetworkFaults).items() if inspect.isfunction(value) and not name.startswith("_")
    }
    named = {name for row in rows("docs/testing.md", "A network that fails") for name in spans(f"{row[1]} {row[2]}")}
    said = {name.partition("(")[0].removeprefix("proxy.") for name in named}
    assert said == methods | {"ignore_dials", "answer_dials"}


def test_the_table_of_client_options_has_every_one_with_its_default() -> None:
    text = TEXTS["docs/client.md"]
    table = {row[0].strip("`"): row[1] for row in rows("docs/client.md", "What you can set")}
    for field in dataclasses.fields(ClientConfig):
        assert f"`{field.name}`" in text
        if isinstance(field.default, (int, float)):
            assert table[field.name].split(" ")[0] == seconds(field.default), field.name


def test_every_promise_of_the_client_has_a_proof() -> None:
    table = rows("docs/client.md", "What a client promises")
    assert len(table) > 20
    assert [row[0] for row in table if not TEST_NAME.search(row[1])] == []


def test_every_count_is_explained() -> None:
    named = set(spans(TEXTS["supervisor.md"])) | set(spans(TEXTS["docs/telemetry.md"]))
    fields = (
        dataclasses.fields(ChannelStatistics) + dataclasses.fields(ChannelState) + dataclasses.fields(ClientStatistics)
    )
    assert {field.name for field in fields} - named == set()


# --- logs -------------------------------------------------------------------------------------------------------------

DID = "did:web:node.test:alice"
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


async def a_crash(node: CloudNode, channel: Channel) -> None:
    """A bug in the router, planted for one reply."""
    good = Router._reply

    def planted_bug(self: Router, ref: str, reply: Reply) -> None:
        Router._reply = good  # type: ignore[method-assign]
        raise KeyError("seq")

    Router._reply = planted_bug  # type: ignore[method-assign]
    with pytest.raises(layr8_actors.Disconnected):
        await channel.send_msg("message", {"id": "1", "to": []})
    await settle()


async def a_lost_socket(node: CloudNode, channel: Channel) -> None:
    """One whose node is away at the first attempt."""
    node.refuse_upgrades(503, count=1)
    node.drop(DID)
    await node.wait_joined(DID, 2)
    await settle()


async def the_end(node: CloudNode, channel: Channel) -> None:
    """An actor that crashes as soon as it runs."""
    for _ in range(4):
        while "heartbeat    running" not in format_tree(channel.supervisor):
            await trio.sleep(0.1)
        channel.supervisor.exit_child("heartbeat", RuntimeError("boom"))
        await settle()


STORIES: dict[str, Callable[[CloudNode, Channel], Awaitable[None]]] = {
    "a crash": a_crash,
    "a lost socket": a_lost_socket,
    "the end": the_end,
}


async def log_of(story: Callable[[CloudNode, Channel], Awaitable[None]]) -> str:
    """What the default hook logs from INFO up while the story happens to a joined channel, and what comes out."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)-7s %(name)s %(message)s"))
    logger = logging.getLogger("layr8_actors")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with contextlib.suppress(RestartLimitExceeded):
            async with CloudNode(memory=True) as node:
                options = ChannelOptions(
                    ws_url=node.url, api_key="key", agent_did=DID, transport=node.connector, on_event=log_event
                )
                async with layr8_actors.open_channel(options) as channel:
                    await channel.connect(PROTOCOLS)
                    await trio.sleep(12)
                    logger.addHandler(handler)
                    await story(node, channel)
                    logger.removeHandler(handler)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return stream.getvalue()


def pattern(shown: str) -> re.Pattern[str]:
    """The expression that a log as shown in a document stands for."""
    lines = [
        r"(?:.*\n)*?" if line.strip() == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n"
        for line in shown.splitlines()
    ]
    return re.compile("".join(lines))


@pytest.mark.parametrize("block", marked_blocks("log"), ids=lambda block: block.kind)
async def test_a_log_in_the_documents_is_what_is_logged(block: Block) -> None:
    name = block.kind.partition(": ")[2]
    logged = await log_of(STORIES[name])
    assert pattern(block.text).fullmatch(logged), f"{block} shows something else than this log:\n{logged}"


def test_each_story_is_told_in_a_document() -> None:
    assert {block.kind.partition(": ")[2] for block in marked_blocks("log")} == set(STORIES)


def test_each_kind_of_block_occurs() -> None:
    assert all(marked_blocks(kind) for kind in ("runnable", "pytest", "log"))
