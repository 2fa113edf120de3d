"""Writes into docs/recipes.md the configs of `examples/`, and what the page's commands print.

A config follows the link to its file; a command is typed after `$ ` in a `console` block. What a
console shows between two runs differs in times only, which tests/docs/test_recipes.py leaves out.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "recipes.md"
SECRET = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
"""Any will do: nothing is signed here."""

_CONFIG = re.compile(
    r"(\]\(\.\./(examples/[^)]+)\)[^`]*?\n\n)( *)```yaml\n.*?\n *```$", re.DOTALL | re.MULTILINE
)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def main() -> None:
    """Bring the page up to date."""
    page = _CONFIG.sub(_config, PAGE.read_text())
    PAGE.write_text(_CONSOLE.sub(_console, page))


def _config(found: re.Match[str]) -> str:
    text = (ROOT / found[2]).read_text()
    return found[1] + indent(f"```yaml\n{text}```", found[3])


def _console(found: re.Match[str]) -> str:
    typed = re.findall(r"(?m)^\$ (.+)$", found[1])
    return f"```console\n{''.join(map(_typed, typed))}```"


def _typed(command: str) -> str:
    places = {"KAFKA", "NATS", "REPLICAS", "INBOX"}
    env = {name: value for name, value in os.environ.items() if name not in places}
    signing = dict.fromkeys(
        ("CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_BILLING_SIGNING_SECRET"), SECRET
    )
    shell = f'gateway() {{ "{sys.executable}" -m gateway "$@"; }}; {command}'
    done = subprocess.run(
        ["sh", "-c", shell],  # noqa: S607 - the page's own commands, as they are typed
        cwd=ROOT,
        env=env | signing,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"$ {command}\n{done.stderr}{done.stdout}"


if __name__ == "__main__":
    main()
