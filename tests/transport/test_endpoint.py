"""URLs and endpoints: what is accepted, what it becomes, and what is never shown."""

from __future__ import annotations

import dataclasses
import ssl
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings, strategies as st

from layr8_actors.errors import InvalidOption
from layr8_actors.transport import Endpoint, Secret, normalize_url

URL = "wss://node.example.com/plugin_socket/websocket"


def make(url: str = URL, key: str = "needle-0", **options: Any) -> Endpoint:
    return Endpoint(url=url, api_key=Secret(key), **options)


@pytest.mark.parametrize(
    ("given_url", "normalized"),
    [
        (URL, URL),
        ("https://node.example.com/plugin_socket/websocket", URL),
        ("HTTPS://Node.Example.COM:443/plugin_socket/websocket", URL),
        ("http://127.0.0.1:4000/s", "ws://127.0.0.1:4000/s"),
        ("ws://node:80/s", "ws://node/s"),
        ("ws://node:443/s", "ws://node:443/s"),
        ("ws://node", "ws://node"),
        ("ws://node:/s", "ws://node/s"),
        ("ws://[::1]:4000/s", "ws://[::1]:4000/s"),
        ("ws://[0:0::1]/s", "ws://[::1]/s"),
        ("ws://bücher.example/s", "ws://xn--bcher-kva.example/s"),
        ("ws://my_node.internal./s", "ws://my_node.internal./s"),
        ("ws://node/ü/a%20b", "ws://node/%C3%BC/a%20b"),
        ("ws://node/s?", "ws://node/s"),
        ("ws://node/s?zone=1&zone=2&flag&empty=", "ws://node/s?zone=1&zone=2&flag&empty="),
        ("ws://node/s?api_key=needle&zone=ü&vsn=1.0.0", "ws://node/s?zone=%C3%BC"),
        ("ws://node/s?api%5Fkey=needle", "ws://node/s"),
        ("ws://node/s?a+pi_key=kept&x=a+b", "ws://node/s?a+pi_key=kept&x=a+b"),
    ],
)
def test_url_is_normalized_and_normalizing_again_changes_nothing(given_url: str, normalized: str) -> None:
    assert normalize_url(given_url) == normalized
    assert normalize_url(normalized) == normalized
    assert Endpoint.parse_url(given_url) == normalized


