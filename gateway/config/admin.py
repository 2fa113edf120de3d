"""The shape of the config's `admin` section."""

from __future__ import annotations

from pydantic import Field, SecretStr

from gateway.config.base import Model
from gateway.config.fields import AdminToken, NonEmpty

__all__ = ["AdminConfig"]


class AdminConfig(Model):
    """Health and metrics, one port for the whole process tree."""

    host: NonEmpty = Field(
        default="127.0.0.1",
        description=(
            "The address to listen on. Default: this machine only. Anything else needs `token`."
        ),
        examples=["0.0.0.0"],
    )
    port: int = Field(
        default=9090,
        ge=0,
        le=65_535,
        description="The port to listen on; 0 takes any free one.",
        examples=[9090],
    )
    token: AdminToken = Field(
        default=SecretStr(""),
        description=(
            "The bearer token of everything but `/livez` and `/readyz`, at least 16 characters:"
            " `openssl rand -hex 32` makes one. Empty: no token, and the port listens on this"
            " machine only, for names and addresses of this machine."
        ),
        examples=["${GATEWAY_ADMIN_TOKEN:-}"],
    )
    metrics_public: bool = Field(
        default=False,
        description="Serve `/metrics` without the token, for a scraper that cannot send one.",
        examples=[True],
    )
