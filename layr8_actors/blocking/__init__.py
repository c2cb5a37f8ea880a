"""Layr8.Client for scripts and threads: the same names, errors and timeouts, without async.

In short::

    client = Client(ClientConfig(node_url=..., api_key=..., agent_did=...))

    @client.handle("https://didcomm.org/basicmessage/2.0/message")
    def on_basic(message: Message) -> Message | Pass | None: ...  # in a worker thread; async functions in the loop

    with client:                                  # or client.connect() and client.close()
        response = client.request(Message(...), timeout=30)
        client.wait()                             # until Ctrl-C, close, or the client's own end

    client = Client(config, durable=SqliteStore("agent.db"))    # which connect opens, and close closes
    client.send_durably(Message(...))
    joined = client.join_did(did, DidHandlers())  # those of layr8_actors.client; joined.send, .request, .leave
"""

from .client import Client as Client
from .joined_did import JoinedDid as JoinedDid
