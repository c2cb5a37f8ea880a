"""Which connector a name stands for, and what all channels of a process share of it."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing

from layr8_actors.errors import ConnectFailed
from layr8_actors.transport import Endpoint, Secret, TransportName, connector_named

NAMES: list[TransportName] = ["auto", "websockets", "trio-websocket"]


async def hung_up(_host: str, _port: int) -> trio.abc.Stream:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()
    return ours


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_for_one_connector_unless_streams_are_opened_by_hand(name: TransportName) -> None:
    assert connector_named(name) is connector_named(name)
    assert connector_named(name, hung_up) is not connector_named(name, hung_up)


def test_auto_is_the_adapter_of_websockets_where_it_is_installed() -> None:
    assert connector_named("auto") is connector_named("websockets")
    assert connector_named("auto") is not connector_named("trio-websocket")


@pytest.mark.parametrize("name", NAMES)
async def test_a_connector_reads_the_systems_certificates_once(
    name: TransportName, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []
    create = ssl.create_default_context

    def counted() -> ssl.SSLContext:
        made.append(create())
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    connector = connector_named(name, hung_up)
    endpoint = Endpoint(url="wss://node.test/socket/websocket", api_key=Secret("key"))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            with pytest.raises(ConnectFailed, match="TLS handshake"):
                await connector.open(nursery, endpoint)
    assert len(made) == 1
