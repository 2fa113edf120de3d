"""The way of an event runs one way: each step imports only what comes after it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gateway"

WAY = (
    *("cli", "commands", "server", "app", "ledgers", "inboxes"),
    *("ingress", "serving", "signature", "event", "routing", "delivery", "brokers"),
)
BESIDE = {
    *("address", "answer", "clerk", "config", "destinations"),
    *("lint", "metadata", "observability", "specimen", "svix", "testing"),
}
PURE = (
    "signature",
    "event",
    "routing",
    "metadata",
    "address",
    "answer",
    "destinations",
    "specimen",
    "lint",
)
IMPURE = {"aiokafka", "asyncio", "httpx", "litestar", "nats", "random", "socket", "time", "uvicorn"}


def modules(unit: str) -> list[Path]:
    file = PACKAGE / f"{unit}.py"
    return [file] if file.exists() else sorted((PACKAGE / unit).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, for types only or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def units(path: Path) -> set[str]:
    names = (name.split(".") for name in imported(path))
    return {name[1] for name in names if name[0] == "gateway" and len(name) > 2}


@pytest.mark.parametrize("unit", WAY)
def test_each_step_imports_only_what_comes_after_it(unit: str) -> None:
    before = set(WAY[: WAY.index(unit)])
    found = {str(path.relative_to(ROOT)): units(path) & before for path in modules(unit)}
    assert found
    assert not {path: upwards for path, upwards in found.items() if upwards}


@pytest.mark.parametrize("unit", PURE)
def test_the_pure_core_has_no_clock_and_no_io(unit: str) -> None:
    found = {
        str(path.relative_to(ROOT)): {name.split(".")[0] for name in imported(path)} & IMPURE
        for path in modules(unit)
    }
    assert found
    assert not {path: impure for path, impure in found.items() if impure}


@pytest.mark.parametrize("module", ["admission", "throttle"])
def test_who_is_let_into_the_admin_port_is_decided_purely(module: str) -> None:
    path = PACKAGE / "server" / "admin" / f"{module}.py"
    assert not {name.split(".")[0] for name in imported(path)} & IMPURE


def test_every_unit_has_its_place() -> None:
    here = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    known = {*WAY, *BESIDE, "__init__", "__main__", "__pycache__", "py"}
    assert here - known <= {"py.typed"}


@pytest.mark.parametrize("kind", ["kafka", "nats"])
def test_the_brokers_have_the_same_files(kind: str) -> None:
    common = {
        "broker",
        "check",
        "connection",
        "errors",
        "letters",
        "options",
        "provision",
        "publisher",
        "tail",
    }
    assert common <= {path.stem for path in (PACKAGE / "brokers" / kind).glob("*.py")}
