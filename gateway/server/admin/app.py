"""What the admin port serves, on Litestar, behind its guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Litestar, Request, Response, get
from litestar.exceptions import HTTPException
from pydantic import SecretStr

from gateway import GatewayError
from gateway.address import parse_address
from gateway.observability.admin import AdminRecorder
from gateway.server.admin.admission import Admission
from gateway.server.admin.guard import Guard
from gateway.server.admin.throttle import Throttle

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler

__all__ = ["AdminSource", "UnguardedError", "admin_app", "assert_guarded"]


class AdminSource(msgspec.Struct, frozen=True):
    """What the port shows, and to whom."""

    readiness: Callable[[], tuple[int, Mapping[str, Any]]]
    metrics: Callable[[], bytes]
    token: Callable[[], SecretStr]
    """The one that counts now. Empty: none is asked for; the config allows that on loopback."""
    metrics_public: bool


class UnguardedError(GatewayError):
    """The admin port would be open to other machines without a token."""

    def __init__(self, host: str, address: str) -> None:
        self.host = host
        self.address = address
        super().__init__(
            f"the admin port would listen on {address} (admin.host: {host}), which other machines"
            " may reach, without a token; set admin.token, or write admin.host: 127.0.0.1"
        )


def assert_guarded(host: str, address: str, token: SecretStr) -> None:
    """Refuse to open the port to others without a token. Raises `UnguardedError`.

    The config's rules have looked at `host`; this looks at the address that it was resolved to.
    """
    bound = parse_address(address)
    if not token.get_secret_value() and (bound is None or not bound.is_loopback):
        raise UnguardedError(host, address)


def admin_app(
    source: AdminSource,
    recorder: AdminRecorder,
    more: Sequence[ControllerRouterHandler] = (),
) -> Guard:
    """Make the application; `more` are further routes, which the guard locks like any other."""

    @get("/livez", sync_to_thread=False)
    def livez() -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[Mapping[str, Any]]:
        status, body = source.readiness()
        return Response(body, status_code=status)

    @get("/metrics", sync_to_thread=False)
    def metrics() -> Response[bytes]:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(source.metrics(), media_type=kind)

    def failed(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, str]]:
        recorder.failure(error)
        return Response({"error": "internal"}, status_code=500)

    routes = Litestar(
        route_handlers=[livez, readyz, metrics, *more],
        openapi_config=None,
        logging_config=None,
        exception_handlers={HTTPException: _refuse, Exception: failed},
    )
    public = {"/livez", "/readyz"} | ({"/metrics"} if source.metrics_public else set())
    return Guard(routes, Admission(source.token, public, Throttle()), recorder)


def _refuse(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, str]]:
    words = {404: "not found", 405: "method not allowed"}.get(error.status_code, "refused")
    headers = {"allow": _allowed(request)} if error.status_code == 405 else {}
    return Response({"error": words}, status_code=error.status_code, headers=headers)


def _allowed(request: Request[Any, Any, Any]) -> str:
    """Name the methods of a path, for a 405 (RFC 9110, 15.5.6). GET brings HEAD with it."""
    routes = (route for route in request.app.routes if route.path == request.url.path)
    methods = {method for route in routes for method in getattr(route, "methods", ())}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
