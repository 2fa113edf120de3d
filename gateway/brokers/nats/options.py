"""From the broker's config model to what a connection takes: addresses, TLS, login."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import re
import ssl
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import ParseResult, unquote, urlsplit

import msgspec
import nkeys
from pydantic import SecretStr

from gateway.brokers.base import BrokerOptionsError
from gateway.brokers.tls import tls_context

if TYPE_CHECKING:
    from gateway.config.models import NatsConfig

CLIENT_NAME = "clerk-event-gateway"

_PORT = 4222
_SCHEMES = ("nats", "tls")
_JWT = "NATS USER JWT"
_SEED = "USER NKEY SEED"
_BLOCK = re.compile(rf"-+BEGIN ({_JWT}|{_SEED})-+\s+(\S+)\s+-+END (?:{_JWT}|{_SEED})-+")
_ANY_LOGIN = "credentials_file, nkey_seed_file, username and password, or token"
_SEED_ERRORS = (nkeys.NkeysError, ValueError, binascii.Error)


class Server(msgspec.Struct, frozen=True):
    """One address of a server, with the login that its URL may carry."""

    host: str
    port: int
    tls: bool = False
    tls_host: str = ""
    """The name that its certificate must have; for a discovered address, the configured host."""
    username: str = ""
    password: SecretStr | None = None
    token: SecretStr | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Server({self})"


class ClientOptions(msgspec.Struct, frozen=True):
    """What every connection to one NATS system needs."""

    broker: str
    """The broker's name in the config, for messages."""
    servers: tuple[Server, ...]
    """In the order of the config."""
    tls: ssl.SSLContext | None = None
    token: SecretStr | None = None
    username: str = ""
    password: SecretStr | None = None
    credentials_file: str = ""
    nkey_seed_file: str = ""

    def __repr__(self) -> str:
        return f"ClientOptions(broker={self.broker!r}, servers={self.servers!r})"

    @property
    def login_settings(self) -> str:
        """The settings that hold the login, as words for messages; empty without a login."""
        names = [name for name in ("credentials_file", "nkey_seed_file") if getattr(self, name)]
        if not names:
            names = ["username", "password"] if self.username else []
        if self.token and "username" not in names:
            names.append("token")
        if not names and any(server.username or server.token for server in self.servers):
            names = ["servers"]
        return " and ".join(f"brokers.{self.broker}.{name}" for name in names)

    def login_problem(self) -> str:
        """What to do when a server refuses the login. Never a secret."""
        if not self.login_settings:
            return f"the server wants a login; set brokers.{self.broker}.{_ANY_LOGIN}"
        return f"the login was refused; check {self.login_settings}{self._since()}"

    def _since(self) -> str:
        """When the credentials ended, if they did: a server says no more than that it refuses."""
        if not self.credentials_file:
            return ""
        try:
            ended = _expiry(_read(self.broker, "credentials_file", self.credentials_file))
        except BrokerOptionsError:
            return ""
        if ended is None or ended > time.time():
            return ""
        return f": its JWT expired at {datetime.fromtimestamp(ended, UTC):%Y-%m-%dT%H:%M:%SZ}"

    @property
    def sent_in_the_clear(self) -> str:
        """The secret of the login that a server gets to read, in words; empty if there is none.

        Of a key it sees only a signature.
        """
        if self.credentials_file or self.nkey_seed_file:
            return "the token" if self.token else ""
        if self.username:
            return "the password"
        if self.token:
            return "the token"
        return (
            "the login in servers"
            if any(server.username or server.token for server in self.servers)
            else ""
        )

    def login(self, server: Server) -> dict[str, SecretStr]:
        """The arguments of nats-py's `connect` that prove who we are to `server`, still wrapped.

        Files are read anew each time, so that rotated credentials count at the next connect, and
        here, so that a fault in one is told with its setting. Raises `BrokerOptionsError`.
        """
        if self.credentials_file:
            credentials = _read_credentials(self.broker, self.credentials_file)
            return {"user_credentials": credentials} | self._token()
        if self.nkey_seed_file:
            setting = "nkey_seed_file"
            text = _read(self.broker, setting, self.nkey_seed_file)
            seed = SecretStr(text.get_secret_value().strip())
            _check_seed(self.broker, setting, seed)
            return {"nkeys_seed_str": seed} | self._token()
        # Not in the URL, where nats-py takes a percent sign as it stands.
        for login in (self, server):
            if login.username:
                user = SecretStr(login.username)
                return {"user": user, "password": login.password or SecretStr("")}
            if login.token:
                return {"token": login.token}
        return {}

    def _token(self) -> dict[str, SecretStr]:
        # A token may stand beside a key: auth callouts use it.
        return {"token": self.token} if self.token else {}


