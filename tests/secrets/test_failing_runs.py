"""Runs that fail, each in its own way, with everything they print searched for the key that they ran with.

Searched are all log records (every logger at DEBUG, the libraries' included), errors with their causes, contexts,
groups and tracebacks, the locals of every frame and one level of their attributes, events, and the repr of all that is
public.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import pytest
import trio
import trustme

from layr8_actors.channel import Callbacks, Channel, ChannelOptions, open_channel
from layr8_actors.errors import (
    ActorNotRunning,
    ConnectFailed,
    Disconnected,
    JoinRejected,
    JoinTimeout,
    Layr8Error,
    RemoteProtocolError,
    ReplyTimeout,
    RestartLimitExceeded,
)
from layr8_actors.otp import Supervisor, format_tree
from layr8_actors.phoenix import Frame
from layr8_actors.telemetry import Event, log_event
from layr8_actors.testing import CloudNode
from layr8_actors.transport import TransportName, connector_named
from tests.secrets.shown import forms, leaks, live_frames

KEYS = {"query": "s3cr3t-k3y/&=+'\"é", "header": "s3cr3t-k3y/&=+'\""}
DID = "did:web:node.test:alice"
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
Auth = Literal["query", "header"]


class Run:
    """One channel to one node, and all that it has shown so far."""

    def __init__(self, auth: Auth, caplog: pytest.LogCaptureFixture, transport: TransportName = "auto") -> None:
        caplog.set_level(logging.DEBUG)
        caplog.handler.setLevel(logging.DEBUG)
        self.auth: Auth = auth
        self.transport: TransportName = transport
        self.caplog = caplog
        self.node = CloudNode(memory=True)
        self.shown: list[object] = []
        self.changes: dict[str, Any] = {}

    @property
    def key(self) -> str:
        return KEYS[self.auth]

    def hook(self, event: Event) -> None:
        self.shown.append(event)
        log_event(event)

    def options(self) -> ChannelOptions:
        given: dict[str, Any] = {
            "ws_url": f"{self.node.url}?api_key={self.key}",
            "api_key": self.key,
            "auth": self.auth,
            "agent_did": DID,
            "transport": connector_named(self.transport, self.node.open_stream) if self.node.memory else self.transport,
            "callbacks": Callbacks(lambda _message: None),
            "on_event": self.hook,
            **self.changes,
        }
        return ChannelOptions(**given)

    @contextlib.asynccontextmanager
    async def channel(self, *, joined: bool = True) -> AsyncIterator[Channel]:
        async with self.node, open_channel(self.options()) as channel:
            if joined:
                await channel.connect(PROTOCOLS)
            try:
                yield channel
            finally:
                self.look_at(channel)

    @contextlib.contextmanager
    def expect(self, *kinds: type[BaseException]) -> Any:
        with pytest.raises(kinds) as caught:
            yield caught
        self.shown.append(caught.value)

    def look_at(self, channel: Channel) -> None:
        supervisor = channel.supervisor
        self.shown += [channel, channel.state, channel.statistics(), channel.state.last_error, supervisor]
        self.shown += [repr(supervisor.children)]
        if supervisor.running:
            self.shown += [format_tree(supervisor), repr(supervisor.which_children())]
        self.shown += list(live_frames(trio.lowlevel.current_root_task()))  # type: ignore[arg-type]


async def refused_upgrade(run: Run) -> None:
    run.node.refuse_upgrades(403)
    async with run.channel(joined=False) as channel:
        with run.expect(ConnectFailed):
            await channel.connect(PROTOCOLS)


async def echo_in_the_answer_to_the_upgrade(run: Run) -> None:
    async with run.channel(joined=False) as channel:
        for said in forms(run.key):
            head = f"Location: ws://node.test/?api_key={said}\r\nX-Echo: {said}\r\n\r\nyou sent {said}".encode()
            broken = b"HTTP/1.1 101 Switching Protocols\r\n" + said.encode() + b": x\r\n" + head
            good = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            wrong_token = good + b"Sec-WebSocket-Accept: " + said.encode() + b"\r\n" + head
            extension = good + b"Sec-WebSocket-Extensions: " + said.encode() + b"\r\n" + head
            for answer in (b"HTTP/1.1 302 " + said.encode() + b"\r\n" + head, broken, wrong_token, extension, head):
                run.node.answer_upgrades(answer, count=1)
                with run.expect(ConnectFailed):
                    await channel.connect(PROTOCOLS)


async def timed_out_upgrade(run: Run) -> None:
    run.node.ignore_upgrades()
    async with run.channel(joined=False) as channel:
        with run.expect(ConnectFailed):
            await channel.connect(PROTOCOLS)


async def bad_tls(run: Run) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("other.test").configure_cert(context)
    run.node = CloudNode(ssl_context=context)
    async with run.node:
        run.changes = {"ws_url": f"{run.node.url}?api_key={run.key}"}
        async with open_channel(run.options()) as channel:
            with run.expect(ConnectFailed):
                await channel.connect(PROTOCOLS)
            run.look_at(channel)


async def dns_and_refused_connections(run: Run) -> None:
    async def open_stream(_host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if port == 80:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        raise ConnectionRefusedError(111, "Connection refused")

    run.changes = {"transport": connector_named(run.transport, open_stream)}
    for port in (80, 81):
        run.changes["ws_url"] = f"ws://node.test:{port}/s?api_key={run.key}"
        async with open_channel(run.options()) as channel:
            with run.expect(ConnectFailed):
                await channel.connect(PROTOCOLS)
            run.look_at(channel)


async def dropped_with_callers_waiting(run: Run) -> None:
    async with run.channel() as channel, trio.open_nursery() as nursery:
        run.node.drop_replies()
        for reset in (False, True):

            async def cut(reset: bool = reset) -> None:
                await trio.testing.wait_all_tasks_blocked()
                run.node.drop(DID, reset=reset)

            nursery.start_soon(cut)
            with run.expect(Disconnected):
                await channel.send_msg("message", {"id": "1"})
            await channel.connect(PROTOCOLS)


async def echo_in_control_frames(run: Run) -> None:
    async with run.channel() as channel:
        for said in forms(run.key):
            for opcode in (0x9, 0xA):
                word = said.encode()
                run.node.send_wire(bytes((0x80 | opcode, len(word))) + word)
            await trio.testing.wait_all_tasks_blocked()
            run.node.close(1008, f"no {said}, go")
            await trio.testing.wait_all_tasks_blocked()
            assert "***" in str(channel.state.last_error)
            await channel.connect(PROTOCOLS)
    theirs = [record.getMessage() for record in run.caplog.records if record.name == "trio-websocket"]
    if run.transport != "trio-websocket":
        assert theirs == []
        return
    for event in ("websocket closed", "ping"):  # the library has logged both, and what it logged is not the key
        assert any(event in text and "***" in text for text in theirs)


async def echo_in_the_refusal_of_a_join(run: Run) -> None:
    async with run.channel(joined=False) as channel:
        for said in forms(run.key):
            run.node.refuse_joins(f"e.join.plugin.child.{said}", count=1)
            with run.expect(JoinRejected) as caught:
                await channel.connect(PROTOCOLS)
            assert caught.value.permanent


async def echo_in_nonsense_of_a_join(run: Run) -> None:
    async with run.channel(joined=False) as channel:
        answers: list[Any] = [run.key, [run.key], {run.key: run.key}, {"status": run.key, "response": {}}]
        answers += [{"status": "ok", "response": said} for said in (run.key, {"did": [run.key]}, {"did": ""})]
        answers += [{"status": "ok", "response": {"capabilities": [[run.key]]}}]
        for answer in answers:
            run.node.answer_joins(answer, count=1)
            with run.expect(RemoteProtocolError):
                await channel.connect(PROTOCOLS)


async def unanswered_join_and_reply(run: Run) -> None:
    run.node.ignore_joins(count=1)
    async with run.channel(joined=False) as channel:
        with run.expect(JoinTimeout):
            await channel.connect(PROTOCOLS)
        await channel.connect(PROTOCOLS)
        run.node.drop_replies()
        with run.expect(ReplyTimeout):
            await channel.send_msg("message", {"id": "1"})


async def given_up_after_refusals(run: Run) -> None:
    with run.expect(JoinRejected):
        async with run.channel():
            run.node.refuse_upgrades(403)
            run.node.drop(DID)
            await trio.sleep_forever()


async def bad_frames_with_the_key_in_them(run: Run) -> None:
    async with run.channel() as channel:
        for said in forms(run.key):
            for message in (said, f"[{said}", f'["1","2","t",{{"{said[:9]}":1}},{{}}]', said.encode()):
                run.node.send_raw(message, DID)
            run.node.send_raw(bytes((2, 255, 1)) + said.encode(), DID)
            run.node.push(DID, f"event {said}", {said: said})
            run.node.push(DID, "x" * 60 + said, {})  # cut at 64 characters, in the middle of the key
            run.node.push(DID, "message", [said])
            run.node.send_foreign(DID, said, said, topic=said)
            run.node.send_frame(Frame(said, said, said, said, said), DID)
            run.node.send_reply(DID, said, {"status": said, "response": said})
            run.node.send_reply(DID, said, said)
        await trio.testing.wait_all_tasks_blocked()
        assert channel.statistics().frames_refused > 20
        assert channel.statistics().frames_ignored > 20


async def echo_in_replies(run: Run) -> None:
    async with run.channel() as channel:
        for said in forms(run.key):
            run.node.answer_pushes({"status": said, "response": {"reason": said, said: said}}, count=1)
            reply = await channel.send_msg("message", {"id": "1"})
            run.shown.append(repr(reply))
            assert reply.response["reason"] == said  # a payload is the caller's, as it came
            run.node.answer_pushes([said], count=1)
            with run.expect(RemoteProtocolError):
                await channel.send_msg("message", {"id": "1"})


async def echo_in_the_assigned_did(run: Run) -> None:
    run.node.assign_did(f"did:web:{run.key}")
    async with run.channel() as channel:
        await trio.testing.wait_all_tasks_blocked()
        run.node.drop()
        await trio.sleep(5)
        assert channel.state.joined


async def crash_of_each_actor(run: Run) -> None:
    async with run.channel() as channel:
        for name in ("inbox", "router", "connection", "heartbeat", "reconnector"):
            channel.supervisor.exit_child(name, RuntimeError("drill"))
            await trio.sleep(60)
            run.look_at(channel)
            assert channel.state.joined


async def crashes_beyond_the_budget(run: Run) -> None:
    with run.expect(RestartLimitExceeded):
        async with run.channel() as channel:
            while True:
                with contextlib.suppress(ActorNotRunning):  # it is just being restarted
                    channel.supervisor.exit_child("connection", RuntimeError("drill"))
                await trio.sleep(0.1)


async def crashes_below_a_supervisor(run: Run) -> None:
    spec = Channel.child_spec(run.options(), protocols=PROTOCOLS)
    run.shown += [repr(spec), spec]
    with run.expect(BaseExceptionGroup, RestartLimitExceeded):
        async with run.node, Supervisor([spec], max_restarts=1, on_event=run.hook) as above:
            await run.node.wait_joined(DID)
            run.shown += [format_tree(above), repr(above.which_children()), repr(above.children)]
            while True:
                with contextlib.suppress(Layr8Error):
                    above.whereis("channel").supervisor.exit_child("router", RuntimeError("drill"))
                await trio.sleep(0.1)


async def callbacks_that_raise(run: Run) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("the user's own code")

    run.changes = {"callbacks": Callbacks(fail, fail, fail)}
    async with run.channel():
        run.node.deliver(DID, {"id": "1"})
        await trio.testing.wait_all_tasks_blocked()
        run.node.drop(DID)
        await trio.sleep(5)


async def provider_that_fails(run: Run) -> None:
    answers: list[Any] = [RuntimeError(run.key), run.key.encode(), [run.key], f"{run.key}\r\n", "hang"]

    async def provider() -> Any:
        answer = answers.pop(0)
        if answer == "hang":
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        return answer

    run.changes = {"api_key": provider, "auth": "header", "ws_url": run.node.url}
    async with run.channel(joined=False) as channel:
        while answers:
            with run.expect(Layr8Error):
                await channel.connect(PROTOCOLS)


async def cancelled_while_dialling(run: Run) -> None:
    run.node.ignore_upgrades()
    async with run.channel(joined=False) as channel:
        with trio.move_on_after(1):
            with run.expect(trio.Cancelled):
                await channel.connect(PROTOCOLS)


FAILURES: list[Callable[[Run], Awaitable[None]]] = [
    bad_frames_with_the_key_in_them,
    bad_tls,
    callbacks_that_raise,
    cancelled_while_dialling,
    crash_of_each_actor,
    crashes_below_a_supervisor,
    crashes_beyond_the_budget,
    dns_and_refused_connections,
    dropped_with_callers_waiting,
    echo_in_control_frames,
    echo_in_nonsense_of_a_join,
    echo_in_replies,
    echo_in_the_answer_to_the_upgrade,
    echo_in_the_assigned_did,
    echo_in_the_refusal_of_a_join,
    given_up_after_refusals,
    provider_that_fails,
    refused_upgrade,
    timed_out_upgrade,
    unanswered_join_and_reply,
]


@pytest.mark.parametrize("transport", ["websockets", "trio-websocket"])
@pytest.mark.parametrize("auth", ["query", "header"])
@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
async def test_a_run_that_fails_shows_the_key_nowhere(
    caplog: pytest.LogCaptureFixture, fail: Callable[[Run], Awaitable[None]], auth: Auth, transport: TransportName
) -> None:
    run = Run(auth, caplog, transport)
    await fail(run)
    assert run.shown
    loggers = {record.name.partition(".")[0] for record in caplog.records}
    if fail not in (dns_and_refused_connections, bad_tls, refused_upgrade, timed_out_upgrade):
        assert loggers >= {"layr8_actors"}
    assert leaks(run.key, *run.shown, *caplog.records, caplog.text) == []


async def test_each_dial_asks_for_the_key_anew_and_no_key_of_before_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    run = Run("query", caplog)
    keys = [f"s3cr3t-{number}-k3y" for number in range(4)]
    handed_out: list[str] = []

    async def provider() -> str:
        handed_out.append(keys[len(handed_out)])
        return handed_out[-1]

    run.changes = {"api_key": provider, "ws_url": run.node.url}
    async with run.channel():
        for number in range(1, len(keys)):
            run.node.close(1008, f"{keys[number - 1]} is revoked")
            await run.node.wait_joined(DID, number + 1)
        assert [request.api_key for request in run.node.requests] == keys == handed_out
    for key in keys:
        assert leaks(key, *run.shown, *caplog.records) == []


async def test_errors_of_every_kind_show_the_url_without_its_query(caplog: pytest.LogCaptureFixture) -> None:
    """A key that stands in the query under another name, by mistake, is in no error and no repr either."""
    run = Run("query", caplog)
    answers: list[Any] = [RuntimeError("no key today"), "another-key"]

    async def provider() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    run.changes = {"api_key": provider, "ws_url": f"{run.node.url}?token=s3cr3t"}
    run.node.ignore_joins()
    async with run.channel(joined=False) as channel:
        for kind in (ConnectFailed, JoinTimeout):
            with run.expect(kind) as caught:
                await channel.connect(PROTOCOLS)
            assert caught.value.url == run.node.url
    (request,) = run.node.requests
    assert request.query["token"] == "s3cr3t"  # it is sent all the same
    texts = [f"{thing!r} {thing}" for thing in (*run.shown, run.options(), *caplog.records)]
    assert [text for text in texts if "s3cr3t" in text] == []


async def test_payloads_are_handed_over_as_they_came_with_the_key_in_them_too(caplog: pytest.LogCaptureFixture) -> None:
    """What is data to the user's own code is not rewritten; it stands in no repr and no event of ours."""
    run = Run("query", caplog)
    got: list[Any] = []
    run.changes = {"callbacks": Callbacks(got.append)}
    run.node.assign_did(f"did:web:{run.key}")
    async with run.channel() as channel:
        assert channel.assigned_did == f"did:web:{run.key}"
        run.node.answer_pushes({"status": "ok", "response": {"echo": run.key}}, count=1)
        assert (await channel.send_msg("message", {})).response == {"echo": run.key}
        run.node.deliver(channel.assigned_did, {"id": run.key})
        await trio.testing.wait_all_tasks_blocked()
        assert got[0]["plaintext"] == {"id": run.key}
    assert leaks(run.key, *[thing for thing in run.shown if isinstance(thing, Event)], *caplog.records) == []


async def test_a_key_of_fewer_than_six_characters_is_not_looked_for(caplog: pytest.LogCaptureFixture) -> None:
    run = Run("query", caplog)
    run.changes = {"api_key": "key", "ws_url": run.node.url}
    async with run.channel() as channel:
        run.node.close(1008, "the key is revoked")
        await trio.testing.wait_all_tasks_blocked()
        assert "the key is revoked" in str(channel.state.last_error)
