"""Writes the tables of keys in docs/configuration.md and docs/testing.md.

Run it by `python tools/config_reference.py [--check]`. The models of the config and of tests files
are the source; what stands between the markers on a page is replaced. With `--check` nothing is
written, and exit code 1 says that a page is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from gateway.config.base import bare_type
from gateway.config.models import GatewayConfig, KafkaConfig, NatsConfig
from gateway.config.written import as_written
from gateway.testing.models import TestsFile

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES: dict[Path, type[BaseModel]] = {
    DOCS / "configuration.md": GatewayConfig,
    DOCS / "testing.md": TestsFile,
}
BEGIN = "<!-- reference: begin (make it with: python tools/config_reference.py) -->\n"
END = "<!-- reference: end -->\n"


def reference(root: type[BaseModel]) -> str:
    """Give the tables of a kind of file, one for each section of it."""
    sections: dict[type[BaseModel], str] = {}
    for title, model in _sections("", root):
        sections.setdefault(model, title)
    return "\n".join(_section(title, model) for model, title in sections.items())


def rewritten(page: str, root: type[BaseModel]) -> str:
    """Give the page with the tables that the models ask for."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"a page has lost its markers: {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{reference(root)}\n{END}{after}"


def _sections(title: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield title, model
    for name, field in model.model_fields.items():
        below = f"{title.partition(' (')[0]}.{name}" if title else name
        for suffix, inner in _models(field.annotation):
            yield from _sections(below + suffix, inner)


def _models(annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    """Give the models that a field holds, each with what its path has behind the field's name."""
    wanted, _ = bare_type(annotation)
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is dict:
        return [(f".<name>{suffix}", model) for suffix, model in _models(arguments[1])]
    if origin is tuple:
        return [(f"[]{suffix}", model) for suffix, model in _models(arguments[0])]
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        return [("", wanted)]
    return [
        (f" (kind: {model.model_fields['kind'].examples[0]})", model)  # type: ignore[index]  # each kind has one
        for model in (KafkaConfig, NatsConfig)
        if model in arguments
    ]


def _section(title: str, model: type[BaseModel]) -> str:
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    path, _, kind = title.partition(" (")
    heading = f"### `{path}`" + (f", {kind.rstrip(')')}" if kind else "")
    head = [heading if title else "### The top level", "", (model.__doc__ or "").strip()]
    return "\n".join([*head, "", "| key | default | meaning |", "| --- | --- | --- |", *rows, ""])


def _row(name: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return "see below"
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, SecretStr):
        return "empty"
    return f"`{_shown(as_written(value, field))}`"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> int:
    """Run as a script."""
    outdated = 0
    for path, root in PAGES.items():
        page = path.read_text("utf-8")
        wanted = rewritten(page, root)
        outdated |= wanted != page
        if "--check" not in sys.argv[1:]:
            path.write_text(wanted, "utf-8")
    return int(outdated and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
