"""One question to a hundred agents on one node: at most twenty at a time, each with its own timeout and outcome.

What one agent does is nobody else's matter: the slow ones run into the timeout, the broken ones answer with a problem
report, and one is not on the node at all. Requests that end, however they end, leave nothing behind.

It prints:

    asked 101 agents, at most 20 at a time
    answered: 89, the best offer is 3 of did:web:node.test:seller-77
    problem report: 6
    no answer within 0.5 s: 5
    refused by the node: 1, did:web:node.test:nobody
    requests that still wait: 0
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import trio

from layr8_actors import Client, ClientConfig, Message, ProblemReportError, RequestTimeout, ServerReject
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel

OFFERS = "https://example.org/offers/1.0"
SELLERS = 100
AT_A_TIME = 20


def be_silent(event: Event) -> None:
    """Without ``on_event`` what happens would be logged."""


def config(node: CloudNode, name: str) -> ClientConfig:
    return ClientConfig(
        node_url=node.url,
        api_key="secret",
        agent_did=f"did:web:node.test:{name}",
        protocols=[OFFERS],
        transport=node.connector,
        on_event=be_silent,
    )


def seller(node: CloudNode, number: int) -> Client:
    client = Client(config(node, f"seller-{number}"))

    @client.handle(f"{OFFERS}/ask")
    async def offer(message: Message) -> Message:
        if number % 20 == 19:
            await trio.sleep(60)  # a slow one; the customer does not wait for it
        if number % 17 == 3:
            raise RuntimeError("the price list is being printed")
        await trio.sleep(0.01)
        return message.reply(f"{OFFERS}/offer", {"price": 3 if number == 77 else 10 + number * 7 % 50})

    return client


@contextlib.asynccontextmanager
async def running(clients: list[Client]) -> AsyncIterator[None]:
    """Run clients in one nursery, and go on when all of them have joined."""
    async with trio.open_nursery() as nursery:
        for client in clients:
            await client.start_link(nursery)
        async with trio.open_nursery() as joining:
            for client in clients:
                joining.start_soon(client.connect)
        yield
        nursery.cancel_scope.cancel()


async def main() -> None:
    offers: dict[str, int] = {}
    outcomes: Counter[str] = Counter()
    async with CloudNode(memory=True, channels={"plugins:": DispatchingChannel}) as node:
        sellers = [seller(node, number) for number in range(SELLERS)]
        async with running(sellers), Client(config(node, "customer")) as customer:
            limiter = trio.CapacityLimiter(AT_A_TIME)

            async def ask(did: str) -> None:
                async with limiter:
                    try:
                        answer = await customer.request(Message(type=f"{OFFERS}/ask", to=[did]), timeout=0.5)
                    except (ProblemReportError, RequestTimeout, ServerReject) as error:
                        outcomes[type(error).__name__] += 1
                    else:
                        offers[did] = answer.body["price"]

            dids = [*(client.did for client in sellers), "did:web:node.test:nobody"]
            async with trio.open_nursery() as nursery:
                for did in dids:
                    nursery.start_soon(ask, did)
            best = min(offers, key=offers.__getitem__)
            print(f"asked {len(dids)} agents, at most {AT_A_TIME} at a time")
            print(f"answered: {len(offers)}, the best offer is {offers[best]} of {best}")
            print(f"problem report: {outcomes['ProblemReportError']}")
            print(f"no answer within 0.5 s: {outcomes['RequestTimeout']}")
            print(f"refused by the node: {outcomes['ServerReject']}, {dids[-1]}")
            print(f"requests that still wait: {customer.statistics().requests_waiting}")


if __name__ == "__main__":
    trio.run(main)
