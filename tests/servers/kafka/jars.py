"""Kafka's jars, fetched once by Maven into `.cache/` by the pinned `pom.xml` beside this file."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import ServerError

_CACHE = Path(__file__).parents[3] / ".cache"
_POM = Path(__file__).parent / "pom.xml"
_FETCH_SECONDS = 600
_REMEDY = (
    "The tests need a real Kafka: install Java 17 or newer and Maven (Debian, Ubuntu: apt-get "
    "install openjdk-17-jre-headless maven; macOS: brew install openjdk maven), or give the "
    "address of a Kafka that may be written to: GATEWAY_TEST_KAFKA=host:port. Tests that stop "
    "and freeze Kafka need Java and Maven in any case."
)


def java() -> str:
    """Give the path of `java`. Raises `ServerError`."""
    return _program("java")


def maven() -> str:
    """Give the path of `mvn`. Raises `ServerError`."""
    return _program("mvn")


def jars() -> Path:
    """Give the directory that holds Kafka's jars, fetching them first where it must.

    Runs that come at the same time wait for each other. Raises `ServerError`.
    """
    directory = _CACHE / f"kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"
    if directory.exists():
        return directory
    with _locked(_CACHE / "kafka.lock"):
        if not directory.exists():
            _fetch(directory)
    return directory


def _fetch(directory: Path) -> None:
    program = maven()
    # Beside its last place, so that the rename is atomic: half a download is never taken for one.
    with tempfile.TemporaryDirectory(dir=_CACHE, prefix="kafka-fetch-") as work:
        goal = ("dependency:copy-dependencies", f"-DoutputDirectory={work}/lib")
        fetched = subprocess.run(
            [program, "-q", "-B", "-f", str(_POM), *goal],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            check=False,
        )
        if fetched.returncode != 0:
            raise ServerError(f"Maven could not fetch Kafka:\n{fetched.stdout}{fetched.stderr}")
        (Path(work) / "lib").rename(directory)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServerError(f"`{name}` was not found. {_REMEDY}")
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
