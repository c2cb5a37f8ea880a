"""Many topics on one flapping link under scripts that Hypothesis writes; the invariants are those of the channel.

As in test_channel_scripts.py a script is drawn first and then run in one Trio run on virtual time. After each step,
what must always hold is looked at; at the end the node is well again, and every topic has to come to rest: joined, its
messages handed over once and in order, its callers told, its accounts at zero.
"""

from __future__ import annotations

import json
from typing import Any

import trio
from hypothesis import given, note, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from layr8_actors.channel import Callbacks, Channel, JoinedTopic, LinkStatus, open_channel
from layr8_actors.errors import Layr8Error, SupervisionError
from layr8_actors.otp import Backoff
from layr8_actors.phoenix import Frame
from tests.channel.conftest import DID, PROTOCOLS, ScriptedNode, ScriptedSocket

DIDS = [DID, *(f"did:web:node.test:further-{number}" for number in range(3))]
CAPACITY = 6
TRANSIENT, FOR_GOOD = "e.connect.plugin.failed: protocols_already_bound", "e.join.plugin.parent.not-found"

own = st.integers(0, 3)
further = st.integers(1, 3)
steps = st.one_of(
    st.tuples(st.sampled_from(["join", "join", "leave"]), further),
    st.just(("cancel_joins",)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 3.0, 3.0, 20.0, 40.0])),
    st.tuples(st.just("turns"), st.integers(1, 12)),
    st.tuples(st.just("drop"), st.sampled_from([1000, 1006, 1012])),
    st.tuples(st.just("topic"), own, st.sampled_from(["phx_error", "phx_close"])),
    st.tuples(st.just("say"), own, st.integers(1, 6)),
    st.tuples(st.just("say"), own, st.integers(1, 6)),
    st.tuples(st.just("send"), own, st.integers(1, 3)),
    st.tuples(st.just("user"), own, st.sampled_from(["fast", "fast", "stopped"])),
    st.tuples(
        st.just("crash"),
        own,
        st.sampled_from(["inbox", "router", "connection", "heartbeat", "reconnector", "rejoiner"]),
        st.booleans(),
    ),
    st.tuples(st.just("joins"), own, st.sampled_from(["ok", "ok", "ok", TRANSIENT, FOR_GOOD, "silence"])),
    st.tuples(st.sampled_from(["replies", "node_reads"]), st.sampled_from([True, True, False])),
)
scripts = st.integers(0, 40).flatmap(lambda length: st.lists(steps, min_size=length, max_size=length))


class ManyTopicsNode(ScriptedNode):
    """A scripted node that keeps, for each socket, which topics are joined on it and under which join_ref."""

    def __init__(self) -> None:
        super().__init__()
        self.joined: dict[tuple[ScriptedSocket, str], Any] = {}
        self.answers = dict.fromkeys(DIDS, "ok")
        self.pushed: list[tuple[bool, Frame]] = []

    def handle(self, socket: ScriptedSocket, frame: Frame) -> None:
        key = (socket, str(frame.topic))
        if frame.event == "phx_join":
            did = key[1].removeprefix("plugins:")
            old = self.joined.pop(key, None)
            match self.answers[did]:
                case "ok":
                    self.joined[key] = frame.join_ref
                    socket.reply(frame, "ok", {"did": did})
                case "silence":
                    self.joined[key] = frame.join_ref
                case reason:
                    socket.reply(frame, "error", {"reason": reason})
            if old is not None:
                socket.say(Frame(old, old, frame.topic, "phx_close", {}))
        elif frame.event == "phx_leave":
            socket.reply(frame)
            if self.joined.get(key) == frame.join_ref:
                self.end(socket, key[1], "phx_close")
        elif frame.event == "heartbeat":
            super().handle(socket, frame)
        else:
            # What the node had ended by itself we may not have read yet.
            self.pushed.append((self.joined.get(key) in (None, frame.join_ref), frame))
            if key in self.joined and not self.mute:
                socket.reply(frame)

    def end(self, socket: ScriptedSocket, topic: str, event: str) -> None:
        ref = self.joined.pop((socket, topic), None)
        if ref is not None:
            socket.say(Frame(ref, ref, topic, event, {}))


