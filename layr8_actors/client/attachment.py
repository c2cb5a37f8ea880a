"""Attachments of DIDComm messages (DIDComm v2, section "Attachments"), read leniently and written as they were read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import InvalidBody

__all__ = ("Attachment", "parse_attachments")

_HINTS: Final = ("id", "description", "filename", "media_type", "format")


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment: hints about it, and its data in one of the ways of DIDComm v2.

    Hints are what a sender wrote: one of a wrong type is kept in ``extra`` as it came, and never costs the attachment.

    Args:
        json: the data as a JSON value, ``null`` included; unset where there is none.
        base64: the data, encoded; see :meth:`of_bytes`.
        links: where to fetch the data.
        hash: of the data behind the links (multihash).
        jws: a signature over the data, or the data itself as a compact JWS, as Layr8's credentials have it.
        id: its name within the message.
        description: for people.
        filename: that it would have on a disk.
        media_type: such as ``application/json``.
        format: that says more than the media type does.
        lastmod_time: epoch seconds; nodes send RFC 3339 text too, which is passed through.
        byte_count: of the data, mainly where it has to be fetched.
        extra: all other fields, as they came or as they shall go out.
        extra_data: those of ``data``.
    """

    json: Any | UnsetType = UNSET
    base64: str | None = None
    links: tuple[str, ...] | None = None
    hash: str | None = None
    jws: Any = None
    id: str | None = None
    description: str | None = None
    filename: str | None = None
    media_type: str | None = None
    format: str | None = None
    lastmod_time: int | str | None = None
    byte_count: int | None = None
    extra: Mapping[str, Any] = {}
    extra_data: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Attachment {self.id!r} {self.media_type!r}>"

    @classmethod
    def of_bytes(
        cls, data: bytes, *, media_type: str, id: str | None = None, filename: str | None = None
    ) -> Attachment:
        """Make an attachment of bytes.

        Args:
            data: is encoded as base64url without padding, as DIDComm v2 has it.
            media_type: what it is.
            id: its name within the message.
            filename: that it would have on a disk.
        """
        encoded = base64.urlsafe_b64encode(data).decode().rstrip("=")
        return cls(base64=encoded, media_type=media_type, id=id, filename=filename, byte_count=len(data))

    def content(self) -> bytes:
        """Return the bytes that ``base64`` holds, in either alphabet, with or without padding.

        Raises:
            InvalidBody: there is no base64, or it is none.
        """
        if self.base64 is None:
            raise InvalidBody("the attachment has no base64")
        text = self.base64.replace("+", "-").replace("/", "_").rstrip("=")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidBody(f"the attachment's base64 is none: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """Return the attachment as it goes out; what was read comes out as it came in."""
        data: dict[str, Any] = {} if self.json is UNSET else {"json": self.json}
        for name in ("base64", "hash", "jws"):
            value = getattr(self, name)
            if value is not None:
                data[name] = value
        if self.links is not None:
            data["links"] = list(self.links)
        out: dict[str, Any] = {}
        for name in (*_HINTS, "lastmod_time", "byte_count"):
            value = getattr(self, name)
            if value is not None:
                out[name] = value
        out["data"] = {**self.extra_data, **data}
        return {**self.extra, **out}


def parse_attachments(value: object) -> tuple[Attachment, ...] | str:
    """Read the attachments of a message.

    Args:
        value: of the field ``attachments``.

    Returns:
        Them, or why they cannot be read: the value is no list of objects that have an object ``data`` each.
    """
    if not isinstance(value, list):
        return "attachments is not a list"
    found: list[Attachment] = []
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            return f"attachment {number} is not an object"
        data = entry.get("data")
        if not isinstance(data, dict):
            return f"attachment {number} has no object data"
        found.append(_parse(entry, data))
    return tuple(found)


def _parse(entry: dict[str, Any], data: dict[str, Any]) -> Attachment:
    fields: dict[str, Any] = {name: entry[name] for name in _HINTS if isinstance(entry.get(name), str)}
    for name, kinds in (("lastmod_time", (int, str)), ("byte_count", (int,))):
        value = entry.get(name)
        if isinstance(value, kinds) and not isinstance(value, bool):
            fields[name] = value
    given: dict[str, Any] = {name: data[name] for name in ("base64", "hash") if isinstance(data.get(name), str)}
    if "json" in data:
        given["json"] = data["json"]
    if data.get("jws") is not None:
        given["jws"] = data["jws"]
    links = data.get("links")
    if isinstance(links, list) and all(isinstance(link, str) for link in links):
        given["links"] = tuple(links)
    return Attachment(
        **fields,
        **given,
        extra={name: value for name, value in entry.items() if name not in fields and name != "data"},
        extra_data={name: value for name, value in data.items() if name not in given},
    )
