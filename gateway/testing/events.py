"""The events of a tests file: from what a test says to the body that the gateway would receive."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway import GatewayError
from gateway.clerk.changes import SampleError, assign, remove
from gateway.clerk.samples import sample
from gateway.config.files import read_regular
from gateway.config.findings import Finding
from gateway.config.problems import DocumentPath
from gateway.testing.models import Case

__all__ = ["NOW", "Bodies"]

NOW: Final = 1_767_225_600
"""Unix seconds of every test's clock, so that a test is the same on every day: 2026-01-01 00:00."""
MAX_FILE: Final = 1024 * 1024
"""Bytes of an event's file."""
MAX_TOTAL: Final = 64 * 1024 * 1024
"""Bytes of all events that are made for a tests file."""


class _FileError(GatewayError):
    """A file that gives no body; the message is for the user."""


class Bodies:
    """Makes the bodies of a tests file's events; a file that several tests name is read once."""

    def __init__(self, directory: Path) -> None:
        """Take what the names of files are relative to."""
        self._directory = directory
        self._files: dict[str, bytes] = {}
        self._made: dict[DocumentPath, bytes] = {}
        self._left = MAX_TOTAL

    def at(self, path: DocumentPath) -> bytes:
        """Give the body of the test at `path` of its file, for which `make` has found no fault."""
        return self._made[path]

    def make(self, path: DocumentPath, case: Case) -> Iterator[Finding]:
        """Make the body of the test at `path`, and say what keeps it from being made."""
        failed: list[Finding] = []
        try:
            if case.file is not None and not case.set and not case.unset:
                self._made[path] = self._read(case.file)
                return
            event = self._event(case)
            failed += _change(event, path, case)
            body = msgspec.json.encode(event)
        except _FileError as error:
            failed.append(Finding((*path, "file"), f"file: {error}"))
        except (RecursionError, UnicodeEncodeError, SampleError):
            failed.append(Finding(path, "the event is nested too deep, or is not UTF-8 text"))
        else:
            self._made[path] = body
            self._left -= len(body)
            if self._left < 0:
                message = f"the events of all tests are larger than {MAX_TOTAL // 1024**2} MiB"
                failed.append(Finding(path, message))
        yield from failed

    def _event(self, case: Case) -> dict[str, Any]:
        if case.event is not None:
            return msgspec.json.decode(sample(case.event, NOW * 1000), type=dict[str, Any])
        if case.file is None:
            return deepcopy(case.body or {})
        try:
            return msgspec.json.decode(self._read(case.file), type=dict[str, Any])
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise _FileError("is not a JSON object, so set and unset cannot change it") from None

    def _read(self, name: str) -> bytes:
        content = self._files.get(name)
        if content is None:
            content = self._files[name] = _content(self._directory / name)
        return content


def _change(event: dict[str, Any], path: DocumentPath, case: Case) -> Iterator[Finding]:
    """Carry out `set` and `unset`, and say which of their entries cannot be."""
    for dotted, value in case.set.items():
        try:
            # Two places of the file may share a value through an alias.
            assign(event, dotted, deepcopy(value))
        except SampleError as error:
            yield Finding((*path, "set", dotted), f"set: {error.problem}")
    for at, dotted in enumerate(case.unset):
        try:
            remove(event, dotted)
        except SampleError as error:
            yield Finding((*path, "unset", at), f"unset: {error.problem}")


def _content(path: Path) -> bytes:
    try:
        content = read_regular(path, MAX_FILE)
    except OSError as error:
        raise _FileError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise _FileError("is not a file name") from None
    if content is None:
        raise _FileError(f"{path} is not a file")
    if len(content) > MAX_FILE:
        raise _FileError(f"{path} is larger than {MAX_FILE // 1024**2} MiB; this is not an event")
    return content
