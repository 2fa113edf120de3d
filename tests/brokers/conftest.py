"""Which event loop the contract suite runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

pytest.register_assert_rewrite(
    "tests.brokers.contract", "tests.brokers.contract_outage", "tests.brokers.harness"
)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run a test class that says `on_uvloop = True` on the loop that the gateway serves on."""
    owner = getattr(item, "cls", None)
    if getattr(owner, "on_uvloop", False):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
