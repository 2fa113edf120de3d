"""How this program is called in a shell: for lines that a user is to paste."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

__all__ = ["invocation"]


def invocation() -> list[str]:
    """Give the words that start this program in a second shell."""
    if shutil.which("gateway"):
        return ["gateway"]
    if Path(sys.argv[0]).name == "__main__.py":
        return [sys.executable, "-m", "gateway"]
    return [os.path.relpath(sys.argv[0])]
