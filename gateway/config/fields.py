"""The kinds of text that config fields hold, each with its check.

No check repeats the value it refuses: it may be a secret, or come from the environment. What an
editor is told is as much of the check as a regular expression can say, and refuses nothing that
the check takes.
"""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr, WithJsonSchema

from gateway.address import parse_network
from gateway.config.names import closest
from gateway.config.refusal import refusal
from gateway.signature import SecretError, decode_secret
from gateway.svix import addresses as svix_addresses

__all__ = [
    "AdminToken",
    "Cidr",
    "FieldPath",
    "FilePath",
    "Name",
    "NonEmpty",
    "Password",
    "SenderNetwork",
    "SigningSecret",
    "StreamName",
    "UriReference",
    "UrlPath",
]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_URL_PATH: Final = re.compile(r"/[!-~]*")
_ADMIN_TOKEN: Final = re.compile(r"[!-~]{16,}")
_STREAM: Final = re.compile(r"[^\s.*>/\\\x00-\x1f\x7f]{1,255}")
_FIELD_PATH: Final = re.compile(r"[^\s.]+(\.[^\s.]+)*")
# RFC 3986: reserved and unreserved characters, and percent-encoded ones.
_URI: Final = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise refusal("expected a name of letters, digits, _ and -, with a letter or digit first")
    return value


def _non_empty(value: str) -> str:
    if not value.strip():
        raise refusal("must not be empty")
    return value


def _url_path(value: str) -> str:
    if not value.startswith("/"):
        raise refusal("expected a path that begins with /, such as /webhooks/clerk")
    if "?" in value or "#" in value:
        raise refusal("expected a path without ? and #; the query string is ignored anyway")
    if "%" in value or not _URL_PATH.fullmatch(value):
        raise refusal("expected a path of visible ASCII characters, none of them %-encoded")
    return value


def _cidr(value: str) -> str:
    try:
        parse_network(value)
    except ValueError:
        raise refusal("expected a CIDR such as 10.0.0.0/8, or one IP address") from None
    return value


def _sender_network(value: str) -> str:
    known = svix_addresses.names()
    if value in known:
        return value
    try:
        parse_network(value)
    except ValueError:
        near = closest(value, known)
        choice = f"did you mean {near}?" if near is not None else f"names are {', '.join(known)}"
        raise refusal(
            "expected a CIDR such as 10.0.0.0/8, one IP address, or a name for the addresses of"
            f" Svix; {choice}"
        ) from None
    return value


def _uri_reference(value: str) -> str:
    if not _URI.fullmatch(value) or value.count("#") > 1:
        raise refusal("expected a URI or a relative reference such as clerk/main (RFC 3986)")
    before, colon, _ = re.split(r"[/?#]", value, maxsplit=1)[0].partition(":")
    if colon and not _SCHEME.fullmatch(before):
        raise refusal("what stands before the first colon must be a scheme, such as urn: or https:")
    try:
        urlsplit(value)
    except ValueError:
        raise refusal("expected a URI; the part between // and / is not a host") from None
    return value


def _signing_secret(value: SecretStr) -> SecretStr:
    secret = SecretStr(value.get_secret_value().strip().removeprefix("v1,"))
    try:
        decode_secret(secret)
    except SecretError as error:
        raise refusal(
            f"this signing secret {error.problem}; copy it from the endpoint's page in the"
            " dashboard: whsec_ and base64"
        ) from None
    return secret


def _password(value: SecretStr) -> SecretStr:
    if not value.get_secret_value():
        raise refusal("must not be empty")
    return value


def _admin_token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and not _ADMIN_TOKEN.fullmatch(text):
        raise refusal(
            "admin.token has at least 16 characters, visible ASCII without spaces; make one with:"
            " openssl rand -hex 32"
        )
    return value


def _stream_name(value: str) -> str:
    if not _STREAM.fullmatch(value):
        raise refusal("expected a stream name without spaces, dots, *, > and slashes")
    return value


def _field_path(value: str) -> str:
    if not _FIELD_PATH.fullmatch(value):
        raise refusal("expected a dotted path into the event, such as data.private_metadata")
    return value


def _told(pattern: str, problem: str) -> WithJsonSchema:
    """Say of a text in JSON Schema what it looks like; `problem` is what editors show.

    A secret has no `format: password` there: nothing in a file is hidden by it, and some editors
    refuse the word.
    """
    return WithJsonSchema({"type": "string", "pattern": pattern, "patternErrorMessage": problem})


_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_NETWORK: Final = (
    rf"(?:{_OCTET}(?:\.{_OCTET}){{3}}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)(?:/[0-9.]{{1,15}})?"
)
_NOT_EMPTY: Final = _told(r"\S", "Must not be empty.")
_IS_NETWORK: Final = _told(
    f"^{_NETWORK}$", "Expected a CIDR such as 10.0.0.0/8, or one IP address."
)

Name = Annotated[
    str,
    AfterValidator(_name),
    _told(
        f"^{_NAME.pattern}$",
        "Expected a name of letters, digits, _ and -, with a letter or digit first.",
    ),
]
"""What other parts of the file, metrics and headers call something."""
NonEmpty = Annotated[str, AfterValidator(_non_empty), _NOT_EMPTY]
FilePath = Annotated[str, AfterValidator(_non_empty), _NOT_EMPTY]
"""A file, relative to the directory that the gateway is started in."""
UrlPath = Annotated[
    str,
    AfterValidator(_url_path),
    _told(
        '^/[!"$&->@-~]*$',
        "Expected a path of visible ASCII characters that begins with /, without ?, # and %.",
    ),
]
Cidr = Annotated[str, AfterValidator(_cidr), _IS_NETWORK]
SenderNetwork = Annotated[
    str,
    AfterValidator(_sender_network),
    WithJsonSchema(
        {"anyOf": [_IS_NETWORK.json_schema, {"type": "string", "enum": [*svix_addresses.names()]}]}
    ),
]
"""A CIDR, one address, or `svix`, `svix:us`, ... for the addresses that Svix publishes."""
UriReference = Annotated[
    str,
    AfterValidator(_uri_reference),
    _told(
        f"^{_URI.pattern}$",
        "Expected a URI or a relative reference such as clerk/main (RFC 3986).",
    ),
]
SigningSecret = Annotated[
    SecretStr,
    AfterValidator(_signing_secret),
    # 22 characters of base64 hold the 16 bytes that a key has at least.
    _told(
        r"^\s*(?:v1,)?\s*(?:whsec_)?[A-Za-z0-9+/]{22,}={0,2}\s*$",
        "Expected a signing secret, whsec_ and base64; better, a ${...} that holds it.",
    ),
]
"""`whsec_` and base64, the base64 alone, or `v1,whsec_…`; what is kept has no `v1,`."""
Password = Annotated[SecretStr, AfterValidator(_password), _told(r"[\s\S]", "Must not be empty.")]
AdminToken = Annotated[
    SecretStr,
    AfterValidator(_admin_token),
    _told(
        f"^(?:{_ADMIN_TOKEN.pattern})?$",
        "Expected at least 16 visible ASCII characters without spaces, or nothing.",
    ),
]
"""Empty: there is none."""
StreamName = Annotated[
    str,
    AfterValidator(_stream_name),
    _told(f"^{_STREAM.pattern}$", "Expected a stream name without spaces, dots, *, > and slashes."),
]
FieldPath = Annotated[
    str,
    AfterValidator(_field_path),
    _told(
        f"^{_FIELD_PATH.pattern}$",
        "Expected a dotted path into the event, such as data.private_metadata.",
    ),
]
