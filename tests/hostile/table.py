"""The whole table, by class."""

from __future__ import annotations

from tests.hostile import body, framing, header, signature, timestamp

CLASSES = {
    "signature": signature.ROWS,
    "timestamp": timestamp.ROWS,
    "header": header.ROWS,
    "body": body.ROWS,
    "framing": framing.ROWS,
}
