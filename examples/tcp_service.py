"""A TCP service and the database connection that it cannot do without: they fail together and come back in order.

The connection is an actor, the server is Trio's own ``serve_tcp``: whatever takes a ``task_status`` can be a child as
it is. Under ``REST_FOR_ONE`` a crash of the connection restarts the server too, because it comes after it; a crash of
the server would leave the connection alone. The database, a stand-in, drops a connection at its third question.

It prints:

    client: apples? 3
    client: pears? 5
    connection crashed: the peer closed the connection
    connection restarted
    server restarted
    client: plums? 8
    client: quinces? none
"""

from functools import partial

import trio

from layr8_actors.errors import SupervisionError
from layr8_actors.otp import Actor, ActorRef, Backoff, Call, ChildSpec, Reply, Strategy, Supervisor, events
from layr8_actors.telemetry import Event

STOCK = {"apples": "3", "pears": "5", "plums": "8"}


class Lines:
    """Lines of text over a byte stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, line: str) -> None:
        await self.stream.send_all(f"{line}\n".encode())

    async def receive(self) -> str:
        while b"\n" not in self.buffer:
            chunk = await self.stream.receive_some()
            if not chunk:
                raise ConnectionError("the peer closed the connection")
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()


class Query(Call[str]):
    """Asks the connection for the row of a key."""

    def __init__(self, key: str) -> None:
        self.key = key


class DatabaseConnection(Actor):
    """Owns the socket to the database. It mends nothing: an error is a crash, and the next incarnation dials anew."""

    stream: trio.SocketStream

    def __init__(self, port: int) -> None:
        self.port = port

    async def init(self) -> None:
        self.stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.lines = Lines(self.stream)

    async def handle_call(self, request: Query, reply: Reply[str]) -> None:
        await self.lines.send(request.key)
        reply.send(await self.lines.receive())

    async def terminate(self, reason: object) -> None:
        await self.stream.aclose()


async def serve_client(connection: ActorRef, stream: trio.SocketStream) -> None:
    lines = Lines(stream)
    try:
        while True:
            await lines.send(await connection.call(Query(await lines.receive())))
    except (ConnectionError, trio.BrokenResourceError, SupervisionError):
        pass  # this client has gone, or its question has no answer: it is told by the end of its connection


def tell(event: Event) -> None:
    """What the supervisor does; without ``on_event`` it would be logged."""
    match event:
        case events.ChildExited(id="connection", error=Exception() as error):
            print(f"connection crashed: {error}")
        case events.ChildRestarted():
            print(f"{event.id} restarted")
        case _:
            pass


def service(database_port: int) -> Supervisor:
    connection = ActorRef("connection")
    server = partial(trio.serve_tcp, partial(serve_client, connection), 0, host="127.0.0.1")
    return Supervisor(
        [DatabaseConnection.child_spec(connection, database_port), ChildSpec("server", server)],
        strategy=Strategy.REST_FOR_ONE,
        # Ten restarts a minute, each after a longer pause: a database that is away for a moment is waited for.
        backoff=Backoff(initial=0.1, maximum=2.0),
        max_restarts=10,
        max_seconds=60.0,
        name="service",
        on_event=tell,
    )


async def ask(supervisor: Supervisor, question: str) -> str:
    """A client that calls again when it is cut off."""
    while True:
        try:
            (listener,) = supervisor.whereis("server")  # what serve_tcp reported as started
            async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
                lines = Lines(stream)
                await lines.send(question)
                return await lines.receive()
        except (OSError, trio.BrokenResourceError, SupervisionError):
            await trio.sleep(0.05)


async def database(stream: trio.SocketStream) -> None:
    lines = Lines(stream)
    try:
        for _ in range(2):
            await lines.send(STOCK.get(await lines.receive(), "none"))
        await lines.receive()
    except (ConnectionError, trio.BrokenResourceError):
        pass


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, database, 0, host="127.0.0.1"))
        async with service(listeners[0].socket.getsockname()[1]) as supervisor:
            for question in ("apples", "pears", "plums", "quinces"):
                print(f"client: {question}? {await ask(supervisor, question)}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
