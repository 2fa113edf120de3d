"""Signing secrets outside of `sources.*.secrets`: in a name, a path, a topic, a key, a header.

All of those are logged, counted or sent to consumers. Fields that may hold a secret are typed
`SecretStr`, so whatever else looks like one is in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel

from gateway.config.findings import Finding
from gateway.config.names import name_of
from gateway.config.problems import DocumentPath

__all__ = ["misplaced_secrets", "without_secrets"]

_SIGNING_SECRET: Final = re.compile(r"whsec_[A-Za-z0-9+/=_-]{8,}")


def misplaced_secrets(value: Any, path: DocumentPath = ()) -> Iterator[Finding]:
    """Find them in a config, as errors; the messages do not repeat them."""
    # As one text, which pydantic makes fast and without the secrets that are where they should be.
    if isinstance(value, BaseModel) and "whsec_" not in value.model_dump_json():
        return
    pending = [(value, path)]
    while pending:
        value, path = pending.pop()
        if isinstance(value, str):
            if _SIGNING_SECRET.search(value):
                problem = "a signing secret stands here, from where it would be logged or sent on"
                advice = "move it to the secrets of its source"
                yield Finding(path, f"{name_of(path)}: {problem}; {advice}")
        elif isinstance(value, BaseModel):
            pending += [(inner, (*path, name)) for name, inner in value]
        elif isinstance(value, dict):
            for key, inner in value.items():
                pending += [(key, (*path, key)), (inner, (*path, key))]
        elif isinstance(value, tuple):
            pending += [(inner, (*path, at)) for at, inner in enumerate(value)]


def without_secrets(message: str) -> str:
    """Blot signing secrets out of a message that quotes a name or a value of the file."""
    return _SIGNING_SECRET.sub("whsec_…", message)
