"""An agent that answers, and one that asks: requests, a failure, a type that nobody handles, and a link that drops.

The node is a ``CloudNode`` in memory, so that this runs anywhere. Yours is named by the environment, and then there is
nothing to configure: ``Client(ClientConfig())``, with LAYR8_NODE_URL, LAYR8_API_KEY and LAYR8_AGENT_DID set.

It prints:

    asker: 6 times 7 is 42
    asker: [6, None] is refused, e.p.xfer.cant-process: the body of ... Expected `int`, got `null` - ...
    asker: who handles /divide? nobody, e.p.msg.unsupported
    agent: link lost
    agent: joined again
    asker: 5 times 5 is 25
    agent: handled 2, failed 1
"""

import msgspec
import trio

from layr8_actors import Backoff, Client, ClientConfig, Message, ProblemReportError
from layr8_actors.client import ChannelTuning
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel

ARITHMETIC = "https://example.org/arithmetic/1.0"


class Factors(msgspec.Struct):
    """The body of a request; what does not fit is told to the sender."""

    factors: list[int]


def be_silent(event: Event) -> None:
    """Without ``on_event`` what happens would be logged, the handler's failure with its traceback."""


def config(node: CloudNode, name: str) -> ClientConfig:
    return ClientConfig(
        node_url=node.url,
        api_key="secret",
        agent_did=f"did:web:node.test:{name}",
        protocols=[ARITHMETIC],  # those who only ask bind it too, or the answers would not reach them
        transport=node.connector,
        channel=ChannelTuning(backoff=Backoff(initial=0.1, maximum=1.0)),
        on_event=be_silent,
    )


def multiplying_agent(node: CloudNode) -> tuple[Client, trio.Event]:
    agent, back = Client(config(node, "agent")), trio.Event()

    @agent.handle(f"{ARITHMETIC}/multiply", timeout=5)
    async def multiply(message: Message) -> Message:
        first, second = message.body_as(Factors).factors
        await trio.sleep(0.01)  # whatever takes its time
        return message.reply(f"{ARITHMETIC}/product", {"product": first * second})

    @agent.on_disconnect
    def lost(error: Exception) -> None:
        print("agent: link lost")

    @agent.on_reconnect
    def rejoined() -> None:
        print("agent: joined again")
        back.set()

    return agent, back


async def ask(asker: Client, agent: Client, *factors: object) -> None:
    request = Message(type=f"{ARITHMETIC}/multiply", to=[agent.did], body={"factors": factors})
    try:
        response = await asker.request(request, timeout=5)
    except ProblemReportError as error:
        print(f"asker: {list(factors)} is refused, {error.code}: {error.comment}")
    else:
        print(f"asker: {factors[0]} times {factors[1]} is {response.body['product']}")


async def main() -> None:
    async with CloudNode(memory=True, channels={"plugins:": DispatchingChannel}) as node:
        agent, back = multiplying_agent(node)
        async with agent, Client(config(node, "asker")) as asker:
            await ask(asker, agent, 6, 7)
            await ask(asker, agent, 6, None)
            try:
                await asker.request(Message(type=f"{ARITHMETIC}/divide", to=[agent.did]), timeout=5)
            except ProblemReportError as error:
                print(f"asker: who handles /divide? nobody, {error.code}")
            node.drop(agent.did)
            await back.wait()
            await ask(asker, agent, 5, 5)
            statistics = agent.statistics()
            print(f"agent: handled {statistics.messages_handled}, failed {statistics.messages_failed}")


if __name__ == "__main__":
    trio.run(main)
