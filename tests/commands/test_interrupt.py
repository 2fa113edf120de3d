"""Ctrl-C before a command has begun."""

from __future__ import annotations

import subprocess
import sys

INTERRUPTED = """
import sys

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "gateway.commands.check":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
sys.argv = ["gateway", "--help"]
from gateway.__main__ import main
main()
"""


def test_an_interrupt_while_the_script_loads_shows_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
