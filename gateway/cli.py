"""The `gateway` script: names the commands, and turns errors into words and exit codes.

Exit codes: 0 fine, 1 the check or test found something, 2 bad usage or bad config file, 3 a
broker could not be reached.
"""

from __future__ import annotations

import sys

import click

from gateway import GatewayError, __version__
from gateway.brokers.base import BrokerError
from gateway.commands.check import check_command
from gateway.commands.dev import dev_command
from gateway.commands.explain import explain_command
from gateway.commands.inbox import inbox_command
from gateway.commands.init import init_command
from gateway.commands.schema import schema_command
from gateway.commands.send import send_command
from gateway.commands.serve import serve_command
from gateway.commands.tail import tail_command
from gateway.commands.test import test_command

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def cli() -> None:
    """Verified Clerk webhooks into Kafka topics and NATS subjects."""


for _command in (
    dev_command,
    serve_command,
    check_command,
    explain_command,
    test_command,
    send_command,
    tail_command,
    inbox_command,
    schema_command,
    init_command,
):
    cli.add_command(_command)


def main() -> None:
    """Run the script. No traceback reaches the user for a mistake of theirs."""
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except BrokerError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(3)
    except GatewayError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
