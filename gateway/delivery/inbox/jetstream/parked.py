"""The stored form of a parked target."""

from __future__ import annotations

import msgspec

from gateway.delivery.inbox.record import RecordError, decode, encode
from gateway.delivery.inbox.store import Parked

__all__ = ["decode_parked", "encode_parked"]

_FORM = 1


class _Form(msgspec.Struct, array_like=True):
    version: int
    record: bytes
    target: int
    reason: str
    detail: str
    parked_at: float


_decode = msgspec.msgpack.Decoder(_Form).decode


def encode_parked(parked: Parked) -> bytes:
    """Give the bytes to store."""
    return msgspec.msgpack.encode(
        _Form(
            _FORM,
            encode(parked.record),
            parked.target,
            parked.reason,
            parked.detail,
            parked.parked_at,
        )
    )


def decode_parked(stored: bytes) -> Parked:
    """Read what `encode_parked` gave. Raises `RecordError`."""
    try:
        form = _decode(stored)
    except msgspec.DecodeError as error:
        raise RecordError("not a parked target of the inbox") from error
    if form.version != _FORM:
        raise RecordError(f"a parked target of form {form.version}; this version reads {_FORM}")
    record = decode(form.record)
    return Parked(record, form.target, form.reason, form.detail, form.parked_at)
