"""Signs event bodies as Svix does and posts them: the sending half of the HTTP contract.

Importing this takes over half a second (svix), so commands import it when they need it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import socket
import ssl
import string
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr
from svix.webhooks import Webhook

from gateway import GatewayError, __version__
from gateway.commands.answers import Answer
from gateway.signature import decode_secret

__all__ = ["Poster", "UrlError"]

SVIX_TIMEOUT: Final = 15.0
"""Seconds until Svix counts a delivery as failed (https://docs.svix.com/retries)."""
_CONNECT_TIMEOUT: Final = 5.0
_MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read; the gateway's are under 4 kB."""
_KEEPALIVE: Final = 2.0
"""Seconds; well below the 5 s after which uvicorn closes an idle connection under our feet."""
_BASE62: Final = string.digits + string.ascii_letters


class UrlError(GatewayError):
    """A URL that cannot be posted to."""

    def __init__(self, url: str, problem: str) -> None:
        self.url = url
        self.problem = problem
        super().__init__(
            f"cannot post to {url}: {problem}; a URL looks like http://127.0.0.1:8080/webhooks/clerk"
        )


class Poster:
    """Posts signed bodies to one URL over kept-alive HTTP/1.1 connections.

    Use it as an async context manager. `forge` spoils every signature: it stays well-formed and
    is wrong.
    """

    def __init__(
        self, url: str, secret: SecretStr, *, forge: bool = False, connections: int = 1
    ) -> None:
        """Raise `UrlError`, or `SecretError` for a secret that a gateway would not take."""
        self.url: Final = _without_credentials(url)
        decode_secret(secret)  # svix itself takes junk in base64
        self._webhook = Webhook(secret.get_secret_value().strip())
        self._forge = forge
        self._client = _client(_host(url, self.url), self.url, connections)
        self._target = httpx.URL(url)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, tb)

    async def post(self, body: bytes) -> Answer:
        """Sign `body` under a new message id, post it, and wait up to 15 s for the answer.

        Network trouble is an answer too: `status` is then None.
        """
        svix_id = "msg_" + "".join(secrets.choice(_BASE62) for _ in range(27))
        try:
            async with asyncio.timeout(SVIX_TIMEOUT):
                status, answer = await self._exchange(self._headers(svix_id, body), body)
        except TimeoutError:
            return Answer(svix_id, None, problem=f"no answer within {SVIX_TIMEOUT:g} s")
        except httpx.ConnectTimeout:
            problem = f"no connection within {_CONNECT_TIMEOUT:g} s"
            return Answer(svix_id, None, problem=problem, unreachable=True)
        except (httpx.ConnectError, httpx.ProxyError) as error:
            return Answer(svix_id, None, problem=_reason(error), unreachable=True)
        except httpx.RequestError as error:
            return Answer(svix_id, None, problem=f"the connection was lost: {_reason(error)}")
        return Answer(svix_id, status, answer)

    def _headers(self, svix_id: str, body: bytes) -> dict[str, str]:
        now = int(time.time())
        signature = self._webhook.sign(svix_id, datetime.fromtimestamp(now, UTC), body.decode())
        return {
            "svix-id": svix_id,
            "svix-timestamp": str(now),
            "svix-signature": _spoil(signature) if self._forge else signature,
        }

    async def _exchange(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        received = bytearray()
        async with self._client.stream(
            "POST", self._target, headers=headers, content=body
        ) as response:
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) >= _MAX_ANSWER:
                    break
        return response.status_code, bytes(received[:_MAX_ANSWER])


def _host(url: str, shown: str) -> str:
    problem = "it is not http:// or https:// with a host"
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        # Without the cause, which may quote credentials out of the URL.
        raise UrlError(shown, problem) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise UrlError(shown, problem)
    return host


def _client(host: str, shown: str, connections: int) -> httpx.AsyncClient:
    try:
        return httpx.AsyncClient(
            headers={
                "content-type": "application/json",
                "user-agent": f"clerk-event-gateway/{__version__} (send)",
                # An answer that is not compressed cannot grow while it is read.
                "accept-encoding": "identity",
            },
            # The whole exchange has a limit of its own, in `post`.
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=_KEEPALIVE),
            # A proxy from the environment has no way to this machine's own ports.
            trust_env=not _is_loopback(host),
        )
    except (ValueError, ImportError, OSError) as error:
        problem = f"the environment's proxy or certificates do not work ({error})"
        raise UrlError(shown, problem) from error


def _without_credentials(url: str) -> str:
    before, found, after = url.partition("://")
    authority, slash, rest = after.partition("/")
    return f"{before}{found}{authority.rpartition('@')[2]}{slash}{rest}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _spoil(signature: str) -> str:
    version, _, encoded = signature.partition(",")
    digest = bytearray(base64.b64decode(encoded))
    digest[0] ^= 1
    return f"{version},{base64.b64encode(digest).decode()}"


def _reason(error: BaseException) -> str:
    """The operating system's own words where there are any: `Connection refused`."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return cause.strerror or "the name is not known"
        # asyncio puts a text of its own, with the address, in the place of `strerror`.
        if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
            return os.strerror(cause.errno)
    return str(error) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    for _ in range(10):
        yield error
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        following = inner or error.__cause__ or error.__context__
        if following is None:
            return
        error = following
