"""Ways to prove to a nats-server who you are that need more than a password: nkeys and creds.

Each gives the settings of a server (`NatsServer(options=...)`) and the file that a client needs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys

from tests.canaries import remember

_UNLIMITED = -1


def nkey_access(directory: Path) -> tuple[dict[str, object], Path]:
    """Make one nkey user: the server's settings, and the file that holds the user's seed."""
    user = _key(nkeys.PREFIX_BYTE_USER)
    seed = directory / "user.nk"
    seed.write_bytes(user.seed)
    remember(f"the seed {_public(user)}", user.seed)
    return {"authorization": {"users": [{"nkey": _public(user)}]}}, seed


def creds_access(
    directory: Path, *, expired: bool = False, revoked: bool = False
) -> tuple[dict[str, object], Path]:
    """Make an operator with one account (JetStream allowed) and one user, as `nsc` does.

    Gives the server's settings and the user's credentials file, which on demand are out of date
    or no longer taken by the account. The tokens are of version 2:
    https://docs.nats.io/reference/reference-protocols/nats-jwt and github.com/nats-io/jwt.
    """
    operator, system, account, user = (
        _key(prefix)
        for prefix in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )
    storage = {"mem_storage": _UNLIMITED, "disk_storage": _UNLIMITED}
    now = int(time.time())
    account_claims = _account_claims(storage)
    if revoked:
        account_claims["revocations"] = {_public(user): now + 60}
    options: dict[str, object] = {
        "operator": _token(operator, operator, "operator", {"system_account": _public(system)}),
        "system_account": _public(system),
        "resolver": "MEMORY",
        "resolver_preload": {
            _public(system): _token(operator, system, "account", _account_claims({})),
            _public(account): _token(operator, account, "account", account_claims),
        },
    }
    limits = {"subs": _UNLIMITED, "data": _UNLIMITED, "payload": _UNLIMITED}
    credentials = directory / "user.creds"
    ends = {"exp": now - 60} if expired else {}
    token, seed = _token(account, user, "user", limits, **ends), _seed(user)
    remember(f"the user JWT of {_public(user)}", token)
    remember(f"the seed of {_public(user)}", seed)
    credentials.write_text(_CREDENTIALS.format(token, seed))
    return options, credentials


_CREDENTIALS = """\
-----BEGIN NATS USER JWT-----
{}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{}
------END USER NKEY SEED------
"""


def _account_claims(storage: dict[str, int]) -> dict[str, Any]:
    named = ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "streams", "consumer")
    limits = dict.fromkeys(named, _UNLIMITED)
    return {"limits": {**limits, "wildcards": True, **storage}}


def _token(
    issuer: nkeys.KeyPair, subject: nkeys.KeyPair, kind: str, claims: dict[str, Any], **more: int
) -> str:
    body = {
        **more,
        "iat": int(time.time()),
        "iss": _public(issuer),
        "name": kind,
        "sub": _public(subject),
        "nats": {"type": kind, "version": 2, **claims},
    }
    digest = hashlib.sha256(json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = f"{_encode(json.dumps(head).encode())}.{_encode(json.dumps(body).encode())}"
    return f"{signed}.{_encode(issuer.sign(signed.encode()))}"


def _key(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _public(key: nkeys.KeyPair) -> str:
    return str(key.public_key, "ascii")


def _seed(key: nkeys.KeyPair) -> str:
    return str(key.seed, "ascii")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
