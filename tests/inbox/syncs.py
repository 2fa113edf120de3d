"""Counts the syncs that a process asks of the kernel: what no counter of our own can get wrong.

A shared library, compiled by the C compiler and preloaded into a child process, notes each call of
`fsync` and `fdatasync` with the file that it was made for, and then makes it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.servers.process import ServerError

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(int fd) {
    const char *to = getenv("SYNC_NOTES");
    char link[64], file[4096];
    if (!to) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, file, sizeof file - 2);
    if (size < 0) return;
    file[size] = '\n';
    int notes = open(to, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (notes < 0) abort();
    if (write(notes, file, size + 1) != size + 1) abort();
    close(notes);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    note(fd);
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    note(fd);
    return real(fd);
}
"""


class SyncNotes:
    """What is preloaded into processes, and what they have noted."""

    def __init__(self, directory: Path) -> None:
        """Compile the library. Raises `ServerError` where there is no C compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise ServerError(
                "a C compiler is needed to count the syncs of a process. Debian, Ubuntu: apt-get"
                " install gcc libc6-dev. Fedora: dnf install gcc"
            )
        source, self._library = directory / "syncs.c", directory / "syncs.so"
        source.write_text(_SOURCE)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", self._library, source, "-ldl"], check=True
        )
        self._notes = directory / "syncs.txt"

    def environment(self) -> Mapping[str, str]:
        """Give the environment of a process whose syncs are to be noted."""
        return {**os.environ, "LD_PRELOAD": str(self._library), "SYNC_NOTES": str(self._notes)}

    def count(self) -> Counter[str]:
        """Give the calls so far, by the name of the file."""
        written = self._notes.read_text() if self._notes.exists() else ""
        return Counter(Path(line).name for line in written.splitlines())
