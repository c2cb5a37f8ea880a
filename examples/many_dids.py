"""Many DIDs, one socket: an agency serves a DID of each of its tenants, and loses nothing that came for them.

Each tenant has handlers of its own, and queues of its own in the store. The supervisor restarts the client, which joins
them again; the handles stay as they are. When the whole program is stopped, what was stored for a tenant waits until
the next program joins it: ``waiting_dids`` tells whom. A real store is ``SqliteStore("agency.db")``.

It prints:

    one socket for 3 DIDs
    north: 17 degrees
    south: 23 degrees
    the client ends, and its supervisor starts it again
    north: 17 degrees
    south: 23 degrees
    the program ends while south is at work
    the next program finds 1 message of south
    south: 23 degrees
"""

import trio

from layr8_actors import Client, ClientConfig, Message
from layr8_actors.client import DidHandlers
from layr8_actors.client.durable import MemoryStore
from layr8_actors.otp import Supervisor
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel

WEATHER = "https://example.org/weather/1.0"
DEGREES = {"north": 17, "south": 23}


def be_silent(event: Event) -> None:
    """Without ``on_event`` what happens would be logged."""


def did_of(name: str) -> str:
    return f"did:web:node.test:{name}"


def config(node: CloudNode, name: str) -> ClientConfig:
    return ClientConfig(
        node_url=node.url,
        api_key="secret",
        agent_did=did_of(name),
        protocols=[WEATHER],
        transport=node.connector,
        on_event=be_silent,
    )


def handlers_of(tenant: str, takes: float) -> DidHandlers:
    handlers = DidHandlers()

    @handlers.handle(f"{WEATHER}/ask")
    async def tell(message: Message) -> Message:
        await trio.sleep(takes)
        return message.reply(f"{WEATHER}/told", {"degrees": DEGREES[tenant]})

    return handlers


async def first_program(node: CloudNode, store: MemoryStore, customer: Client) -> None:
    agency = Client(config(node, "agency"), durable=store)
    async with Supervisor([agency.child_spec()], name="app", on_event=be_silent):
        await agency.connect()
        tenants = [await agency.join_did(did_of(name), handlers_of(name, takes=0.2)) for name in DEGREES]
        print(f"one socket for {len(node.dids) - 1} DIDs")  # and another one for the customer's
        await ask(customer, *DEGREES)
        print("the client ends, and its supervisor starts it again")
        await agency.close()
        await trio.sleep(0.1)
        for tenant in tenants:
            await tenant.connect()  # the handles of before, joined again
        await ask(customer, *DEGREES)
        await customer.send(question_for("south"))
        await trio.sleep(0.1)
        print("the program ends while south is at work")


async def next_program(node: CloudNode, store: MemoryStore, answered: trio.Event) -> None:
    async with Client(config(node, "agency"), durable=store) as agency:
        for did, messages in (await agency.waiting_dids()).items():
            name = did.rpartition(":")[2]
            print(f"the next program finds {messages} message of {name}")
            await agency.join_did(did, handlers_of(name, takes=0.0))
        await answered.wait()


def question_for(tenant: str) -> Message:
    return Message(type=f"{WEATHER}/ask", to=[did_of(tenant)])


async def ask(customer: Client, *tenants: str) -> None:
    for tenant in tenants:
        answer = await customer.request(question_for(tenant), timeout=2)
        print(f"{tenant}: {answer.body['degrees']} degrees")


async def main() -> None:
    store, answered = MemoryStore(), trio.Event()
    async with CloudNode(memory=True, channels={"plugins:": DispatchingChannel}) as node:
        customer = Client(config(node, "customer"))

        @customer.handle(f"{WEATHER}/told")
        def on_told(message: Message) -> None:  # an answer that no request waits for any more
            print(f"{message.from_.rpartition(':')[2]}: {message.body['degrees']} degrees")
            answered.set()

        async with customer:
            await first_program(node, store, customer)
            await next_program(node, store, answered)


if __name__ == "__main__":
    trio.run(main)
