"""The recipes of `examples/`: each config, and the tests beside it, for who runs them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.clerk.changes import assign, remove
from gateway.clerk.samples import sample
from gateway.testing.models import Case, TestsFile
from tests.canaries import OTHER_SECRET, SECRET

ROOT = Path(__file__).parents[1]
SECRETS = {
    "CLERK_WEBHOOK_SIGNING_SECRET": SECRET,
    "CLERK_BILLING_SIGNING_SECRET": OTHER_SECRET,
}
"""What the environment must have, so that a recipe's config can be loaded."""
_NOW_MS = 1_767_225_600_000


@dataclass(frozen=True)
class Example:
    """One config of `examples/`."""

    config: Path

    @property
    def name(self) -> str:
        """How it is told from the others, and from the root of the repository."""
        return self.config.relative_to(ROOT).as_posix()

    @property
    def tests(self) -> Path:
        """The file of its tests."""
        return self.config.with_name(f"{self.config.stem}.tests.yaml")

    def content(self) -> dict[str, Any]:
        """Give what the config says, with nothing interpolated."""
        content: dict[str, Any] = yaml.safe_load(self.config.read_text())
        return content

    def cases(self) -> list[tuple[Case, bytes]]:
        """Give each of its tests with the body of its event."""
        content = yaml.safe_load(self.tests.read_text())
        cases = TestsFile.model_validate_json(json.dumps(content)).tests
        return [(case, _body(case)) for case in cases]


def _body(case: Case) -> bytes:
    assert case.event is not None, "the recipes name the types of their events"
    event: dict[str, Any] = json.loads(sample(case.event, _NOW_MS))
    for path, value in case.set.items():
        assign(event, path, value)
    for path in case.unset:
        remove(event, path)
    return json.dumps(event).encode()


EXAMPLES = [
    Example(path)
    for path in sorted((ROOT / "examples").glob("*/*.yaml"))
    if not path.name.endswith(".tests.yaml")
]
