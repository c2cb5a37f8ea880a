"""Layr8.Client for scripts and threads: the same names, errors and timeouts, without async.

In short::

    client = Client(ClientConfig(node_url=..., api_key=..., agent_did=...))

    @client.handle("https://didcomm.org/basicmessage/2.0/message")
    def on_basic(message: Message) -> Message | Pass | None: ...  # in a worker thread; async functions in the loop

    with client:                                  # or client.connect() and client.close()
        response = client.request(Message(...), timeout=30)
        client.wait()                             # until Ctrl-C, close, or the client's own end
"""

from .client import Client as Client
