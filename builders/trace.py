"""Reads BuildKit's progress records, which the engine sends as protocol buffers.

Only four fields are wanted of `moby.buildkit.v1.StatusResponse` (api/services/control/control.proto
of github.com/moby/buildkit): too few to carry generated code for.
"""

from __future__ import annotations

from collections.abc import Iterator

_VERTEX, _LOG = 1, 3
_NAME, _COMPLETED, _ERROR, _MESSAGE = 3, 6, 7, 4


def lines_of(record: bytes) -> Iterator[str]:
    """The lines of one record: steps that ended, and what commands wrote."""
    for number, value in _fields(record):
        if number not in (_VERTEX, _LOG):
            continue
        found = dict(_fields(value))
        if number == _LOG:
            yield from found.get(_MESSAGE, b"").decode(errors="replace").splitlines()
        elif _ERROR in found or _COMPLETED in found:
            name = found.get(_NAME, b"").decode(errors="replace")
            error = found.get(_ERROR, b"").decode(errors="replace")
            yield name
            if error:
                yield f"ERROR: {error}"


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each length-delimited field; the other wire types are passed over."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == 2:
            length, at = _varint(data, at)
            yield key >> 3, data[at : at + length]
            at += length
        else:
            at += 8 if wire == 1 else 4


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at
