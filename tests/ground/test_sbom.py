"""The bill of materials names what the lock pins, with its hashes, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PIN = re.compile(
    r"^([\w.-]+)==(\S+).*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    """Give what `make sbom` writes."""
    done = subprocess.run(["make", "sbom"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    content: dict[str, Any] = json.loads((ROOT / "dist/sbom.cdx.json").read_text())
    return content


def hashes(component: dict[str, Any]) -> set[str]:
    """Give the SHA-256 sums of a component's files."""
    return {
        one["content"]
        for reference in component.get("externalReferences", ())
        for one in reference.get("hashes", ())
        if one["alg"] == "SHA-256"
    }


def test_it_is_cyclonedx_about_the_gateway(bill: dict[str, Any]) -> None:
    about = bill["metadata"]["component"]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert (about["name"], about["type"]) == ("clerk-event-gateway", "application")


def test_each_pin_of_the_lock_is_in_it_with_its_hashes(bill: dict[str, Any]) -> None:
    pinned = {
        (name, version): set(re.findall(r"sha256:([0-9a-f]{64})", sums))
        for name, version, sums in PIN.findall(LOCK)
    }
    listed = {(one["name"], one["version"]): hashes(one) for one in bill["components"]}
    assert len(pinned) == LOCK.count("==")
    assert listed == pinned


def test_each_has_an_address_that_scanners_know(bill: dict[str, Any]) -> None:
    for component in bill["components"]:
        assert component["purl"].startswith(f"pkg:pypi/{component['name']}@{component['version']}")


def test_it_is_the_same_each_time(bill: dict[str, Any]) -> None:
    subprocess.run(["make", "sbom"], cwd=ROOT, capture_output=True, check=True)
    assert json.loads((ROOT / "dist/sbom.cdx.json").read_text()) == bill
