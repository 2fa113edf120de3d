"""The other side of the HTTP contract: a sender that signs by itself, and an operator's scraper."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.canaries import CANARY, SECRET, TOKEN
from tests.e2e.gateway_process import PATH, GatewayProcess, assert_clean
from tests.outputs import OUTPUTS

PATIENCE = 40.0
Outcome = tuple[str, str, str]
"""Source, outcome, reason: the labels of `gateway_events_total`."""


def new_id() -> str:
    """Give a message id as Svix makes them."""
    return f"msg_{secrets.token_hex(12)}"


def signed(
    body: bytes, svix_id: str | None = None, timestamp: int | None = None, secret: str = SECRET
) -> dict[str, str]:
    """Give the headers of a genuine webhook, after Standard Webhooks' text and not our code."""
    svix_id = svix_id or new_id()
    at = int(time.time()) if timestamp is None else timestamp
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{svix_id}.{at}.".encode() + body, "sha256")
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"svix-id": svix_id, "svix-timestamp": str(at), "svix-signature": signature}


def event(event_type: str = "user.created", size: int = 0, **data: Any) -> bytes:
    """Give a body with the canary in it, padded to `size` bytes."""
    content = {
        "data": {"id": "user_1", "first_name": CANARY, "pad": "", **data},
        "object": "event",
        "timestamp": 1_700_000_000_123,
        "type": event_type,
    }
    content["data"]["pad"] = "x" * max(0, size - len(json.dumps(content)))  # type: ignore[index]  # it is a dict
    return json.dumps(content).encode()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Watch something outside until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, f"in {PATIENCE:g} s it did not happen: {what}"
        await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Answer:
    """What came back for a webhook, and after how many seconds."""

    status: int
    headers: httpx.Headers
    raw: bytes
    seconds: float

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the body; the contract bounds its size."""
        assert len(self.raw) < 4000
        content: dict[str, Any] = json.loads(self.raw)
        return content

    @property
    def word(self) -> tuple[int, str]:
        """The HTTP status and the body's own."""
        return self.status, self.body["status"]


class Client:
    """Posts to one gateway and reads its admin port. Use it as an async context manager."""

    def __init__(self, gateway: GatewayProcess, connections: int = 100) -> None:
        """`connections` is how many may be open; one stays with one worker."""
        self.gateway = gateway
        limits = httpx.Limits(max_connections=connections)
        # Certificates would be read for every client, and none is needed here.
        self._http = httpx.AsyncClient(trust_env=False, timeout=30, verify=False, limits=limits)  # noqa: S501

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def post(
        self,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        method: str = "POST",
        path: str = PATH,
        content: AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """Send a genuine webhook, or what the arguments make of it."""
        body = event() if body is None else body
        headers = signed(body) if headers is None else headers
        url = f"http://127.0.0.1:{self.gateway.port}{path}"
        began = time.monotonic()
        answer = await self._http.request(method, url, content=content or body, headers=headers)
        _assert_discreet(answer, method)
        return Answer(answer.status_code, answer.headers, answer.content, time.monotonic() - began)

    async def admin(self, path: str, token: str | None = TOKEN) -> httpx.Response:
        """Ask the admin port."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = await self._http.get(self.gateway.admin_url + path, headers=headers)
        OUTPUTS.gather(f"the answer to GET {path}", _whole(answer))
        return answer

    async def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Give a metric's samples by their label values, in the order of the text."""
        text = await self._metrics()
        return {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    async def counted(self) -> Counter[Outcome]:
        """Give how many requests ended how."""
        # Most of the text is histograms, and reading them would take most of the time.
        lines = (await self._metrics()).splitlines(keepends=True)
        text = "".join(line for line in lines if "gateway_events" in line)
        return Counter(
            {
                (one.labels["source"], one.labels["outcome"], one.labels["reason"]): int(one.value)
                for family in text_string_to_metric_families(text)
                for one in family.samples
                if one.name == "gateway_events_total"
            }
        )

    async def _metrics(self) -> str:
        text = (await self.admin("/metrics")).text
        assert_clean(text)
        return text

    @asynccontextmanager
    async def counting(self, *outcomes: Outcome) -> AsyncIterator[None]:
        """Assert that the block ends in exactly these outcomes, each one counted once."""
        before = await self.counted()
        yield
        expected = before + Counter(outcomes)

        async def all_counted() -> bool:
            return (await self.counted()).total() >= expected.total()

        await until(all_counted, f"{outcomes} counted")
        found = await self.counted() - before
        assert found == Counter(outcomes), f"{found} was counted"

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """Give the status and the body of `/readyz`."""
        answer = await self.admin("/readyz", None)
        return answer.status_code, answer.json()

    async def until_ready(self, status: str = "ready") -> None:
        """Wait until `/readyz` says so."""

        async def is_so() -> bool:
            return bool((await self.ready())[1]["status"] == status)

        await until(is_so, f"/readyz is {status}")

    async def until_delivered(self, body: bytes | None = None) -> Answer:
        """Post anew, as a sender's retries would, until the answer is 200."""
        deadline = time.monotonic() + PATIENCE
        while (answer := await self.post(body)).status != 200:
            assert answer.word == (503, "failed")
            assert time.monotonic() < deadline, answer.raw
            await asyncio.sleep(0.1)
        return answer


def _assert_discreet(answer: httpx.Response, method: str) -> None:
    """Assert that an answer holds nothing of the payload, and before a proof next to nothing."""
    OUTPUTS.gather(f"the answer to a {method}", _whole(answer))
    assert_clean(answer.text)
    if answer.status_code in {401, 404, 405, 408, 413} and method != "HEAD":
        assert set(answer.json()) == {"status", "error"}


def _whole(answer: httpx.Response) -> bytes:
    return repr(answer.headers.raw).encode() + b"\n" + answer.content
