"""No output of the suite holds a secret; and one that did would be found."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.canaries import CANARY, SECRET, TOKEN, canaries
from tests.outputs import Plugin

M = re.MULTILINE
ROOT = Path(__file__).parents[2]
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
SUITE = """
import sys
import pytest
from tests import canaries

def test_fine():
    print("nothing to see", file=sys.stderr)

{marks}
@pytest.mark.parametrize("value", [{value!r}])
def test_planted(value, capfd, request):
    {statement}
"""


def run(directory: Path, value: str, statement: str, marks: str = "") -> tuple[int, str]:
    """Run a tiny suite in a process of its own, with the plugin, and give what it says."""
    (directory / "conftest.py").write_text(
        "from tests import outputs\n\ndef pytest_configure(config):\n    outputs.register(config)\n"
    )
    suite = SUITE.format(value=value, statement=statement, marks=marks)
    (directory / "test_tiny.py").write_text(suite)
    (directory / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(directory)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


FORMS = {
    "as it is": SECRET,
    "without its prefix": SECRET.removeprefix("whsec_"),
    "the key in hex": KEY.hex(),
    "the key in Python": repr(KEY),
    "in base64": base64.b64encode(b"user:" + SECRET.encode() + b"!").decode(),
    "the token in a URL": quote(f"x={TOKEN}&", safe=""),
    "the token in hex": f"00{TOKEN.encode().hex().upper()}",
    "the token in base64": base64.urlsafe_b64encode(f"Bearer {TOKEN}".encode()).decode(),
    "a payload": f'{{"first_name": "{CANARY}"}}',
}


@pytest.mark.parametrize("form", FORMS)
def test_a_planted_leak_fails_the_run_and_names_the_test(form: str, tmp_path: Path) -> None:
    code, said = run(tmp_path, FORMS[form], "print(value, file=sys.stderr)")
    assert code == 1, said
    found = re.search(r"^canaries: (\w+) is in the captured stderr call of (.*)$", said, M)
    assert found, said
    assert found[1] in {"SECRET", "TOKEN", "CANARY"}
    assert "test_planted" in found[2]
    assert re.search(r"^canaries: \d+ values looked for in .* of 2 tests .*: 1 found$", said, M)
    assert not any(one.value.decode() in said for one in canaries()), "the value itself is told"


def test_what_a_test_takes_out_of_the_capture_is_seen(tmp_path: Path) -> None:
    code, said = run(tmp_path, SECRET, "print(value); assert capfd.readouterr().out")
    assert code == 1, said
    assert "canaries: SECRET is in the captured stdout of " in said


def test_what_is_logged_is_seen(tmp_path: Path) -> None:
    statement = "import logging; logging.getLogger('x').warning('%s', value)"
    code, said = run(tmp_path, TOKEN, statement)
    assert code == 1, said
    assert "canaries: TOKEN is in the captured log call of " in said


def test_a_run_without_a_leak_passes(tmp_path: Path) -> None:
    code, said = run(tmp_path, "harmless", "print(value)")
    assert code == 0, said
    assert re.search(r"^canaries: \d+ values looked for in .* of 2 tests .*: 0 found$", said, M)


@pytest.mark.parametrize(("value", "code"), [(CANARY, 0), (SECRET, 1)])
def test_a_marked_test_may_show_a_payload_and_no_secret(
    value: str, code: int, tmp_path: Path
) -> None:
    marks = '@pytest.mark.shows_payload("as the contract says")'
    found, said = run(tmp_path, value, "print(value)", marks)
    assert found == code, said


def test_canaries_are_long_enough_to_be_told_from_other_text() -> None:
    values = [one.value for one in canaries()]
    assert min(map(len, values)) >= 8
    assert len(set(values)) == len(values)


def test_no_output_of_the_suite_holds_a_secret(request: pytest.FixtureRequest) -> None:
    """Run as the last test of all."""
    plugin = request.config.pluginmanager.get_plugin("canaries")
    assert isinstance(plugin, Plugin)
    assert [str(leak) for leak in plugin.judge()] == []
    assert plugin.shortage() is None