class User:
    """Who uses one DID: its callbacks, its calls, and what came of them."""

    def __init__(self, did: str) -> None:
        self.did = did
        self.handle: Channel | JoinedTopic | None = None
        self.asked = False
        self.scope = trio.CancelScope()  # of the call of join that is under way
        self.lives = 0  # handles so far
        self.left: set[int] = set()  # those of them whose leave has returned
        self.read: list[int] = []  # numbers of messages taken from a socket since this handle was joined
        self.handed: list[int] = []
        self.order: list[str] = []
        self.sends = 0
        self.outcomes: list[object] = []
        self.gate = trio.Event()
        self.gate.set()

    def callbacks(self) -> Callbacks:
        self.lives += 1
        life = self.lives

        async def on_message(payload: Any) -> None:
            assert life not in self.left, "a handle that was left got a message"
            if life == self.lives:
                self.handed.append(payload["n"])
            await self.gate.wait()

        def note_down(what: str) -> None:
            assert life not in self.left
            if life == self.lives:
                self.order.append(what)

        return Callbacks(on_message, lambda error: note_down("disconnect"), lambda: note_down("reconnect"))

    @property
    def alive(self) -> bool:
        return self.handle is not None and self.handle.state.status is not LinkStatus.CLOSED

    async def send(self, handle: Channel | JoinedTopic) -> None:
        self.sends += 1
        try:
            self.outcomes.append(await handle.send_msg("message", {"from": self.did}))
        except Layr8Error as error:
            self.outcomes.append(error)


