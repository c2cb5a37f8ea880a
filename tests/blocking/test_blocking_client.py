"""The client without async: the same names, errors and timeouts, plain functions as handlers, and no thread left."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import warnings
from pathlib import Path

import anyio.from_thread
import pytest
import trio

from layr8_actors import (
    AlreadyConnected,
    Backoff,
    ChannelClosed,
    ConnectFailed,
    InvalidOption,
    JoinRejected,
    Message,
    NotConnected,
    ProblemReportError,
    RequestTimeout,
    ServerReject,
)
from layr8_actors.blocking import Client
from layr8_actors.client import ChannelTuning
from tests.blocking.node_in_a_thread import NodeInAThread, node_in_a_thread, threads
from tests.client.agents import ALICE, BOB, KEY, REQUEST, RESPONSE, request_to, settled_once

pytestmark = pytest.mark.real_clock

ROOT = Path(__file__).parent.parent.parent
QUICK: ChannelTuning = {"backoff": Backoff(initial=0.01, maximum=0.02)}


def echo_agent(node: NodeInAThread) -> Client:
    client = Client(node.config(BOB))

    @client.handle(REQUEST)
    def echo(message: Message) -> Message:
        return message.reply(RESPONSE, message.body)

    return client


def test_a_script_asks_and_a_plain_function_in_another_thread_answers(node: NodeInAThread) -> None:
    bob, ran_in = Client(node.config(BOB)), []

    @bob.handle(REQUEST)
    def echo(message: Message) -> Message:
        ran_in.append(threading.get_ident())
        trio.from_thread.check_cancelled()  # only a worker thread may ask
        return message.reply(RESPONSE, message.body)

    with bob, Client(node.config()) as alice:
        assert alice.did == ALICE
        assert alice.request(request_to(BOB, {"n": 1}), timeout=5).body == {"n": 1}
        assert alice.send(request_to(BOB)).from_ == ALICE
        assert alice.state.status.value == "joined"
        assert "reply_protocol/1" in alice.capabilities
        assert bob.protocols == ("https://didcomm.org/report-problem/2.0", "https://example.org/echo/1.0")
        assert bob.delegation is None
        node.wait_for(lambda: settled_once(node.node))
    assert threading.get_ident() not in ran_in
    assert bob.statistics().messages_handled == 2


def test_connect_and_close_do_what_the_block_does_as_often_as_one_likes(node: NodeInAThread) -> None:
    alice = Client(node.config())
    alice.close()
    with pytest.raises(NotConnected, match="with client"):
        alice.send(request_to())
    for _ in range(2):
        alice.connect()
        with pytest.raises(AlreadyConnected):
            alice.connect()
        assert node.node.joins(ALICE)
        alice.close()
        alice.close()
        with pytest.raises(ChannelClosed):
            alice.send(request_to())


def test_async_handlers_run_in_the_loop_and_use_the_client_there(node: NodeInAThread) -> None:
    bob = Client(node.config(BOB))
    refused: list[str] = []

    @bob.handle(REQUEST)
    async def forward(message: Message) -> Message:
        try:
            bob.send(request_to(ALICE))
        except RuntimeError as error:
            refused.append(str(error))
        await bob.asynchronous.send(Message(type=RESPONSE, to=[ALICE]))
        return message.reply(RESPONSE, "forwarded")

    with bob, Client(node.config(protocols=["https://example.org/echo/1.0"])) as alice:
        assert alice.request(request_to(BOB), timeout=5).body == "forwarded"
    assert "client.asynchronous" in refused[0]


def test_a_plain_handler_may_ask_on_while_the_node_waits_to_be_told_of_its_message(node: NodeInAThread) -> None:
    carol = "did:web:node.test:carol"
    middle = Client(node.config(carol))

    @middle.handle(REQUEST)
    def ask_on(message: Message) -> Message:
        # The node hands over one message at a time: the request tells it of this one, or its response could not come.
        return message.reply(RESPONSE, middle.request(request_to(BOB, message.body), timeout=5).body)

    with echo_agent(node), middle, Client(node.config()) as alice:
        assert alice.request(request_to(carol, "through"), timeout=10).body == "through"


def test_handlers_run_at_once_up_to_the_limit_and_one_at_a_time_within_a_thread(node: NodeInAThread) -> None:
    bob = Client(node.config(BOB, max_handlers=3))
    both, running, most, within = threading.Lock(), [0], [0], threading.Lock()
    meet = threading.Barrier(3)

    @bob.handle(REQUEST, accept_first=True)
    def count(message: Message) -> Message:
        if message.thid == "one":
            assert within.acquire(blocking=False), "two of one thread at once"
        with both:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if message.body == "meet":
            meet.wait(10)  # only passes if three run at once
        with both:
            running[0] -= 1
        if message.thid == "one":
            within.release()
        return message.reply(RESPONSE)

    with bob, Client(node.config()) as alice:
        asking = [
            threading.Thread(target=alice.request, args=(request_to(BOB, "meet"),), kwargs={"timeout": 10})
            for _ in range(6)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        for _ in range(3):
            alice.send(request_to(BOB, thid="one"))
        node.wait_for(lambda: bob.statistics().messages_handled == 9)
    assert most[0] == 3


def test_errors_keep_their_types_and_their_tracebacks_show_no_portal(node: NodeInAThread) -> None:
    bob = Client(node.config(BOB))

    @bob.handle(REQUEST)
    def fail(message: Message) -> None:
        raise ValueError(f"no {message.body}")

    silent = Client(node.config("did:web:node.test:silent"))
    silent.handle(REQUEST)(lambda message: None)
    with bob, silent, Client(node.config()) as alice:
        with pytest.raises(ServerReject, match="not-found"):
            alice.send(request_to("did:web:nowhere"))
        with pytest.raises(ProblemReportError, match="no pears") as report:
            alice.request(request_to(BOB, "pears"), timeout=5)
        with pytest.raises(RequestTimeout):
            alice.request(request_to("did:web:node.test:silent"), timeout=0.05)
        with pytest.raises(InvalidOption):
            alice.request("no message", timeout=1)  # type: ignore[arg-type]
        assert alice.statistics().requests_waiting == 0
    files = {frame.filename for frame in traceback.extract_tb(report.value.__traceback__)}
    assert not [name for name in files if "anyio" in name or "concurrent" in name]
    assert [name for name in files if name.endswith("client/requests.py")]
    assert report.value.__context__ is None


def test_where_connecting_fails_the_error_comes_out_and_no_thread_stays(node: NodeInAThread) -> None:
    refused = Client(node.config(node_url="http://127.0.0.1:9"))
    for _ in range(2):
        with pytest.raises(ConnectFailed) as failed, refused:
            raise AssertionError
        assert KEY not in "".join(traceback.format_exception(failed.value))
    with pytest.raises(NotConnected):
        refused.send(request_to())


def test_registering_is_refused_as_the_client_does_it(node: NodeInAThread) -> None:
    alice = Client(node.config())
    alice.handle(REQUEST)(lambda message: None)
    with pytest.raises(InvalidOption, match="one already"):
        alice.handle(REQUEST)(lambda message: None)
    with pytest.raises(InvalidOption):
        alice.handle_all("no function")  # type: ignore[type-var]
    with pytest.raises(InvalidOption, match="ClientConfig"):
        Client("no config")  # type: ignore[arg-type]
    with alice, pytest.raises(AlreadyConnected):
        alice.handle_all(lambda message: None)


def test_other_functions_are_called_in_threads_and_a_dropped_link_fails_what_waits(node: NodeInAThread) -> None:
    alice, told = Client(node.config(channel=QUICK)), []
    again = threading.Event()
    alice.on_disconnect(lambda error: told.append(type(error).__name__))

    @alice.on_reconnect
    def back() -> None:
        trio.from_thread.check_cancelled()  # only a worker thread may ask
        told.append("back")
        again.set()

    with alice:
        node.call(lambda: node.node.drop(ALICE))
        assert again.wait(10)
        assert list(alice.send(request_to(ALICE)).to) == [ALICE]
    assert told == ["TransportClosed", "back"]


def test_a_handler_whose_time_is_over_is_told_at_its_next_call_or_where_it_asks(node: NodeInAThread) -> None:
    bob, seen = Client(node.config(BOB)), []
    begun = threading.Event()

    @bob.handle(REQUEST, timeout=0.1)
    def slow(message: Message) -> None:
        begun.set()
        try:
            if message.body == "call":
                bob.request(request_to(ALICE), timeout=60)
            while True:
                anyio.from_thread.check_cancelled()
                time.sleep(0.01)
        except trio.Cancelled:
            seen.append(message.body)
            raise

    alice = Client(node.config())
    alice.handle(REQUEST)(lambda message: None)
    with bob, alice:
        for how in ("ask", "call"):
            with pytest.raises(ProblemReportError, match=r"0\.1 s"):
                alice.request(request_to(BOB, how), timeout=10)
    assert seen == ["ask", "call"]
    assert bob.statistics().messages_failed == 2


def test_close_from_a_handler_ends_the_client_and_whoever_waits(node: NodeInAThread) -> None:
    bob, ended = Client(node.config(BOB)), []

    @bob.handle(REQUEST, accept_first=True)
    def stop(message: Message) -> None:
        try:
            bob.close()
        except trio.Cancelled:
            ended.append("handler")
            raise

    with bob, Client(node.config()) as alice:
        assert not bob.wait(0.01)
        alice.send(request_to(BOB))
        assert bob.wait(10)
        with pytest.raises(ChannelClosed):
            bob.send(request_to(ALICE))
    assert ended == ["handler"]


def test_what_waits_in_other_threads_is_told_of_the_close(node: NodeInAThread) -> None:
    quiet = Client(node.config(BOB))
    quiet.handle(REQUEST)(lambda message: None)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            alice.request(request_to(BOB), timeout=60)
        except ChannelClosed as error:
            errors.append(error)

    with quiet:
        alice = Client(node.config())
        alice.connect()
        asking = threading.Thread(target=ask)
        asking.start()
        node.wait_for(lambda: quiet.statistics().messages_handled)
        alice.close()
        asking.join(10)
    assert [type(error) for error in errors] == [ChannelClosed]


def test_that_the_client_gave_up_comes_out_of_the_block_unless_it_failed_by_itself(node: NodeInAThread) -> None:
    with node_in_a_thread() as other:
        for mistake in (False, True):
            with (
                pytest.raises(KeyError if mistake else JoinRejected) as failed,
                Client(other.config(channel=QUICK)) as alice,
            ):
                other.call(lambda: other.node.refuse_joins("e.join.plugin.parent.unknown"))
                other.call(lambda: other.node.drop(ALICE))
                with pytest.raises(JoinRejected):
                    alice.wait(10)
                with pytest.raises(ChannelClosed) as closed:
                    alice.send(request_to())
                raise KeyError("mistake") if mistake else closed.value
            other.call(other.node.behave)
    assert "gave up" in failed.value.__notes__[0]


def test_a_client_that_is_dropped_while_it_runs_is_closed_with_a_reminder(node: NodeInAThread) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Client(node.config()).connect()
        gc.collect()
    assert [(warning.category, ALICE in str(warning.message)) for warning in caught] == [(ResourceWarning, True)]
    node.wait_for(lambda: not node.node.dids)
    while any(thread.name.startswith("layr8") for thread in threads()):
        time.sleep(0.01)  # it is about to end
    while any("_end_quietly" in thread.name for thread in threads()):
        time.sleep(0.01)


SCRIPT = """
import threading, sys
from layr8_actors import ClientConfig, Message
from layr8_actors.blocking import Client
from layr8_actors.client import ChannelTuning
client = Client(ClientConfig(node_url={url!r}, api_key="key", agent_did={did!r}, protocols=["https://example.org/echo/1.0"],
                on_event=lambda event: None))
{body}
"""


def test_ctrl_c_while_it_waits_for_a_response_leaves_the_topic_and_no_thread_and_says_it_once(
    node: NodeInAThread,
) -> None:
    quiet = Client(node.config(BOB))
    quiet.handle(REQUEST)(lambda message: None)
    leaves = len(node.node.received(ALICE, event="phx_leave"))
    quiet.connect()
    body = f"""
    try:
        with client:
            print("ready", flush=True)
            client.request(Message(type={REQUEST!r}, to=[{BOB!r}]), timeout=60)
    except KeyboardInterrupt:
        print("interrupted", client.statistics().requests_waiting)
        print([t.name for t in threading.enumerate() if not t.name.startswith("Trio thread")])
        raise
    """
    try:
        script = SCRIPT.format(url=node.node.url, did=ALICE, body=textwrap.dedent(body))
        command = [sys.executable, "-W", "default::ResourceWarning", "-c", script]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            node.wait_for(lambda: quiet.statistics().messages_handled)  # it waits for the response now
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    finally:
        quiet.close()
    assert out == "ready\ninterrupted 0\n['MainThread']\n"
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "During handling" not in err
    assert "Warning" not in err
    assert len(node.node.received(ALICE, event="phx_leave")) == leaves + 1


def test_a_script_that_forgets_close_is_closed_in_order_and_reminded(node: NodeInAThread) -> None:
    leaves = len(node.node.received(ALICE, event="phx_leave"))
    script = SCRIPT.format(url=node.node.url, did=ALICE, body="client.connect(); print(client.did)")
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, f"{ALICE}\n")
    assert "ResourceWarning" in done.stderr
    assert "with client" in done.stderr
    assert "Traceback" not in done.stderr
    node.wait_for(lambda: len(node.node.received(ALICE, event="phx_leave")) == leaves + 1)
