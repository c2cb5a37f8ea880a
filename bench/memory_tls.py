"""What a channel over TLS costs that uses the system's certificates: KiB each, and the time of a connect.

    python bench/memory_tls.py [channels]

The node is in a process of its own, behind what terminates TLS. Its certificate is of an authority that is added to a
copy of the system's bundle, which the client is pointed at by SSL_CERT_FILE: so the client loads as much as any does.
The channels are opened one after the other; the first two, which pay for imports and the shared context, do not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

import trio
import trustme
from memory import anonymous_kib

from layr8_actors import Channel, ChannelOptions
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode

NAME = "agent.localhost"


def silent(event: Event) -> None:
    """Drop an event."""


async def copy(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
    """Pass bytes on to the end of either side."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some():
            await sink.send_all(data)
    scope.cancel()


def certify(bundle: pathlib.Path) -> ssl.SSLContext:
    """Write the bundle, and return what the node terminates TLS with."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(NAME).configure_cert(context)
    system = ssl.get_default_verify_paths().cafile
    known = b"" if system is None else pathlib.Path(system).read_bytes()
    bundle.write_bytes(known + authority.cert_pem.bytes())
    return context


async def serve(context: ssl.SSLContext) -> None:
    """Print the URL, and serve until the parent closes our standard input."""
    async with CloudNode() as node, trio.open_nursery() as nursery:

        async def terminate_tls(stream: trio.SocketStream) -> None:
            secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            plain = await trio.open_tcp_stream("127.0.0.1", node.port)
            async with secure, plain, trio.open_nursery() as both:
                both.start_soon(copy, secure, plain, both.cancel_scope)
                both.start_soon(copy, plain, secure, both.cancel_scope)

        listeners = await nursery.start(trio.serve_tcp, terminate_tls, 0)
        print(f"wss://{NAME}:{listeners[0].socket.getsockname()[1]}/plugin_socket/websocket", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def measure(url: str, channels: int) -> tuple[float, float]:
    """Open channels, and return KiB each and the median of the milliseconds that a connect took."""
    walls: list[float] = []
    async with trio.open_nursery() as nursery:

        async def open_one(number: int) -> None:
            did = f"did:web:node.test:idle-{number}"
            options = ChannelOptions(ws_url=url, api_key="bench", agent_did=did, on_event=silent)
            channel = await Channel.start_link(nursery, options)
            began = time.perf_counter()
            await channel.connect(["https://didcomm.org/basicmessage/2.0"])
            walls.append(time.perf_counter() - began)

        await open_one(-2)
        await open_one(-1)
        walls.clear()
        before = anonymous_kib()
        for number in range(channels):
            await open_one(number)
        growth = anonymous_kib() - before
        nursery.cancel_scope.cancel()
    return growth / channels, statistics.median(walls) * 1000


def main() -> None:
    """Print a line."""
    if sys.argv[1:2] == ["--node"]:
        trio.run(serve, certify(pathlib.Path(sys.argv[2])))
        return
    channels = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        bundle = pathlib.Path(folder) / "bundle.pem"
        command = [sys.executable, __file__, "--node", str(bundle)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout is not None
            url = node.stdout.readline().strip()
            os.environ["SSL_CERT_FILE"] = str(bundle)
            kib, milliseconds = trio.run(measure, url, channels)
    print(f"{kib:.0f} KiB per channel over TLS, of {channels}; connect and join p50 {milliseconds:.1f} ms")
    print(json.dumps({"benchmark": "memory_tls", "channels": channels, "kib": kib, "connect_ms": milliseconds}))


if __name__ == "__main__":
    main()
