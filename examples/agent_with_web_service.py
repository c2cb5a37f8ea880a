"""An agent and a web service in one supervision tree: HTTP comes in, a request to another agent goes out.

Both are children of one supervisor, and neither needs the other's restart: the web service holds the client, which is
the handle of whichever run of it is going on. The agent is closed in the middle, as if it had given up, and the service
answers 503 until the supervisor has started it again. The web server is h11 over Trio's ``serve_tcp``, without frills.

It prints:

    app  one_for_one  restarts 0/5 in 60 s
    ├─ agent  running     incarnation 1  restarts 0  one_for_one 0/3 in 5 s
    │  ├─ channel     running     incarnation 1  restarts 0  one_for_one 0/3 in 5 s
    │  │  ├─ inbox        running     incarnation 1  restarts 0
    │  │  ├─ router       running     incarnation 1  restarts 0
    │  │  ├─ connection   running     incarnation 1  restarts 0
    │  │  ├─ heartbeat    running     incarnation 1  restarts 0
    │  │  └─ reconnector  running     incarnation 1  restarts 0
    │  └─ dispatcher  running     incarnation 1  restarts 0
    └─ web    running     incarnation 1  restarts 0
    GET /weather?city=Oslo: 200 {"city": "Oslo", "degrees": 4}
    GET /weather?city=Atlantis: 502 {"error": "e.p.xfer.cant-process: there is no such city"}
    GET /nothing: 404 {"error": "not found"}
    agent has ended
    GET /weather?city=Oslo: 503 {"error": "no link to the node"}
    agent restarted
    GET /weather?city=Oslo: 200 {"city": "Oslo", "degrees": 4}
    agent has ended
"""

import json
from functools import partial
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from layr8_actors import Client, ClientConfig, Layr8Error, Message, ProblemReportError, RequestTimeout
from layr8_actors.otp import Backoff, ChildSpec, Supervisor, events, format_tree
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel

WEATHER = "https://example.org/weather/1.0"
STATION = "did:web:node.test:station"
DEGREES = {"Oslo": 4, "Rome": 19}


def tell(event: Event) -> None:
    """What is printed of what happens; without ``on_event`` all of it would be logged."""
    match event:
        case events.ChildExited(id="agent", path="app"):
            print("agent has ended")
        case events.ChildRestarted(id="agent", path="app"):
            print("agent restarted")
        case _:
            pass


def config(node: CloudNode, did: str) -> ClientConfig:
    return ClientConfig(
        node_url=node.url,
        api_key="secret",
        agent_did=did,
        protocols=[WEATHER],
        transport=node.connector,
        on_event=tell,
    )


async def respond(agent: Client, target: str) -> tuple[int, object]:
    """One HTTP request: what goes wrong behind it has a status of its own."""
    url = urlsplit(target)
    if url.path != "/weather":
        return 404, {"error": "not found"}
    city = parse_qs(url.query).get("city", [""])[0]
    try:
        answer = await agent.request(Message(type=f"{WEATHER}/ask", to=[STATION], body={"city": city}), timeout=2)
    except ProblemReportError as error:
        return 502, {"error": f"{error.code}: {error.comment}"}
    except RequestTimeout:
        return 504, {"error": "no answer in time"}
    except Layr8Error:
        return 503, {"error": "no link to the node"}
    return 200, answer.body


async def serve(agent: Client, stream: trio.SocketStream) -> None:
    """Read one request, write one response, close: enough for a service behind a proxy."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=16 * 1024)
    try:
        with trio.move_on_after(10):
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await stream.receive_some())
            if not isinstance(event, h11.Request):
                return
            status, body = await respond(agent, event.target.decode("ascii"))
            content = json.dumps(body).encode()
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(content))),
                ("Connection", "close"),
            ]
            for part in (h11.Response(status_code=status, headers=headers), h11.Data(data=content), h11.EndOfMessage()):
                await stream.send_all(http.send(part) or b"")
    except (h11.RemoteProtocolError, trio.BrokenResourceError):
        pass  # whoever it was does not speak HTTP, or has gone


async def get(app: Supervisor, path: str) -> None:
    """A browser."""
    (listener,) = app.whereis("web")  # what serve_tcp reported as started
    async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        response = b"".join([part async for part in stream])
    head, _, body = response.partition(b"\r\n\r\n")
    print(f"GET {path}: {head.split()[1].decode()} {body.decode()}")


def weather_station(node: CloudNode) -> Client:
    station = Client(config(node, STATION))

    @station.handle(f"{WEATHER}/ask")
    def ask(message: Message) -> Message:
        city = message.body["city"]
        if city not in DEGREES:
            raise ValueError("there is no such city")
        return message.reply(f"{WEATHER}/answer", {"city": city, "degrees": DEGREES[city]})

    return station


async def main() -> None:
    async with CloudNode(memory=True, channels={"plugins:": DispatchingChannel}) as node, weather_station(node):
        agent = Client(config(node, "did:web:node.test:agent"))
        web = partial(trio.serve_tcp, partial(serve, agent), 0, host="127.0.0.1")
        app = Supervisor(
            [agent.child_spec(id="agent"), ChildSpec("web", web)],
            backoff=Backoff(initial=0.2, maximum=10.0, jitter=0),
            max_restarts=5,
            max_seconds=60.0,
            name="app",
            on_event=tell,
        )
        async with app:
            await agent.connect()
            print(format_tree(app))
            for path in ("/weather?city=Oslo", "/weather?city=Atlantis", "/nothing"):
                await get(app, path)
            await agent.close()
            await get(app, "/weather?city=Oslo")
            await trio.sleep(0.5)  # the supervisor starts it again after 0.2 s
            await agent.connect()
            await get(app, "/weather?city=Oslo")


if __name__ == "__main__":
    trio.run(main)
