"""When a connection is read from, beside a pipeline of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl

__all__ = ["Flow"]


class Flow(FlowControl):
    """Reads no further while requests wait in the pipeline.

    uvicorn asks to be read from whenever a request wants its body, and one whose body is whole
    asks as well: each that is answered would let in many more.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._pipeline:
            super().resume_reading()
