"""`gateway schema events`: JSON Schemas of what Clerk sends."""

from __future__ import annotations

import click

from gateway.clerk.catalogue import did_you_mean
from gateway.clerk.schemas import event_schema, events_schema
from gateway.config.json_schema import as_text

__all__ = ["schema_events_command"]


@click.command("events")
@click.option("--type", "event_type", metavar="TYPE", help="One type alone, such as user.created.")
def schema_events_command(event_type: str | None) -> None:
    """Print the JSON Schema (draft-07) of Clerk's events, or of one type.

    It is whole in itself, and lenient: fields that it does not name may come.
    """
    schema = events_schema() if event_type is None else event_schema(event_type)
    if schema is None:
        near = did_you_mean(event_type or "")
        hint = f", did you mean {near}?" if near else ""
        raise click.UsageError(f"Clerk publishes no schema of {event_type}{hint}")
    click.echo(as_text(schema), nl=False)
