"""Two people chat in one thread: what each says goes out by ``send``, and what comes is shown in its order.

A chat has no requests and responses: both only send, and the thread is what holds it together. Within a thread the
handler gets one message at a time, so a slow reader sees them in order. Ann's link drops; what she says meanwhile is
said again when it is back.

It prints:

    bob sees: Are you there?
    ann sees: I am.
    ann sees: Still.
    ann: no link, I wait
    bob sees: Sorry, my link was down.
    bob sees: Where were we?
    bob sees: Good night.
    messages that the node was told of as handled: 6
"""

import trio

from layr8_actors import Backoff, Client, ClientConfig, Disconnected, Message, NotConnected
from layr8_actors.client import ChannelTuning
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel

CHAT = "https://didcomm.org/basicmessage/2.0"


def be_silent(event: Event) -> None:
    """Without ``on_event`` what happens would be logged."""


class Person:
    """Somebody with a client, whose messages of one chat are printed."""

    def __init__(self, node: CloudNode, name: str) -> None:
        self.name = name
        self.seen = 0
        self.back = trio.Event()
        self.client = Client(
            ClientConfig(
                node_url=node.url,
                api_key="secret",
                agent_did=f"did:web:node.test:{name}",
                transport=node.connector,
                channel=ChannelTuning(backoff=Backoff(initial=0.3, maximum=1.0, jitter=0)),
                on_event=be_silent,
            )
        )
        self.client.handle(f"{CHAT}/message")(self.show)
        self.client.on_reconnect(self.back.set)

    async def show(self, message: Message) -> None:
        await trio.sleep(0.05)  # reading takes a while; the next one of this thread waits
        print(f"{self.name} sees: {message.body['content']}")
        self.seen += 1

    async def say(self, other: "Person", content: str) -> None:
        """Send until the node has taken it. Where it may have, nothing is sent again: better never than twice."""
        message = Message(type=f"{CHAT}/message", to=[other.client.did], thid="our-chat", body={"content": content})
        while True:
            try:
                await self.client.send(message)
            except NotConnected:
                print(f"{self.name}: no link, I wait")
                await self.back.wait()
            except Disconnected as error:
                if error.written:
                    return
            else:
                return


async def main() -> None:
    async with CloudNode(memory=True, channels={"plugins:": DispatchingChannel}) as node:
        ann, bob = Person(node, "ann"), Person(node, "bob")
        async with ann.client, bob.client:
            await ann.say(bob, "Are you there?")
            await node.wait_for(lambda: bob.seen == 1)
            await bob.say(ann, "I am.")
            await bob.say(ann, "Still.")
            await node.wait_for(lambda: ann.seen == 2)
            node.drop(ann.client.did)
            await trio.sleep(0.1)
            for content in ("Sorry, my link was down.", "Where were we?", "Good night."):
                await ann.say(bob, content)
            await node.wait_for(lambda: bob.seen == 4)
            await trio.sleep(0.1)
            handled = [dispatch.status for dispatch in node.dispatches].count("handled")
            print(f"messages that the node was told of as handled: {handled}")


if __name__ == "__main__":
    trio.run(main)
