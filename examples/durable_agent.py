"""Persist, then acknowledge: an agent that is stopped in the middle of its work goes on with it in its next life.

With ``durable=store`` a message that has a handler is stored before the node is told that it is handled. The handler
works from the store, under a lease, at least once; its answer goes by way of the outbox. A handler that fails is called
again. So it should bear to be called twice with one message: here the bookings are kept by the id of their message.

It prints:

    first life: booking 1
    first life: ends in the middle of it
    node: it was told that 3 messages are handled
    second life: booking 1
    second life: booking 2, attempt 1 failed
    second life: booking 3
    second life: booking 2
    customer: booked 1, 2, 3
"""

import functools
import tempfile
from pathlib import Path

import trio

from layr8_actors import Client, ClientConfig, Message
from layr8_actors.client.durable import SnoozeMessage, SqliteStore
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel

BOOKING = "https://example.org/booking/1.0"


def be_silent(event: Event) -> None:
    """Without ``on_event`` what happens would be logged."""


def config(node: CloudNode, name: str) -> ClientConfig:
    return ClientConfig(
        node_url=node.url,
        api_key="secret",
        agent_did=f"did:web:node.test:{name}",
        transport=node.connector,
        max_handlers=1,  # for the sake of the story: one after the other
        on_event=be_silent,
    )


class Bookings:
    """What the agent keeps, in a database of its own; by the id of the message, so that twice is once."""

    def __init__(self) -> None:
        self.by_message: dict[str, int] = {}
        self.failed = False
        self.begun = trio.Event()


def booking_agent(node: CloudNode, store: SqliteStore, bookings: Bookings, life: str, takes: float) -> Client:
    agent = Client(config(node, "agent"), durable=store)

    @agent.handle(f"{BOOKING}/book")
    async def book(message: Message) -> Message:
        number = message.body["number"]
        if number == 2 and not bookings.failed:
            bookings.failed = True
            print(f"{life}: booking 2, attempt 1 failed")
            raise SnoozeMessage(0.2, "the database is away")
        print(f"{life}: booking {number}")
        bookings.begun.set()
        await trio.sleep(takes)
        bookings.by_message[message.id] = number
        return message.reply(f"{BOOKING}/booked", {"number": number})

    return agent


async def main() -> None:
    bookings, booked, done = Bookings(), list[int](), trio.Event()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "agent.db")
        async with CloudNode(memory=True, channels={"plugins:": DispatchingChannel}) as node:
            customer = Client(config(node, "customer"))

            @customer.handle(f"{BOOKING}/booked")
            def on_booked(message: Message) -> None:
                booked.append(message.body["number"])
                if len(booked) == 3:
                    done.set()

            agent = functools.partial(booking_agent, node, bookings=bookings)
            async with customer:
                async with SqliteStore(path) as store, agent(store, life="first life", takes=60) as first:
                    for number in (1, 2, 3):
                        order = Message(type=f"{BOOKING}/book", to=[first.did], body={"number": number})
                        await customer.send(order)
                    await node.wait_for(lambda: [one.status for one in node.dispatches] == ["handled"] * 3)
                    await bookings.begun.wait()
                    print("first life: ends in the middle of it")
                print(f"node: it was told that {len(node.dispatches)} messages are handled")
                async with SqliteStore(path) as store, agent(store, life="second life", takes=0.01):
                    await done.wait()
            print(f"customer: booked {', '.join(map(str, sorted(booked)))}")


if __name__ == "__main__":
    trio.run(main)