def client_options(broker: str, config: NatsConfig) -> ClientOptions:
    """Read what the config names and return what connections need.

    Raises `BrokerOptionsError` for a file that cannot be used or an address that is none.
    """
    if not config.servers:
        raise BrokerOptionsError(broker, "servers", "is empty; give at least one nats://host:port")
    options = ClientOptions(
        broker=broker,
        servers=tuple(parse_server(broker, server) for server in config.servers),
        tls=None if config.tls is None else tls_context(broker, config.tls),
        token=config.token,
        username=config.username or "",
        password=config.password,
        credentials_file=config.credentials_file or "",
        nkey_seed_file=config.nkey_seed_file or "",
    )
    # Once for nothing, so that a file of no use stops the start.
    options.login(options.servers[0])
    return options


def parse_server(broker: str, text: str) -> Server:
    """Parse `nats://[user:password@]host[:port]`, `tls://…` or `host[:port]`.

    Raises `BrokerOptionsError`, without the login that the text may hold.
    """
    try:
        url = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        host = port = url = None
    if url is not None and url.scheme not in _SCHEMES:
        problem = f"{url.scheme}:// is not supported; give nats://host:port or tls://host:port"
        raise BrokerOptionsError(broker, "servers", problem)
    if url is None or not host or any(map(str.isspace, text)) or url.path.strip("/") or url.query:
        raise BrokerOptionsError(broker, "servers", "holds an entry that is not nats://host:port")
    server = Server(host=host, port=port or _PORT, tls=url.scheme == "tls", tls_host=host)
    if url.username and url.password:
        password = SecretStr(unquote(url.password))
        return msgspec.structs.replace(server, username=unquote(url.username), password=password)
    # `nats://token@host`
    token = SecretStr(unquote(url.username)) if url.username else None
    return msgspec.structs.replace(server, token=token)


def servers_beside(server: Server, uris: Iterable[ParseResult]) -> Iterator[Server]:
    """The addresses that `server` told of its cluster, each with its certificate's name."""
    for uri in uris:
        with contextlib.suppress(ValueError):  # a port that is none
            if uri.hostname and uri.port:
                tls_host = server.tls_host if _is_address(uri.hostname) else uri.hostname
                yield msgspec.structs.replace(
                    server, host=uri.hostname, port=uri.port, tls_host=tls_host
                )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _read_credentials(broker: str, path: str) -> SecretStr:
    """The JWT and the seed of a credentials file of `nsc`, as strict as nats-py reads it."""
    setting = "credentials_file"
    text = _read(broker, setting, path)
    blocks = {name: SecretStr(block) for name, block in _BLOCK.findall(text.get_secret_value())}
    if set(blocks) != {_JWT, _SEED}:
        problem = f"{path} is not a credentials file with a user JWT and an nkey seed"
        raise BrokerOptionsError(broker, setting, problem)
    _check_seed(broker, setting, blocks[_SEED])
    parts = (f"-----BEGIN {name}-----\n{blocks[name].get_secret_value()}\n" for name in blocks)
    return SecretStr("".join(parts))


class _Claims(msgspec.Struct, frozen=True):
    exp: int = 0


def _expiry(credentials: SecretStr) -> int | None:
    """When a credentials file's JWT ends, in Unix seconds; None for never, or for no JWT."""
    jwt = dict(_BLOCK.findall(credentials.get_secret_value())).get(_JWT, "")
    _, _, rest = jwt.partition(".")
    claims, _, _ = rest.partition(".")
    try:
        raw = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return msgspec.json.decode(raw, type=_Claims).exp or None
    except (ValueError, msgspec.MsgspecError):
        return None


# Neither the cause of these errors nor the frames that raise them hold what was read: an error
# reporter sends both, and a `UnicodeDecodeError` carries the whole text.


def _check_seed(broker: str, setting: str, seed: SecretStr) -> None:
    if not _is_seed(seed):
        raise BrokerOptionsError(broker, setting, "holds no valid nkey seed (SU…)")


def _is_seed(seed: SecretStr) -> bool:
    try:
        nkeys.from_seed(bytearray(seed.get_secret_value().encode())).sign(b"")
    except _SEED_ERRORS:
        return False
    return True


def _read(broker: str, setting: str, path: str) -> SecretStr:
    try:
        text = _text(Path(path))
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
        raise BrokerOptionsError(broker, setting, problem) from error
    if text is None:
        raise BrokerOptionsError(broker, setting, f"{path} is not a text file")
    return text


def _text(path: Path) -> SecretStr | None:
    try:
        return SecretStr(path.read_text())
    except UnicodeDecodeError:
        return None
