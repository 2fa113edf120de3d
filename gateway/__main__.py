"""`python -m gateway`, and the `gateway` script."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the script. Ctrl-C while it still loads ends it as it does later: without a traceback."""
    try:
        from gateway.cli import main as run  # noqa: PLC0415 - as the docstring says
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
