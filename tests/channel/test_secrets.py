"""The API key shows in nothing that a failing program prints."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, ChannelOptions, open_channel
from layr8_actors.errors import ConnectFailed, Layr8Error
from layr8_actors.telemetry import Event, log_event

KEY = "s3cr3t-k3y/&="
QUOTED = "s3cr3t-k3y%2F%26%3D"
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


def everything_printed(error: BaseException | None) -> str:
    """What a traceback with locals shows, of our own frames and those below them."""
    text: list[str] = []
    while error is not None:
        text.append("".join(traceback.TracebackException.from_exception(error, capture_locals=False).format()))
        frame = error.__traceback__
        while frame is not None:
            if "tests/" not in frame.tb_frame.f_code.co_filename:
                text.append(repr(list(frame.tb_frame.f_locals.values())))
            frame = frame.tb_next
        error = error.__cause__ or error.__context__
    return "\n".join(text)


@pytest.mark.parametrize("auth", ["query", "header"])
@pytest.mark.parametrize("end", ["refused connection", "garbage", "hang up"])
async def test_a_failing_run_over_a_real_socket_shows_the_key_nowhere(
    caplog: pytest.LogCaptureFixture, auth: Any, end: str
) -> None:
    caplog.set_level(logging.DEBUG)
    key = KEY if auth == "query" else "s3cr3t-k3y"
    events: list[Event] = []

    def hook(event: Event) -> None:
        events.append(event)
        log_event(event)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            if end == "garbage":
                await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n" + key.encode())

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        if end == "refused connection":
            with trio.socket.socket() as unused:
                await unused.bind(("127.0.0.1", 0))
                port = unused.getsockname()[1]
        options = ChannelOptions(
            ws_url=f"ws://127.0.0.1:{port}/plugin_socket/websocket?api_key={key}",
            api_key=key,
            auth=auth,
            callbacks=Callbacks(),
            on_event=hook,
        )
        async with open_channel(options) as channel:
            with pytest.raises(ConnectFailed) as caught:
                await channel.connect(PROTOCOLS)
            shown = [
                everything_printed(caught.value),
                repr(channel),
                repr(channel.state),
                repr(channel.statistics()),
                repr(options),
                caplog.text,
                *[repr(event) for event in events],
                *[event.describe() for event in events],
                *[repr(vars(record)) for record in caplog.records],
            ]
        nursery.cancel_scope.cancel()
    assert events
    for text in shown:
        assert "s3cr3t" not in text
        assert QUOTED not in text


def test_no_error_of_the_package_takes_a_key() -> None:
    """The one place that sees the key as a str is the adapter: no exception class has a field for it."""
    for error in Layr8Error.__subclasses__():
        assert "key" not in getattr(error.__init__, "__annotations__", {})
