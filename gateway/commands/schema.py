"""`gateway schema`: JSON Schemas, for editors and for those who check files by themselves."""

from __future__ import annotations

import click

from gateway.commands.schema_events import schema_events_command
from gateway.config.json_schema import as_text, json_schema
from gateway.config.models import GatewayConfig
from gateway.testing.models import TestsFile

__all__ = ["schema_command"]


@click.group("schema")
def schema_command() -> None:
    """Print a JSON Schema (draft-07)."""


@schema_command.command("config")
def config_command() -> None:
    """Print the JSON Schema of the config file, for editors.

    It describes the file as it is written: `${...}` may stand for any value. What one part of the
    file says of another, such as the name of a broker, only `gateway check` sees.
    """
    click.echo(as_text(json_schema(GatewayConfig)), nl=False)


@schema_command.command("tests")
def tests_command() -> None:
    """Print the JSON Schema of a file of tests, which `gateway test` runs."""
    click.echo(as_text(json_schema(TestsFile, interpolated=False)), nl=False)


schema_command.add_command(schema_events_command)
