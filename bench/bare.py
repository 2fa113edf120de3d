"""The yardstick: an application that reads the body and answers; nothing can cost less."""

from __future__ import annotations

from typing import Any

BODY = b'{"status":"delivered"}'


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with 200."""
    assert scope["type"] == "http"
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"22")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
