"""The fields of a binary message of Phoenix Channels V2: read with their lengths checked, and written.

The layouts (``lib/phoenix/socket/serializers/v2_json_serializer.ex``) start with a kind byte and one length byte for
each field, of UTF-8 bytes; then the fields; then the data::

    push, client to server   0  join_ref ref topic event   data
    push, server to client   0  join_ref     topic event   data
    reply                    1  join_ref ref topic status  data
    broadcast                2               topic event   data
"""

from __future__ import annotations

from typing import Any, Final

from layr8_actors.errors import LocalProtocolError, MalformedFrame

__all__ = ("read_fields", "write_fields")

_MAX_FIELD: Final = 255  # What one length byte can say.


def read_fields(data: bytes, names: tuple[str, ...]) -> tuple[list[str], bytes]:
    """Return the fields and the data of a binary message, whose lengths stand in its bytes after the first."""
    position = 1 + len(names)
    if len(data) < position:
        raise MalformedFrame(f"a binary message of {len(data)} bytes; kind {data[0]} has a header of {position}")
    fields = []
    for index, name in enumerate(names, 1):
        end = position + data[index]
        if end > len(data):
            raise MalformedFrame(f"a binary message cut short: {name} ends at byte {end}, the message at {len(data)}")
        field = _decoded(data[position:end])
        if field is None:
            raise MalformedFrame(f"a binary message whose {name} is not UTF-8")
        fields.append(field)
        position = end
    return fields, data[position:]


def _decoded(field: bytes) -> str | None:
    # In a frame of its own: `from None` hides an exception's context, but keeps it, and with it what the peer sent.
    try:
        return field.decode()
    except UnicodeDecodeError:
        return None


def _encoded(field: str) -> bytes | None:
    try:
        return field.encode()
    except UnicodeEncodeError:
        return None


def write_fields(kind: int, names: tuple[str, ...], values: tuple[str | int | None, ...], payload: Any) -> bytes:
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise LocalProtocolError(f"the payload of a binary message has to be bytes, not {type(payload).__name__}")
    fields: list[bytes] = []
    for name, value in zip(names, values, strict=True):
        # Phoenix writes a null ref as the empty string and an integer as its digits.
        field = b"" if value is None else _encoded(str(value))
        if field is None:
            raise LocalProtocolError(f"{name} has a lone surrogate, which UTF-8 cannot carry")
        if len(field) > _MAX_FIELD:
            raise LocalProtocolError(
                f"{name} has {len(field)} bytes of UTF-8; a binary message has room for {_MAX_FIELD}"
            )
        fields.append(field)
    return b"".join((bytes((kind, *map(len, fields))), *fields, payload))
