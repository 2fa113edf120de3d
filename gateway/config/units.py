"""Durations and sizes as people write them in a config file: `10s`, `2m`, `512KiB`."""

from __future__ import annotations

from typing import Annotated

Duration = Annotated[float, "seconds"]
Size = Annotated[int, "bytes"]
