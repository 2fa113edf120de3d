"""What a config is read from: the text of its file, and what each `${file:…}` in it holds."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from gateway.config import ConfigError, FileContent, LoadedConfig
from gateway.config.files import FileReader, read_file
from gateway.config.interpolation import MAX_TOTAL
from gateway.config.load import named_files, read_again

__all__ = ["Contents", "ContentsReader", "contents_of", "is_followed", "read_config"]


class Contents(msgspec.Struct, frozen=True):
    """All that decides what a config is, beside the environment. It may hold secrets."""

    text: FileContent
    """The config file as it was read."""
    files: Mapping[str, FileContent]
    """What each `${file:…}` gives, by the name that stands there."""


def contents_of(loaded: LoadedConfig) -> Contents:
    """Give what a config was loaded from."""
    return Contents(FileContent(loaded.text), dict(loaded.files))


def read_config(name: str) -> FileContent:
    """Read the text of a config file. Raises nothing for what it finds."""
    try:
        return FileContent(read_again(name))
    except ConfigError as error:
        return FileContent(problem=error.problems[0].render(name))


class ContentsReader:
    """Reads what a config is made of, again and again.

    Blocks while it reads. Files are compared by what they hold and not by their time: a mounted
    ConfigMap is swapped by a symbolic link, others are renamed over or written in place.
    """

    def __init__(
        self,
        name: str,
        env: Mapping[str, str],
        read_text: Callable[[str], FileContent] = read_config,
        read: FileReader = read_file,
    ) -> None:
        """`name` is the config file. What is no file, such as a pipe, could be read only once."""
        self._name = name
        self._env = env
        self._read_text = read_text
        self._read = read
        self._named: tuple[FileContent, tuple[str, ...]] | None = None

    def read(self, before: Contents) -> Contents:
        """Read all. What was not empty in `before` and now is, is being written, or a mistake.

        A text that cannot be read leaves the files of the one before: they are watched on.
        """
        text = _whole(self._name, self._read_text(self._name), before.text)
        names = tuple(before.files) if text.problem else self._names(text)
        return Contents(text, self._files(names, before.files))

    def _files(
        self, names: Iterable[str], before: Mapping[str, FileContent]
    ) -> Mapping[str, FileContent]:
        """Read files until they hold more than a config may bring in: it is refused then."""
        files: dict[str, FileContent] = {}
        left = MAX_TOTAL
        for name in names:
            if left < 0:
                files[name] = FileContent(problem=f"{name} was not read: the others hold too much")
                continue
            files[name] = _whole(name, self._read(name), before.get(name, FileContent()))
            left -= len(files[name].text.get_secret_value())
        return files

    def _names(self, text: FileContent) -> tuple[str, ...]:
        if self._named is None or self._named[0] != text:
            self._named = text, named_files(text.text, self._env)
        return self._named[1]


def is_followed(name: str) -> bool:
    """Tell whether a config can be read again: a pipe cannot.

    What is not there in this moment is a file that is being replaced.
    """
    try:
        return stat.S_ISREG(Path(name).stat().st_mode)
    except OSError:
        return True


def _whole(name: str, content: FileContent, before: FileContent) -> FileContent:
    if not content.problem and _is_blank(content) and not _is_blank(before):
        return FileContent(problem=f"{name} is empty")
    return content


def _is_blank(content: FileContent) -> bool:
    return not content.text.get_secret_value().strip()
