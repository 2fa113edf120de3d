"""What a `${file:…}` gives: read once for each load, so that one config has one view of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

__all__ = ["MAX_FILE", "FileContent", "FileReader", "read_file", "read_regular", "reader_of"]

MAX_FILE: Final = 64 * 1024
"""Bytes of one `${file:…}`."""


_NOTHING: Final = SecretStr("")


@dataclass(frozen=True, slots=True)
class FileContent:
    """The text of a file, or why there is none."""

    text: SecretStr = _NOTHING
    """Without the newline at its end."""
    problem: str = ""
    """For the user; names the file. Empty where there is a text."""


FileReader = Callable[[str], FileContent]
"""From the name in `${file:NAME}` to what that file holds."""


def reader_of(files: Mapping[str, FileContent]) -> FileReader:
    """Give a reader that reads no disk: what is not in `files` is a problem."""
    return lambda name: files.get(name, FileContent(problem=f"{name} was not read"))


def read_file(name: str) -> FileContent:
    """Read a regular file of at most 64 KiB of UTF-8. Raises nothing for what it finds."""
    try:
        content = read_regular(name, MAX_FILE)
    except OSError as error:
        return FileContent(problem=f"{name} cannot be read: {error.strerror}")
    except ValueError:
        return FileContent(problem="${file:…} does not name a file")
    if content is None:
        return FileContent(problem=f"{name} is not a file")
    if len(content) > MAX_FILE:
        return FileContent(problem=f"{name} is larger than {MAX_FILE // 1024} KiB")
    try:
        return FileContent(SecretStr(content.decode("utf-8-sig").rstrip("\r\n")))
    except UnicodeDecodeError:
        return FileContent(problem=f"{name} is not UTF-8 text")


def read_regular(name: str | os.PathLike[str], limit: int) -> bytes | None:
    """Give the first `limit` bytes of a regular file and one more; None for anything else.

    Never waits for a writer. Raises `OSError`, and `ValueError` for what is no file name.
    """
    # Without O_NONBLOCK a pipe would wait for its writer.
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)
