"""The admin port: health and metrics for the whole process tree, on Litestar."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Request, Response, get
from litestar.exceptions import HTTPException
from pydantic import SecretStr

__all__ = ["AdminSource", "admin_app"]

_SAFE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class AdminSource(msgspec.Struct, frozen=True):
    """What the port shows, and to whom."""

    readiness: Callable[[], tuple[int, Mapping[str, Any]]]
    metrics: Callable[[], bytes]
    token: SecretStr
    """Empty: none is asked for; the config allows that on loopback only."""
    metrics_public: bool


def admin_app(source: AdminSource) -> Litestar:
    """Make the application. `/livez` and `/readyz` need no token."""

    @get("/livez", sync_to_thread=False)
    def livez() -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[Mapping[str, Any]]:
        status, body = source.readiness()
        return Response(body, status_code=status)

    @get("/metrics", sync_to_thread=False)
    def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        if not source.metrics_public and not _holds_token(request, source.token):
            return _unauthorized()
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(source.metrics(), media_type=kind)

    return Litestar(
        route_handlers=[livez, readyz, metrics],
        openapi_config=None,
        logging_config=None,
        response_headers=_SAFE,
        exception_handlers={HTTPException: _refuse},
    )


def _holds_token(request: Request[Any, Any, Any], token: SecretStr) -> bool:
    if not token:
        return True
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token.get_secret_value()}".encode())


def _unauthorized() -> Response[bytes]:
    body = b'{"error":"a bearer token is needed: admin.token in the config"}'
    headers = {"www-authenticate": "Bearer"}
    return Response(body, status_code=401, headers=headers, media_type=MediaType.JSON)


def _refuse(_: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, str]]:
    words = {404: "not found", 405: "method not allowed"}.get(error.status_code, "refused")
    return Response({"error": words}, status_code=error.status_code, headers=_SAFE)
