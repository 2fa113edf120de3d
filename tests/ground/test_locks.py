"""The lock files, and the page that explains what is in them."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, files, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = re.compile(r"^([a-z0-9][\w.-]*)==(\S+)(?: ; .+)? \\$", re.MULTILINE)
ROW = re.compile(r"^\| (\S+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
APACHE_2 = re.compile(r"Apache License\s+Version 2\.0")
HEADINGS = {"package", "file", "---"}


def normalized(requirement: str) -> str:
    """Give the name in a requirement, as PEP 503 writes it."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def direct() -> set[str]:
    """Give every dependency that `pyproject.toml` names."""
    project = PROJECT["project"]
    named = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *PROJECT["dependency-groups"]["test"],
        *PROJECT["dependency-groups"]["build"],
    ]
    return {normalized(requirement) for requirement in named}


def documented() -> dict[str, str]:
    """Give the licence of each package of PyPI in `docs/dependencies.md`."""
    page = (ROOT / "docs/dependencies.md").read_text()
    npm = page[page.index("| npm package |") : page.index("## Build")]
    rows = ROW.findall(page.replace(npm, ""))
    return {name: licence.strip() for name, licence, _, _ in rows if name not in HEADINGS}


def pins(lock: str) -> dict[str, str]:
    """Give the version of each package in a lock file."""
    return dict(PINNED.findall((ROOT / lock).read_text()))


def spdx_names(expression: str) -> set[str]:
    """Give the licences of an SPDX expression, or of what older packages write in its place."""
    return {name.removesuffix(" License") for name in re.split(r" (?:AND|OR) ", expression)}


def declared_licence(package: str) -> str:
    """Give the licence that the installed package declares of itself."""
    about = metadata(package)
    for field in ("License-Expression", "License"):
        if field in about:
            return about[field]
    classifiers = [line for line in about.get_all("Classifier", []) if "License ::" in line]
    if classifiers:
        return " OR ".join(line.split(" :: ")[-1] for line in classifiers)
    texts = [str(file.read_text()) for file in files(package) or () if file.name == "LICENSE"]
    return "Apache-2.0" if any(APACHE_2.search(text) for text in texts) else "none"


def test_every_direct_dependency_has_its_row_and_no_row_is_left_over() -> None:
    assert set(documented()) == direct()


@pytest.mark.parametrize("package", sorted(direct()))
def test_licence_is_the_one_that_the_package_declares(package: str) -> None:
    assert spdx_names(declared_licence(package)) <= spdx_names(documented()[package])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_has_no_address_and_a_hash_for_every_pin(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--?(?!hash=)[a-z]", text, re.MULTILINE), "an option of pip"
    pinned = [part for part in re.split(r"\n(?=\S)", text) if "==" in part.split("\n")[0]]
    assert pinned
    assert [part for part in pinned if "--hash=sha256:" not in part] == []
    assert len(pinned) == len(PINNED.findall(text))


def test_what_the_package_is_built_with_is_in_the_build_lock() -> None:
    wanted = {normalized(requirement) for requirement in PROJECT["build-system"]["requires"]}
    assert wanted <= set(pins("requirements-build.lock"))


def test_every_direct_dependency_is_pinned() -> None:
    everything = pins("requirements-test.lock") | pins("requirements-build.lock")
    assert direct() - set(everything) == set()


def test_locks_agree() -> None:
    runtime, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    test, build = pins("requirements-test.lock"), pins("requirements-build.lock")
    assert runtime.items() <= dev.items() <= test.items()
    assert {name: test[name] for name in build.keys() & test.keys()}.items() <= build.items()


def test_the_image_gets_neither_the_embedded_server_nor_a_test_tool() -> None:
    project = PROJECT["project"]
    wanted = {normalized(requirement) for requirement in project["dependencies"]}
    others = project["optional-dependencies"]["dev"] + PROJECT["dependency-groups"]["test"]
    unwanted = {normalized(requirement) for requirement in others} - wanted
    assert unwanted & set(pins("requirements.lock")) == set()


def test_what_is_installed_is_what_the_test_lock_says() -> None:
    installed: dict[str, str] = {}
    for name in pins("requirements-test.lock"):
        try:
            installed[name] = metadata(name)["Version"]
        except PackageNotFoundError:
            installed[name] = "missing"
    assert installed == pins("requirements-test.lock")
