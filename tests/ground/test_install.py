"""`tools/install.py`, in a project of its own that needs nothing but the build backend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "sample"
version = "{version}"
[project.scripts]
sample = "sample:main"
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Project:
    """A small project with a copy of the installer."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stamp = root / ".venv" / "stamp.json"
        (root / "tools").mkdir()
        shutil.copy(ROOT / "tools/install.py", root / "tools")
        shutil.copy(ROOT / "requirements-build.lock", root)
        for lock in ("requirements-dev.lock", "requirements-test.lock"):
            (root / lock).touch()
        (root / "sample.py").write_text("def main() -> None:\n    print('it runs')\n")
        self.version("1.0")

    def version(self, version: str) -> None:
        """Change `pyproject.toml`."""
        (self.root / "pyproject.toml").write_text(PYPROJECT.format(version=version))

    def start(self, level: str = "run") -> subprocess.Popen[str]:
        """Start the installer."""
        return subprocess.Popen(
            [sys.executable, "tools/install.py", level],
            cwd=self.root,
            stderr=subprocess.PIPE,
            text=True,
        )

    def install(self, level: str = "run") -> str:
        """Run the installer to its end and give what it said."""
        installer = self.start(level)
        said = installer.communicate()[1]
        assert installer.returncode == 0, said
        return said

    def command(self) -> str:
        """Run the command that the project installs."""
        done = subprocess.run(
            [self.root / ".venv/bin/sample"], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def level(self) -> str:
        """Give the level that the stamp names."""
        return str(json.loads(self.stamp.read_text())["level"])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_second_call_finds_nothing_to_do(project: Project) -> None:
    assert "Ready" in project.install()
    assert project.command() == "it runs"
    made = project.stamp.stat().st_mtime_ns
    assert project.install() == ""
    assert project.stamp.stat().st_mtime_ns == made


def test_calls_at_the_same_time_install_once(project: Project) -> None:
    calls = [project.start() for _ in range(3)]
    said = [call.communicate()[1] for call in calls]
    assert [call.returncode for call in calls] == [0, 0, 0], said
    assert sum("Ready" in text for text in said) == 1
    assert project.command() == "it runs"


def test_killed_installation_is_made_anew(project: Project) -> None:
    installer = project.start()
    assert installer.stderr
    assert "Preparing" in installer.stderr.readline()
    installer.kill()
    installer.communicate()
    left_over = project.root / ".venv" / "left-over"
    left_over.parent.mkdir(exist_ok=True)
    left_over.touch()
    assert "Ready" in project.install()
    assert project.command() == "it runs"
    assert not left_over.exists()


def test_python_that_has_gone_is_replaced(project: Project) -> None:
    project.install()
    python = project.root / ".venv/bin/python"
    python.unlink()
    python.symlink_to("nowhere")
    project.install()
    assert project.command() == "it runs"


def test_higher_level_adds_and_a_lower_one_then_has_nothing_to_do(project: Project) -> None:
    project.install("run")
    kept = project.root / ".venv" / "kept"
    kept.touch()
    assert "requirements-test.lock" in project.install("test")
    assert kept.exists()
    assert project.level() == "test"
    assert project.install("run") == ""


def test_changed_project_is_installed_again_at_the_level_it_had(project: Project) -> None:
    project.install("test")
    kept = project.root / ".venv" / "kept"
    kept.touch()
    project.version("2.0")
    assert "Ready" in project.install("run")
    assert project.level() == "test"
    assert kept.exists()
    assert list(project.root.glob(".venv/lib/*/site-packages/sample-2.0.dist-info"))


def test_changed_lock_starts_from_nothing(project: Project) -> None:
    project.install()
    left_over = project.root / ".venv" / "left-over"
    left_over.touch()
    (project.root / "requirements-dev.lock").write_text("# another\n")
    project.install()
    assert not left_over.exists()


def test_failure_shows_what_pip_said_and_leaves_no_stamp(project: Project) -> None:
    lock = project.root / "requirements-dev.lock"
    lock.write_text("./nothing-here --hash=sha256:" + "0" * 64 + "\n")
    installer = project.start()
    said = installer.communicate()[1]
    assert installer.returncode == 1
    assert "nothing-here" in said
    assert "Traceback" not in said
    assert not project.stamp.exists()


def test_level_that_does_not_exist_is_bad_usage(project: Project) -> None:
    installer = project.start("everything")
    assert "usage" in installer.communicate()[1]
    assert installer.returncode == 2


def test_make_without_a_python_says_what_to_install() -> None:
    done = subprocess.run(
        ["make", "PYTHON=", "venv-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode
    assert "Python 3.11 or newer" in done.stderr


def test_make_passes_over_a_python_that_does_not_work(tmp_path: Path) -> None:
    for name in ("python3.13", "python3.12"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python3.11").symlink_to(sys.executable)
    done = subprocess.run(
        ["make", "--dry-run", "venv-run"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python3.11 tools/install.py run" in done.stdout
