"""The client without async over a store, and with further DIDs: the same names, errors and timeouts."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import anyio.from_thread
import pytest
import trio

from layr8_actors import (
    AlreadyConnected,
    ChannelClosed,
    Client as AsyncClient,
    InvalidOption,
    JoinRejected,
    Message,
    NotConnected,
    RequestTimeout,
)
from layr8_actors.blocking import Client, JoinedDid
from layr8_actors.client import DidHandlers, JoinedDid as AsyncJoinedDid
from layr8_actors.client.durable import MemoryQueue, MemoryStore, QueueOptions, SqliteStore
from layr8_actors.errors import StoreCorrupt
from tests.blocking.node_in_a_thread import NodeInAThread
from tests.client.agents import ALICE, BOB, PROTOCOL, REQUEST, RESPONSE, request_to, settled_once

pytestmark = pytest.mark.real_clock

ROOT = Path(__file__).parent.parent.parent
CAROL = "did:web:node.test:carol"
DAVE = "did:web:node.test:dave"


def stored_in(path: Path, queue: str = "inbox") -> int:
    """How many messages of a queue are still to be acknowledged in a file that nobody has open."""

    async def look() -> int:
        async with SqliteStore(path) as store:
            return (await store.live()).get(queue, 0)

    return trio.run(look)


def answering(name: str, ran_in: list[int]) -> DidHandlers:
    handlers = DidHandlers()

    @handlers.handle(REQUEST)
    def answer(message: Message) -> Message:
        ran_in.append(threading.get_ident())
        trio.from_thread.check_cancelled()  # only a worker thread may ask
        return message.reply(RESPONSE, name)

    return handlers


# --- names ------------------------------------------------------------------------------------------------------------

OF_A_LOOP = {"start_link", "child_spec", "channel", "supervisor"}
"""What only a program that has a Trio loop can use; ``asynchronous`` has it."""

OF_NO_LOOP = {"wait", "asynchronous"}


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Client, AsyncClient), (JoinedDid, AsyncJoinedDid)], ids=["Client", "JoinedDid"]
)
def test_names_arguments_and_timeouts_are_those_of_the_async_one(blocking: type, asynchronous: type) -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")} - {"functions"}

    assert public(asynchronous) - OF_A_LOOP == public(blocking) - OF_NO_LOOP
    names = [name for name in public(blocking) - OF_NO_LOOP if inspect.isfunction(getattr(blocking, name))]
    assert len(names) >= 6
    for name in ["__init__", *names] if blocking is Client else names:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (blocking, asynchronous))
        assert [(one.name, one.kind, one.default) for one in ours.parameters.values()] == [
            (one.name, one.kind, one.default) for one in theirs.parameters.values()
        ]


# --- a store ----------------------------------------------------------------------------------------------------------


def test_what_a_plain_handler_was_at_when_the_client_was_closed_is_handled_by_the_next_one(
    node: NodeInAThread, tmp_path: Path
) -> None:
    path, begun, answers = tmp_path / "agent.db", threading.Event(), list[str]()
    first = Client(node.config(), durable=SqliteStore(path))

    @first.handle(REQUEST)
    def never_done(message: Message) -> None:
        begun.set()
        while True:
            anyio.from_thread.check_cancelled()
            time.sleep(0.005)

    bob = Client(node.config(BOB))
    answered = threading.Event()

    @bob.handle(RESPONSE)
    def count(message: Message) -> None:
        answers.append(message.body)
        answered.set()

    with bob:
        with first:
            bob.send(request_to(ALICE))
            assert begun.wait(10)
        assert stored_in(path) == 1
        second = Client(node.config(), durable=SqliteStore(path))
        second.handle(REQUEST)(lambda message: message.reply(RESPONSE, "done"))
        for _ in range(2):  # the store is opened and closed with each run
            with second:
                assert answered.wait(10)
        assert answers == ["done"]
        assert stored_in(path) == 0
        node.wait_for(lambda: settled_once(node.node))


def test_what_is_sent_durably_is_stored_and_then_sent(node: NodeInAThread, tmp_path: Path) -> None:
    alice = Client(node.config(), durable=SqliteStore(tmp_path / "agent.db"))
    bob, got = Client(node.config(BOB)), threading.Event()
    bob.handle(REQUEST)(lambda message: got.set())
    with pytest.raises(NotConnected):
        alice.send_durably(request_to(BOB))
    with bob:
        with alice:
            assert alice.send_durably(request_to(BOB)).from_ == ALICE
            assert got.wait(10)
            with pytest.raises(InvalidOption):
                alice.send_durably("text")  # type: ignore[arg-type]
        with pytest.raises(ChannelClosed):
            alice.send_durably(request_to(BOB))
        with Client(node.config()) as without, pytest.raises(InvalidOption, match="durable"):
            without.send_durably(request_to(BOB))


def test_a_store_that_cannot_be_opened_fails_connect_and_leaves_no_thread(node: NodeInAThread, tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.write_text("no database, but long enough that somebody might have taken it for one" * 20)
    alice = Client(node.config(), durable=SqliteStore(path))
    for _ in range(2):
        with pytest.raises(StoreCorrupt):
            alice.connect()
    path.unlink()
    with alice:
        assert alice.state.status.value == "joined"
    with pytest.raises(InvalidOption, match="SqliteStore"):
        Client(node.config(), durable=MemoryQueue())  # type: ignore[arg-type]


def test_a_plain_handler_that_is_over_its_time_and_returns_has_answered_and_is_not_called_again(
    node: NodeInAThread,
) -> None:
    alice = Client(node.config(), durable=MemoryStore(inbox=QueueOptions(max_attempts=3)))
    called: list[str] = []

    @alice.handle(REQUEST, timeout=0.05)
    def slow(message: Message) -> Message:
        called.append(message.id)
        time.sleep(0.1)
        return message.reply(RESPONSE, "late")

    with alice, Client(node.config(BOB)) as bob:
        assert bob.request(request_to(ALICE), timeout=10).body == "late"
    assert len(called) == 1


# --- further DIDs -----------------------------------------------------------------------------------------------------


def test_each_did_has_plain_handlers_in_threads_and_sends_and_asks_as_itself(node: NodeInAThread) -> None:
    ran_in: list[int] = []
    bob = Client(node.config(BOB))
    bob.handle(REQUEST)(lambda message: message.reply(RESPONSE, message.from_))
    with bob, Client(node.config()) as alice:
        carol = alice.join_did(CAROL, answering("carol", ran_in), protocols=[PROTOCOL])
        assert isinstance(carol, JoinedDid)
        assert (carol.did, carol.state.status.value, carol.delegation) == (CAROL, "joined", None)
        assert "reply_protocol/1" in carol.capabilities
        assert carol.request(request_to(BOB), timeout=5).body == CAROL
        assert carol.send(request_to(BOB)).from_ == CAROL
        assert bob.request(request_to(CAROL), timeout=5).body == "carol"
        node.wait_for(lambda: settled_once(node.node))
        assert carol.statistics().messages_handled == 1
        carol.connect()
        with pytest.raises(RequestTimeout):
            carol.request(request_to(BOB), timeout=0)
        with pytest.raises(AlreadyConnected):
            alice.join_did(CAROL)
        with pytest.raises(InvalidOption):
            alice.join_did(DAVE, "handlers")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption):
            alice.join_did("")
        node.call(lambda: node.node.refuse_joins("e.join.plugin.parent.not-found", did=DAVE, count=1))
        with pytest.raises(JoinRejected):
            alice.join_did(DAVE)
        carol.leave()
        carol.leave()
        with pytest.raises(ChannelClosed):
            carol.send(request_to(BOB))
        dave = alice.join_did(DAVE, answering("dave", ran_in))
        assert bob.request(request_to(DAVE), timeout=5).body == "dave"
    with pytest.raises(ChannelClosed):
        dave.send(request_to(BOB))
    assert threading.get_ident() not in ran_in
    assert repr(dave) == f"<blocking JoinedDid {DAVE!r}>"
    with pytest.raises(NotConnected):
        Client(node.config()).join_did(CAROL)


def test_plain_handlers_of_one_did_may_ask_another_did_of_the_client_however_few_threads_each_has(
    node: NodeInAThread,
) -> None:
    alice = Client(node.config(max_handlers=1))
    bottom, middle = DidHandlers(), DidHandlers()
    bottom.handle(REQUEST)(lambda message: message.reply(RESPONSE, "bottom"))
    joined: list[JoinedDid] = []

    def ask_on(did: str) -> object:
        def ask(message: Message) -> Message:
            return message.reply(RESPONSE, joined[0].request(request_to(did), timeout=5).body)

        return ask

    middle.handle(REQUEST)(ask_on(CAROL))  # type: ignore[type-var]
    alice.handle(REQUEST)(ask_on(DAVE))  # type: ignore[type-var]
    with alice, Client(node.config(BOB)) as bob:
        joined.append(alice.join_did("did:web:node.test:erin", protocols=[PROTOCOL]))
        alice.join_did(DAVE, middle)
        alice.join_did(CAROL, bottom)
        asking = [threading.Thread(target=bob.request, args=(request_to(ALICE),)) for _ in range(3)]
        for thread in asking:
            thread.start()
        assert bob.request(request_to(ALICE), timeout=10).body == "bottom"
        for thread in asking:
            thread.join(10)


def test_a_plain_handler_may_leave_its_own_did_and_an_async_one_uses_the_handle_in_the_loop(
    node: NodeInAThread,
) -> None:
    ended = threading.Event()
    handlers = DidHandlers()
    joined: list[JoinedDid] = []
    refused: list[RuntimeError] = []

    @handlers.handle(REQUEST, accept_first=True)
    def leave(message: Message) -> None:
        try:
            joined[0].leave()
        except trio.Cancelled:
            ended.set()
            raise

    @handlers.handle(f"{PROTOCOL}/other")
    async def forward(message: Message) -> Message:
        try:
            joined[0].send(request_to(BOB))
        except RuntimeError as error:
            refused.append(error)
        return message.reply(RESPONSE, (await joined[0].asynchronous.send(request_to(BOB))).from_)

    bob = Client(node.config(BOB))
    bob.handle(REQUEST)(lambda message: None)
    with bob, Client(node.config()) as alice:
        joined.append(alice.join_did(CAROL, handlers))
        assert bob.request(Message(type=f"{PROTOCOL}/other", to=[CAROL]), timeout=5).body == CAROL
        assert len(refused) == 1
        bob.send(request_to(CAROL))
        assert ended.wait(10)
        node.wait_for(lambda: CAROL not in node.node.dids)
        with pytest.raises(ChannelClosed):
            joined[0].send(request_to(BOB))
        alice.join_did(CAROL)


def test_what_is_stored_for_a_did_waits_until_it_is_joined(node: NodeInAThread, tmp_path: Path) -> None:
    path, handled, ran_in = tmp_path / "agent.db", threading.Event(), list[int]()
    slow = DidHandlers()
    begun = threading.Event()

    @slow.handle(REQUEST)
    async def never_done(message: Message) -> None:
        begun.set()
        await trio.sleep_forever()

    bob = Client(node.config(BOB))
    bob.handle(RESPONSE)(lambda message: handled.set())
    with bob:
        with Client(node.config(), durable=SqliteStore(path)) as alice:
            carol = alice.join_did(CAROL, slow)
            bob.send(request_to(CAROL))
            assert begun.wait(10)
            assert carol.send_durably(request_to(CAROL)).from_ == CAROL
            assert alice.waiting_dids() == {}
        with Client(node.config(), durable=SqliteStore(path)) as alice:
            assert set(alice.waiting_dids()) == {CAROL}
            assert not handled.wait(0.05)
            alice.join_did(CAROL, answering("carol", ran_in))
            assert handled.wait(10)


SCRIPT = """
import threading
from layr8_actors import ClientConfig, Message
from layr8_actors.blocking import Client
from layr8_actors.client import DidHandlers, JoinedDid as AsyncJoinedDid
from layr8_actors.client.durable import SqliteStore
config = ClientConfig(node_url={url!r}, api_key="key", agent_did={did!r}, protocols=[{protocol!r}],
                      on_event=lambda event: None)
