"""The shape of the config's `sources`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.base import Model
from gateway.config.fields import (
    NonEmpty,
    SenderNetwork,
    SigningSecret,
    UriReference,
    UrlPath,
)
from gateway.config.units import PositiveDuration

__all__ = ["SourceConfig"]


class SourceConfig(Model):
    """One sender of webhooks."""

    kind: Literal["clerk", "svix", "standard-webhooks"] = Field(
        default="clerk",
        description=(
            "Who sends: Clerk, another service that uses Svix, or one that follows Standard"
            " Webhooks. All are verified alike; `clerk` demands a `type` in the body."
        ),
        examples=["clerk"],
    )
    path: UrlPath = Field(
        default="/webhooks/clerk",
        description="The path of the URL that the webhooks are posted to. No two sources share it.",
        examples=["/webhooks/clerk"],
    )
    tolerance: PositiveDuration = Field(
        default=300.0,
        description=(
            "How old a signature may be, and how far in the future. 5m is what Svix advises; more"
            " helps nobody but a thief of old requests."
        ),
        examples=["5m"],
    )
    allow_from: tuple[SenderNetwork, ...] = Field(
        default=(),
        description=(
            "CIDRs that may send; others get 401. `svix` stands for the addresses that Svix"
            " publishes, `svix:us` for one region's. Empty: everybody who can sign. Behind a proxy"
            " set `server.trusted_proxies` too."
        ),
        examples=[["203.0.113.0/24"]],
    )
    uri: UriReference | None = Field(
        default=None,
        description=(
            "The CloudEvents `source` of its events, a URI-reference. Default: `clerk/` and the"
            " source's name. Consumers dedupe on it, so do not change it later."
        ),
        examples=["clerk/main"],
    )
    type: NonEmpty = Field(
        default="type",
        description=(
            "JMESPath that gives the event's type. For a sender that calls it otherwise than Clerk."
        ),
        examples=["event_type"],
    )
    secrets: tuple[SigningSecret, ...] = Field(
        min_length=1,
        description=(
            "The signing secrets of its endpoints; any one of them may have signed. Two while you"
            " rotate: Clerk does that with a second endpoint on the same URL."
        ),
        examples=[["${CLERK_WEBHOOK_SIGNING_SECRET}"]],
    )
    abort_permanent: bool = Field(
        default=False,
        description=(
            "Tell Svix to stop retrying a verified event that is refused for good (400 or 422)."
        ),
        examples=[True],
    )