class Script:
    """One run of one script."""

    def __init__(self) -> None:
        self.node = ManyTopicsNode()
        self.users = [User(did) for did in DIDS]
        self.channel: Channel
        self.nursery: trio.Nursery
        self.next = 0

    async def open_watched(self, nursery: trio.Nursery, endpoint: Any) -> ScriptedSocket:
        socket = await ScriptedNode.open(self.node, nursery, endpoint)
        receive = socket.receive

        async def watched() -> list[str | bytes]:
            batch = await receive()
            for data in batch:
                _, _, topic, event, payload = json.loads(data)
                if event == "message":
                    user = next(user for user in self.users if topic == f"plugins:{user.did}")
                    if user.alive:
                        user.read.append(payload["n"])
            return batch

        socket.receive = watched  # type: ignore[method-assign]
        return socket

    # --- the steps ---

    async def join(self, user: User) -> None:
        user.read, user.handed, user.order = [], [], []
        try:
            with user.scope:
                user.handle = await self.channel.join(user.did, PROTOCOLS, callbacks=user.callbacks())
        except Layr8Error:
            pass  # the node was not well; it may be asked again
        finally:
            user.asked = False

    async def leave(self, user: User, handle: JoinedTopic, life: int) -> None:
        await handle.leave()
        user.left.add(life)

    async def step(self, name: str, *args: Any) -> None:
        of_a_user = name in ("join", "leave", "topic", "say", "send", "user", "crash", "joins")
        user = self.users[args[0]] if of_a_user else None
        node = self.node
        match name:
            case "join" if user and not user.alive and not user.asked:
                user.asked, user.scope = True, trio.CancelScope()
                self.nursery.start_soon(self.join, user)
            case "leave" if user and isinstance(user.handle, JoinedTopic):
                self.nursery.start_soon(self.leave, user, user.handle, user.lives)
                user.handle = None
                user.lives += 1  # what the old handle is still handed is no matter of the next one
            case "cancel_joins":
                for other in self.users:
                    if other.asked:
                        other.scope.cancel()
            case "wait":
                await trio.sleep(args[0])
            case "turns":
                for _ in range(args[0]):
                    await trio.lowlevel.checkpoint()
            case "drop":
                node.socket.drop(args[0])
            case "topic" if user:
                node.end(node.socket, f"plugins:{user.did}", args[1])
            case "say" if user:
                self.say(user, args[1])
            case "send" if user and user.handle is not None:
                for _ in range(args[1]):
                    self.nursery.start_soon(user.send, user.handle)
            case "user" if user and args[1] == "fast":
                user.gate.set()
            case "user" if user and user.gate.is_set():
                user.gate = trio.Event()
            case "crash" if user and user.handle is not None:
                try:
                    user.handle.supervisor.exit_child(args[1], RuntimeError("script") if args[2] else None)
                except SupervisionError:
                    pass  # it is away, or there is none of that name
            case "joins" if user:
                node.answers[user.did] = args[1]
            case "node_reads" if args[0]:
                node.socket.writable.set()
            case "node_reads":
                node.socket.stop_reading()
            case "replies":
                node.mute = not args[0]

    def say(self, user: User, count: int) -> None:
        """The node pushes, where both sides hold the topic for joined under the same join."""
        ref = self.node.joined.get((self.node.socket, f"plugins:{user.did}"))
        if user.handle is None or not user.handle.state.joined or ref is None or not self.node.socket.open:
            return
        if (
            user.handle._sends._record.topic.join_ref != ref
            if isinstance(user.handle, JoinedTopic)
            else (user.handle._record.topic.join_ref != ref)
        ):
            return
        for _ in range(count):
            self.node.socket.say(Frame(ref, None, f"plugins:{user.did}", "message", {"n": self.next}))
            self.next += 1

    # --- what must hold ---

    def check(self) -> None:
        assert self.node.most_at_once <= 1, "two sockets at once"
        assert all(right for right, _ in self.node.pushed), "a push under a join that is not in force"
        for user in self.users:
            expected = ["disconnect", "reconnect"] * (len(user.order) // 2 + 1)
            assert user.order == expected[: len(user.order)], "callbacks do not alternate"
            assert user.handed == user.read[: len(user.handed)], "lost, doubled or reordered"
        statistics = self.channel.statistics()
        topics = self.channel._record.topics
        shares = [] if topics is None else [tree.record.own_backlog for tree in topics]
        assert statistics.frames_waiting >= sum(share.counted for share in shares) >= 0
        assert statistics.bytes_waiting >= sum(share.counted_size for share in shares) >= 0
        assert all(share.frames >= 0 and share.size >= 0 for share in shares)

    async def come_to_rest(self) -> None:
        self.node.answers = dict.fromkeys(DIDS, "ok")
        self.node.mute = False
        for socket in self.node.sockets:
            socket.writable.set()
        for user in self.users:
            user.gate.set()
        with trio.fail_after(3000):
            await self.channel.connect(PROTOCOLS)
        await trio.sleep(200)
        await wait_all_tasks_blocked()
        for user in self.users:
            assert not user.asked
            assert len(user.outcomes) == user.sends, "a caller was left waiting, or told twice"
            if user.alive:
                assert user.handle is not None
                assert user.handle.state.joined, f"{user.did} was not joined again"
                assert user.handed == user.read, "lost, doubled or reordered"
                assert len(user.order) % 2 == 0
                assert (await user.handle.send_msg("message", {"last": True})).ok
                statistics = user.handle.statistics()
                assert (statistics.frames_waiting, statistics.bytes_waiting) == (0, 0)
                assert statistics.replies_waiting == 0
        statistics = self.channel.statistics()
        assert (statistics.frames_waiting, statistics.bytes_waiting, statistics.reading_paused) == (0, 0, False)
        alive = {f"plugins:{user.did}" for user in self.users if user.alive}
        assert {topic for socket, topic in self.node.joined if socket is self.node.socket} == alive
        self.check()

    async def run(self, script: list[tuple[Any, ...]]) -> None:
        node = self.node
        node.open = self.open_watched  # type: ignore[method-assign]
        primary = self.users[0]
        options = node.options(
            callbacks=primary.callbacks(),
            inbox_capacity=CAPACITY,
            max_restarts=500,
            max_seconds=100_000,
            backoff=Backoff(initial=1, maximum=30, factor=2, jitter=0.5, reset_after=30),
        )
        async with open_channel(options) as self.channel, trio.open_nursery() as self.nursery:
            await self.channel.connect(PROTOCOLS)
            primary.handle = self.channel
            for step in script:
                note(f"{trio.current_time():9.3f} {step}")
                if step[0] == "joins" and step[1] == 0 and step[2] == FOR_GOOD:
                    continue  # it would end the channel, which is no matter of further topics
                if step[0] == "leave" and step[1] == 0:
                    continue
                await self.step(*step)
                self.check()
            await self.come_to_rest()
            self.nursery.cancel_scope.cancel()
        assert node.open_sockets == 0
        for user in self.users:
            assert not user.alive


@settings(max_examples=settings().max_examples)
@given(scripts)
def test_whatever_happens_every_topic_keeps_its_order_its_callers_its_accounts_and_comes_back(
    script: list[tuple[Any, ...]],
) -> None:
    run = Script()
    try:
        # Every topic is wanted from the start, so that a short script has something to break.
        trio.run(run.run, [("join", 1), ("join", 2), ("turns", 40), *script], clock=MockClock(autojump_threshold=0))
    except BaseException:
        note("\n".join(f"{event.at:9.3f} {event.describe()}" for event in run.node.events[-100:]))
        raise