client = Client(config, durable=SqliteStore({path!r}))
handlers = DidHandlers()

@handlers.handle({request!r})
def ask(message):
    joined.request(Message(type={request!r}, to=[{bob!r}]), timeout=60)

try:
    with client:
        joined = client.join_did({carol!r}, handlers)
        print("ready", flush=True)
        client.wait()
except KeyboardInterrupt:
    print("interrupted", joined.statistics().requests_waiting, flush=True)
    print([t.name for t in threading.enumerate() if not t.name.startswith("Trio thread")])
    raise
"""


def test_ctrl_c_ends_a_durable_client_with_its_dids_and_what_they_were_at_stays_stored(
    node: NodeInAThread, tmp_path: Path
) -> None:
    path = tmp_path / "agent.db"
    asked = threading.Event()
    quiet = Client(node.config(BOB))
    quiet.handle(REQUEST)(lambda message: asked.set())
    values = {"url": node.node.url, "did": ALICE, "carol": CAROL, "bob": BOB, "path": str(path)}
    script = SCRIPT.format(**values, request=REQUEST, protocol=PROTOCOL)
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", textwrap.dedent(script)]
    leaves = len(node.node.received(CAROL, event="phx_leave"))
    with (
        quiet,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        quiet.send(request_to(CAROL))
        assert asked.wait(10)  # the handler is in its thread, and waits for a response
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert out == "interrupted 0\n['MainThread']\n"
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert "Warning" not in err
    assert len(node.node.received(CAROL, event="phx_leave")) == leaves + 1
    assert stored_in(path, f"inbox of {CAROL}") == 1
