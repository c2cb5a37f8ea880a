"""The commands, their options, and where the options' defaults come from."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from ..channel import ChannelOptions
from ..errors import InvalidOption
from ..telemetry import Hook
from . import session
from .demo import play_demo
from .demo_screen import LiveScreen, PlainScreen
from .job import INTERRUPTED, OK, WRONG_USAGE, complain, run_job
from .local_node import serve_node

__all__ = ("run",)

URL_VARIABLE = "LAYR8_NODE_URL"
KEY_VARIABLE = "LAYR8_API_KEY"
BASIC_MESSAGE = "https://didcomm.org/basicmessage/2.0"
DEFAULT_NODE_PORT = 4000
"""Phoenix's own port in development."""

Url = Annotated[
    str | None,
    Parameter(env_var=URL_VARIABLE, help="The node's socket, such as wss://node.example.com/plugin_socket/websocket."),
]
ApiKey = Annotated[
    str | None,
    Parameter(env_var=KEY_VARIABLE, help="The API key. Prefer the variable: a command line is seen by all users."),
]
Did = Annotated[str, Parameter(help="The DID to bind; without it the node is asked for an ephemeral one.")]
Protocols = Annotated[
    list[str] | None,
    Parameter(name="--protocol", negative=(), help=f"A protocol to bind, repeatable; default {BASIC_MESSAGE}."),
]
Auth = Annotated[
    Literal["query", "header"], Parameter(help="Where the key travels: in the URL's query, or in the header x-api-key.")
]


def _package_version() -> str:
    try:
        return version("layr8-actors")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


app = App(
    name="layr8-actors",
    help="Supervised Layr8 channels: a demo, a local node, and small tools to connect, listen and send.",
    version=_package_version,
    help_format="plaintext",
)


def run(arguments: Sequence[str]) -> int:
    """Parse the arguments and run the command they name.

    Args:
        arguments: without the program's name.

    Returns:
        The exit status, 2 where the arguments are wrong.
    """
    try:
        status = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        complain(_without_keys(" ".join(str(error).split()), arguments))
        return WRONG_USAGE
    except InvalidOption as error:
        complain(str(error))
        return WRONG_USAGE
    return status if isinstance(status, int) else OK


def _without_keys(text: str, arguments: Sequence[str]) -> str:
    """A complaint about an argument quotes it; what stands where a key may stand is never quoted."""
    secrets = {os.environ.get(KEY_VARIABLE, "")}
    for index, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option.startswith("-") and "k" in option:  # a misspelt --api-key too
            secrets.add(value)
            secrets.update(arguments[index + 1 : index + 2])
    for secret in sorted(secrets, key=len, reverse=True):
        if secret and not secret.startswith("-"):
            text = text.replace(secret, "***")
    return text


def _options(
    url: str | None, api_key: str | None, did: str, auth: Literal["query", "header"], hook: Hook
) -> ChannelOptions:
    if not url:
        raise CycloptsError(msg=f"No URL: give it as the argument, or in {URL_VARIABLE}.")
    if not api_key:
        raise CycloptsError(msg=f"No API key: give --api-key, or {KEY_VARIABLE}.")
    return ChannelOptions(ws_url=url, api_key=api_key, agent_did=did, auth=auth, on_event=hook)


@app.command
def demo(*, plain: Annotated[bool, Parameter(negative=(), help="Plain lines, also on a terminal.")] = False) -> int:
    """Two agents on an embedded node over a real socket, while everything that can fail does; at most 20 s."""
    screen = PlainScreen(sys.stdout) if plain or not sys.stdout.isatty() else LiveScreen()
    return run_job(functools.partial(play_demo, screen), when_interrupted=INTERRUPTED)


@app.command
def node(
    *,
    port: Annotated[int, Parameter(help="Of 127.0.0.1; 0 for a free one.")] = DEFAULT_NODE_PORT,
    api_key: Annotated[
        list[str] | None, Parameter(negative=(), help="A key to accept, repeatable; without it any key is accepted.")
    ] = None,
) -> int:
    """Run a local Layr8 node for development until Ctrl-C; it prints its URL, joins, and messages without bodies."""
    return run_job(functools.partial(serve_node, port, api_key or ()), when_interrupted=OK)


@app.command
def connect(
    url: Url = None,
    *,
    did: Did = "",
    protocol: Protocols = None,
    api_key: ApiKey = None,
    auth: Auth = "query",
) -> int:
    """Join a node, print the DID, capabilities and state, and leave."""
    options = _options(url, api_key, did, auth, session.ignore_event)
    job = functools.partial(session.connect, options, protocol or [BASIC_MESSAGE])
    return run_job(job, when_interrupted=INTERRUPTED)


@app.command
def listen(
    url: Url = None,
    *,
    did: Did = "",
    protocol: Protocols = None,
    api_key: ApiKey = None,
    auth: Auth = "query",
) -> int:
    """Join a node and print each message as a line of JSON, and what becomes of the connection on stderr."""
    options = _options(url, api_key, did, auth, session.report_event)
    job = functools.partial(session.listen, options, protocol or [BASIC_MESSAGE])
    return run_job(job, when_interrupted=OK)


@app.command
def send(
    url: Url = None,
    *,
    to: Annotated[list[str], Parameter(negative=(), help="The DID of a recipient, repeatable.")],
    type: Annotated[str, Parameter(help="The message's type, such as https://didcomm.org/basicmessage/2.0/message.")],
    body: Annotated[str, Parameter(help="The message's body, a JSON object.")] = "{}",
    did: Did = "",
    protocol: Protocols = None,
    api_key: ApiKey = None,
    auth: Auth = "query",
) -> int:
    """Join a node, send one message, and print the node's reply as JSON; exit status 0 only for the status ok."""
    content = _json_object(body)
    protocols = protocol or [_protocol_of(type)]
    options = _options(url, api_key, did, auth, session.ignore_event)
    job = functools.partial(session.send, options, protocols, to, type, content)
    return run_job(job, when_interrupted=INTERRUPTED)


def _json_object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CycloptsError(msg='The --body is not a JSON object, such as \'{"content": "hello"}\'.')
    return content


def _protocol_of(message_type: str) -> str:
    protocol, _, name = message_type.rpartition("/")  # DIDComm: a type is its protocol's URI, a slash, and a name
    if not protocol or not name:
        raise CycloptsError(msg=f"The --type is not a message type URI, such as {BASIC_MESSAGE}/message.")
    return protocol
