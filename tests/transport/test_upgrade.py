"""The answer to the upgrade: what is accepted without asking the library is what the library accepts."""

from __future__ import annotations

from hypothesis import given, strategies as st
from websockets.client import ClientProtocol
from websockets.protocol import State

from layr8_actors.transport.framing import NODE, SILENT
from layr8_actors.transport.websockets import why_no_handshake

HEADERS = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
FURTHER = [
    b"upgrade: WebSocket",
    b"Upgrade: h2c",
    b"Connection: keep-alive, Upgrade",
    b"Connection: close",
    b"Sec-WebSocket-Accept: S3PPLMBiTxaQ9kYGzzhZRbK+xOo=",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"Sec-WebSocket-Protocol: chat",
    b"Transfer-Encoding: chunked",
    b"Content-Length: 5",
    b"server: Cowboy",
    b"x: y\x00",
    b"x",
    b"",
    b"x y: z",
    b" folded: line",
    b"x: " + b"y" * 9000,
]


orders = st.permutations(HEADERS).flatmap(
    lambda headers: st.lists(st.sampled_from(FURTHER), max_size=3).map(lambda more: [*more[:1], *headers, *more[1:]])
)
statuses = st.sampled_from([b"101 Switching Protocols"] * 3 + [b"101 ", b"101", b"200 OK"])


@given(orders, st.sampled_from([None, None, *HEADERS]), statuses)
def test_answer_that_is_accepted_at_sight_is_one_that_the_library_accepts(
    headers: list[bytes], left_out: bytes | None, status: bytes
) -> None:
    lines = [header for header in headers if header != left_out]
    head = b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", b""])
    head = head[: head.index(b"\r\n\r\n") + 4]
    library = ClientProtocol(NODE, logger=SILENT)
    library.key = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
    library.receive_data(head)
    accepted = library.state is State.OPEN
    assert (why_no_handshake(head, library.key) is None) == accepted


def test_handshake_of_the_rfc_is_accepted() -> None:
    head = b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", *HEADERS, b"", b""])
    assert why_no_handshake(head, "dGhlIHNhbXBsZSBub25jZQ==") is None
    assert "Accept" in str(why_no_handshake(head, "AAAAIHNhbXBsZSBub25jZQ=="))