@pytest.mark.parametrize(
    "url",
    [
        "",
        "node.example.com/plugin_socket/websocket",
        "//node/s",
        "ftp://node/s",
        "wss:/node/s",
        "wss:///s",
        "wss://:4000/s",
        "wss://node/s#fragment",
        "wss://node/s#",
        "wss://needle@node/s",
        "wss://user:needle@node/s",
        "wss://node:0/s",
        "wss://node:65536/s",
        "wss://node:port/s",
        "wss://node:-1/s",
        "wss://[::1/s",
        "wss://[fe80::1%25eth0]/s",
        "wss://[v1.needle]/s",
        "wss://a..b/s",
        "wss://no<de/s",
        "wss://" + "a" * 64 + "/s",
        "wss://node/a b",
        "wss://node/s\n",
        "\twss://node/s",
        "wss://node/s?x=\x00",
        None,
        b"wss://node/s",
        3,
    ],
)
def test_url_that_is_not_allowed_names_the_option_and_shows_no_value(url: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        normalize_url(url)
    assert caught.value.option == "ws_url"
    assert caught.value.value_type == type(url).__name__
    assert "needle" not in str(caught.value)
    # The frame that raised no longer holds the URL, so that a traceback with locals cannot show its query.
    traceback = caught.value.__traceback__
    assert traceback is not None
    assert traceback.tb_next is not None
    assert "ws_url" not in traceback.tb_next.tb_frame.f_locals


@given(url=st.text(max_size=60) | st.from_regex(r"(ws|http)s?://[^\s]{0,40}", fullmatch=True))
@settings(max_examples=200)
def test_any_text_is_a_usable_url_or_an_invalid_option(url: str) -> None:
    try:
        normalized = normalize_url(url)
    except InvalidOption:
        return
    endpoint = make(normalized)
    assert normalize_url(normalized) == normalized
    assert endpoint.url == normalized
    assert 1 <= endpoint.port <= 65535
    assert endpoint.host
    target = endpoint.request_target().reveal()
    assert target.startswith("/")
    assert target.isascii()
    assert not set(target) & set(" \t\r\n#")
    assert endpoint.host_header.isascii()


@given(key=st.text(min_size=1, max_size=30).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
@settings(max_examples=100)
def test_any_key_survives_the_query(key: str) -> None:
    target = make("ws://node/s?zone=a%20b", key).request_target().reveal()
    assert parse_qsl(urlsplit(target).query, keep_blank_values=True) == [
        ("zone", "a b"),
        ("api_key", key),
        ("vsn", "2.0.0"),
    ]


def test_parts_of_an_endpoint() -> None:
    endpoint = make("wss://node.example.com/plugin_socket/websocket?zone=1")
    assert (endpoint.host, endpoint.port, endpoint.tls) == ("node.example.com", 443, True)
    assert endpoint.host_header == "node.example.com"
    assert endpoint.public_url == URL
    assert endpoint.path == "/plugin_socket/websocket"
    assert endpoint.dial_host == "node.example.com"
    plain = make("ws://[::1]:4000")
    assert (plain.host, plain.port, plain.tls, plain.path) == ("::1", 4000, False, "/")
    assert plain.host_header == "[::1]:4000"


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LOCALHOST", "a.localhost", "a.b.localhost."])
def test_localhost_names_are_dialled_at_127_0_0_1_under_their_own_name(host: str) -> None:
    endpoint = make(f"wss://{host}:4000/s")
    assert endpoint.dial_host == "127.0.0.1"
    assert endpoint.host == host.lower()
    assert endpoint.host_header == f"{host.lower()}:4000"


@pytest.mark.parametrize("host", ["localhost.example", "notlocalhost", "mylocalhost.test"])
def test_names_that_only_look_like_localhost_are_resolved(host: str) -> None:
    assert make(f"ws://{host}/s").dial_host == host


def test_header_carries_the_key_and_the_query_only_the_version() -> None:
    endpoint = make("ws://node/s?api_key=old", auth="header")
    assert endpoint.request_target().reveal() == "/s?vsn=2.0.0"
    assert [(name, value.reveal()) for name, value in endpoint.auth_headers()] == [("x-api-key", "needle-0")]
    assert make().auth_headers() == ()


@pytest.mark.parametrize("key", ["needle\r\nx-evil: 1", "needle ü", " needle", "needle ", "needle\x7f"])
def test_key_that_no_header_can_carry_is_refused_for_the_header_only(key: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        make(key=key, auth="header")
    assert caught.value.option == "api_key"
    assert "needle" not in str(caught.value)
    assert make(key=key, auth="query").api_key.reveal() == key


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"url": "ftp://x"}, "ws_url"),
        ({"api_key": "needle-plain"}, "api_key"),
        ({"api_key": Secret("")}, "api_key"),
        ({"auth": "both"}, "auth"),
        ({"ssl_context": True}, "ssl_context"),
        ({"max_message_size": 0}, "max_message_size"),
        ({"max_message_size": True}, "max_message_size"),
        ({"max_message_size": 1.5}, "max_message_size"),
        ({"open_timeout": 0}, "open_timeout"),
        ({"open_timeout": float("nan")}, "open_timeout"),
        ({"open_timeout": "10"}, "open_timeout"),
        ({"open_timeout": True}, "open_timeout"),
    ],
)
def test_field_that_is_not_allowed_is_named_and_not_shown(options: dict[str, Any], option: str) -> None:
    arguments: dict[str, Any] = {"url": URL, "api_key": Secret("needle-0"), **options}
    with pytest.raises(InvalidOption) as caught:
        Endpoint(**arguments)
    assert caught.value.option == option
    assert "needle" not in str(caught.value)


def test_endpoint_shows_neither_key_nor_query() -> None:
    endpoint = make(URL + "?token=needle-1&api_key=needle-2", ssl_context=ssl.create_default_context())
    for text in (repr(endpoint), str(endpoint), f"{endpoint}", repr([endpoint]), endpoint.public_url):
        assert "needle" not in text
        assert URL in text
    with pytest.raises(dataclasses.FrozenInstanceError):
        endpoint.url = "x"  # type: ignore[misc]


def test_redact_removes_the_key_plain_and_escaped() -> None:
    endpoint = make(key="needle/ ü")
    assert endpoint.redact("a needle/ ü b needle%2F%20%C3%BC c needle/%20%C3%BC d") == "a *** b *** c *** d"
    assert make(key="k").redact("a key") == "a key"
