"""A row of the table of hostile requests, and the genuine request that rows are made from."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.canaries import SECRET
from tests.e2e.client import event, new_id
from tests.e2e.gateway_process import PATH

KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
MAX_BODY = 128 * 1024
"""`server.max_body` of the gateway that gets the requests."""

Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class Request:
    """One request taken apart, genuine as `genuine()` gives it.

    Every method gives a changed copy. None of them signs anew unless it says so, so that a
    change is a forgery; `Content-Length` follows the body.
    """

    body: bytes
    headers: tuple[Header, ...]
    """All but `Content-Length`, in order, as they go on the wire."""
    line: bytes = f"POST {PATH} HTTP/1.1".encode()
    length: tuple[Header, ...] | None = field(default=None)
    """What stands for `Content-Length`; None for the true one."""

    def raw(self) -> bytes:
        """Give the bytes on the wire."""
        true_length = ((b"Content-Length", b"%d" % len(self.body)),)
        pairs = (*self.headers, *(true_length if self.length is None else self.length))
        lines = [self.line, *(name + b": " + value for name, value in pairs)]
        return b"\r\n".join([*lines, b"", self.body])

    def value(self, name: str) -> bytes:
        """Give the value of a header."""
        return next(value for known, value in self.headers if known == name.encode())

    def set(self, name: str, value: bytes) -> Request:
        """Replace a header's value."""
        key = name.encode()
        return self._with(*((k, value if k == key else v) for k, v in self.headers))

    def add(self, name: str | bytes, value: bytes) -> Request:
        """Append a header."""
        return self._with(*self.headers, (name.encode() if isinstance(name, str) else name, value))

    def first(self, name: str, value: bytes) -> Request:
        """Put a header before all others."""
        return self._with((name.encode(), value), *self.headers)

    def drop(self, *names: str) -> Request:
        """Leave headers out."""
        gone = {name.encode() for name in names}
        return self._with(*((k, v) for k, v in self.headers if k not in gone))

    def rename(self, change: Callable[[bytes], bytes], part: bytes = b"svix-") -> Request:
        """Change the names of the headers that begin with `part`."""
        return self._with(*((change(k) if k.startswith(part) else k, v) for k, v in self.headers))

    def to(self, line: bytes) -> Request:
        """Replace the request line."""
        return dataclasses.replace(self, line=line)

    def carry(self, body: bytes) -> Request:
        """Replace the body, and not the signature."""
        return dataclasses.replace(self, body=body)

    def sized(self, *lengths: bytes) -> Request:
        """Replace `Content-Length` by as many as there are values."""
        return dataclasses.replace(self, length=tuple((b"Content-Length", v) for v in lengths))

    def chunked(self, wire: bytes | None = None, coding: bytes = b"chunked") -> Request:
        """Send the body as one good chunk, or as the bytes of `wire`; without a length."""
        sent = chunk(self.body) + b"0\r\n\r\n" if wire is None else wire
        return self.sized().add("Transfer-Encoding", coding).carry(sent)

    def sign(self, value: bytes) -> Request:
        """Replace the list of signatures."""
        return self.set("svix-signature", value)

    @property
    def entry(self) -> bytes:
        """The signature as it stands: `v1,` and base64."""
        return self.value("svix-signature")

    @property
    def encoded(self) -> bytes:
        """The signature's base64."""
        return self.entry.removeprefix(b"v1,")

    @property
    def mac(self) -> bytes:
        """The signature's 32 bytes."""
        return base64.b64decode(self.encoded)

    @property
    def id(self) -> bytes:
        """`svix-id`."""
        return self.value("svix-id")

    @property
    def stamp(self) -> bytes:
        """`svix-timestamp`."""
        return self.value("svix-timestamp")

    @property
    def now(self) -> int:
        """`svix-timestamp` as a number, whatever was made of it since."""
        return int(self.stamp)

    @property
    def content(self) -> bytes:
        """What the scheme signs."""
        return self.id + b"." + self.stamp + b"." + self.body

    def signed_as(
        self, content: bytes | None = None, key: bytes = KEY, algorithm: str = "sha256"
    ) -> Request:
        """Sign by another key or algorithm, or what is not the scheme's content."""
        digest = hmac.digest(key, self.content if content is None else content, algorithm)
        return self.sign(v1(digest))

    def genuinely(
        self,
        *,
        svix_id: bytes | None = None,
        stamp: bytes | None = None,
        body: bytes | None = None,
    ) -> Request:
        """Replace id, timestamp or body, and sign it with the real key as the scheme has it."""
        changed = self.carry(self.body if body is None else body)
        changed = changed.set("svix-id", self.id if svix_id is None else svix_id)
        return changed.set("svix-timestamp", self.stamp if stamp is None else stamp).signed_as()

    def where(self, is_so: Callable[[Request], bool]) -> Request:
        """Sign under new ids until the signature is one that the row needs."""
        changed = self
        while not is_so(changed):
            changed = changed.genuinely(svix_id=new_id().encode())
        return changed

    def _with(self, *headers: Header) -> Request:
        return dataclasses.replace(self, headers=headers)


@dataclass(frozen=True)
class Row:
    """One request, and the answer it must get."""

    name: str
    what: str
    """What the forger tries, in words."""
    make: Callable[[Request], Request | bytes]
    """Makes the bytes from a genuine request."""
    status: int
    reason: str
    """The bounded word, as docs/http.md has it; empty for a control row."""
    then: tuple[tuple[int, str], ...] = ()
    """Status and reason of what HTTP says is a further request in the same bytes."""

    @property
    def is_control(self) -> bool:
        """Whether it is genuine and must be published: it proves that the harness can succeed."""
        return self.status == 200

    def sent(self) -> bytes:
        """Give the bytes, made anew from a request that is genuine now."""
        made = self.make(genuine())
        return made if isinstance(made, bytes) else made.raw()


def genuine(body: bytes | None = None) -> Request:
    """Give a request that is genuine now, with an id and a body of its own."""
    body = event(nonce=secrets.token_hex(8)) if body is None else body
    headers = (
        (b"Host", b"localhost"),
        (b"Content-Type", b"application/json"),
        (b"svix-id", new_id().encode()),
        (b"svix-timestamp", b"%d" % time.time()),
        (b"svix-signature", b""),
    )
    return Request(body, headers).signed_as()


def control(name: str, what: str, make: Callable[[Request], Request | bytes]) -> Row:
    """Give a row that is genuine, however odd: 200, and published."""
    return Row(name, what, make, 200, "")


def v1(mac: bytes) -> bytes:
    """Give a list of one signature."""
    return b"v1," + base64.b64encode(mac)


def flip(mac: bytes, bit: int) -> bytes:
    """Flip one bit, counted from the first byte's highest."""
    at, shift = divmod(bit, 8)
    return mac[:at] + bytes([mac[at] ^ (128 >> shift)]) + mac[at + 1 :]


def chunk(data: bytes, size: bytes | None = None) -> bytes:
    """Give one chunk; `size` is what stands for its length."""
    return (b"%x" % len(data) if size is None else size) + b"\r\n" + data + b"\r\n"


def sha256(data: bytes) -> bytes:
    """Hash."""
    return hashlib.sha256(data).digest()
