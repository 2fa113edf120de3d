"""Gateways for the tests: started when asked for, read and ended with the test or the module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import GatewayProcess

Start = Callable[..., GatewayProcess]


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Start]:
    """Prepare gateways of the test's own, started unless `start=False`: `gateways(config)`."""
    yield from _gateways(tmp_path)


@pytest.fixture(scope="module")
def module_gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Prepare gateways that the tests of one module share."""
    yield from _gateways(tmp_path_factory.mktemp("gateways"))


def _gateways(directory: Path) -> Iterator[Start]:
    made: list[GatewayProcess] = []

    def prepare(config: dict[str, Any], workers: int = 1, *, start: bool = True) -> GatewayProcess:
        gateway = GatewayProcess(directory / f"gateway-{len(made)}", config, workers)
        made.append(gateway)
        if start:
            gateway.start()
        return gateway

    yield prepare
    try:
        for gateway in made:
            gateway.end()
    finally:
        for gateway in made:
            gateway.kill()
