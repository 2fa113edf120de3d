"""What routing needs of an event, so that it knows nothing of how one came to be."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.metadata import Metadata

__all__ = ["Routable"]


class Routable(Protocol):
    """What routing needs of an event; `gateway.event.Event` is one."""

    @property
    def source(self) -> str:
        """Name of the source."""
        ...

    @property
    def svix_id(self) -> str:
        """The message id."""
        ...

    @property
    def type(self) -> str | None:
        """The event type; None follows `unmatched`."""
        ...

    @property
    def key(self) -> str:
        """The default key, never empty."""
        ...

    @property
    def metadata(self) -> Metadata:
        """What goes into the headers."""
        ...

    @property
    def body(self) -> bytes:
        """The verified bytes."""
        ...

    @property
    def document(self) -> dict[str, Any]:
        """The parsed body, which expressions read."""
        ...
