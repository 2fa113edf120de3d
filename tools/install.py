"""Makes `.venv/` from the lock files: `python tools/install.py run|test`.

Needs nothing but the standard library. Calls that come at the same time wait for each other, a
second call finds the stamp and returns at once, and whatever was left half made is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import time
import venv
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "stamp.json"
GUARD = ROOT / ".cache" / "venv.lock"
BUILD_LOCK = ROOT / "requirements-build.lock"
LEVELS = {"run": "requirements-dev.lock", "test": "requirements-test.lock"}
"""Each level's lock holds all that the levels before it hold."""
PIP = (str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input")


class InstallError(Exception):
    """A step failed; its output has been shown."""


def wanted(level: str) -> dict[str, str]:
    """Give what the stamp says once the environment is right for `level`."""
    locks = [BUILD_LOCK, *(ROOT / name for name in LEVELS.values())]
    return {
        "level": level,
        "python": sys.version,
        "place": str(ROOT),
        "locks": _digest(*locks),
        "project": _digest(ROOT / "pyproject.toml"),
    }


def stamped() -> dict[str, str]:
    """Give what the stamp says, or nothing where there is none or its Python has gone."""
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and (VENV / "bin" / "python").exists() else {}


def ensure(level: str) -> None:
    """Make `.venv/` right for `level`; an environment of a higher level is right for a lower one.

    Raises `InstallError`, and `OSError` where the directory cannot be written.
    """
    have, want = stamped(), wanted(level)
    if _covers(have, want):
        return
    GUARD.parent.mkdir(exist_ok=True)
    with _alone():
        have = stamped()  # another call may have made it while this one waited
        if not _covers(have, want):
            _make(have, want)


def _covers(have: dict[str, str], want: dict[str, str]) -> bool:
    return _rank(have) >= _rank(want) and {**have, "level": want["level"]} == want


def _rank(stamp: dict[str, str]) -> int:
    names = list(LEVELS)
    level = stamp.get("level")
    return names.index(level) if level in names else -1


def _make(have: dict[str, str], want: dict[str, str]) -> None:
    started = time.monotonic()
    # Without a stamp the last call was cut off: pip cannot tell a half-written package from a whole
    # one, so nothing of it is kept. The same holds for packages that a new lock no longer names.
    keep = bool(have) and all(have.get(key) == want[key] for key in ("python", "place", "locks"))
    level = max(have, want, key=_rank)["level"] if keep else want["level"]
    STAMP.unlink(missing_ok=True)
    _say(f"Preparing .venv from {LEVELS[level]} ...")
    if not keep:
        _create()
        _pip("install", "--require-hashes", "-r", str(BUILD_LOCK))
    # Without isolation, what is built is built by what the lock pins and by nothing else.
    if not keep or _rank(have) < _rank(want):
        lock = str(ROOT / LEVELS[level])
        _pip("install", "--no-build-isolation", "--require-hashes", "-r", lock)
    _pip("install", "--no-build-isolation", "--no-deps", "--editable", str(ROOT))
    _pip("check")
    _write({**want, "level": level})
    _say(f"Ready in {time.monotonic() - started:.0f} s.")


def _create() -> None:
    try:
        venv.create(VENV, clear=True, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError as error:
        _say(f"python -m venv failed: {error}. Debian, Ubuntu: apt-get install python3-venv")
        raise InstallError from error


def _pip(*arguments: str) -> None:
    """Run pip, and show what it says only if it fails."""
    done = subprocess.run(
        [*PIP, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        _say(done.stdout)
        _say(f"pip {arguments[0]} failed. Is the package index reachable? Then call make again.")
        raise InstallError


def _write(stamp: dict[str, str]) -> None:
    part = STAMP.with_suffix(".part")
    part.write_text(json.dumps(stamp, indent=2) + "\n")
    part.replace(STAMP)


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock between processes; the kernel frees it however the holder ends."""
    with GUARD.open("w") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Waiting for another call that prepares .venv ...")
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _say(text: str) -> None:
    sys.stderr.write(text.rstrip() + "\n")


def main() -> int:
    """Run as a script; 2 for bad usage, 1 for a step that failed."""
    if sys.argv[1:] not in [[level] for level in LEVELS]:
        _say(f"usage: python tools/install.py {'|'.join(LEVELS)}")
        return 2
    try:
        ensure(sys.argv[1])
    except InstallError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
