"""The shape of a tests file: one source for validation, schema and the manual's tables.

Field descriptions are the user manual.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, JsonValue
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from gateway.config.base import Model
from gateway.config.fields import FieldPath, FilePath, Name, NonEmpty
from gateway.config.refusal import refusal

__all__ = ["STAND_INS", "Case", "Expectation", "TestsFile"]

STAND_INS: dict[str, Any] = {"tests": [], "name": "stand-in", "expect": "none"}
"""A valid value of every field that has no default."""

Reason = Literal["expression", "destination", "too_large", "invalid_destination"]
"""Why a target refuses an event before its broker is asked."""


def _one_of(*names: str) -> dict[str, JsonValue]:
    """Have an editor ask for one of these keys; `gateway.testing.rules` insists on it."""
    return {"oneOf": [{"required": [name]} for name in names]}


class Expectation(Model):
    """A record that is published, or a target that must refuse the event. What is named counts."""

    model_config = ConfigDict(json_schema_extra=_one_of("topic", "subject"))

    broker: Name | None = Field(
        default=None,
        description="The name of the broker in the config.",
        examples=["events"],
    )
    topic: NonEmpty | None = Field(
        default=None,
        description="The Kafka topic, as it is published to.",
        examples=["clerk.users"],
    )
    subject: NonEmpty | None = Field(
        default=None,
        description="The NATS subject, as it is published to.",
        examples=["clerk.user.created"],
    )
    routes: tuple[Name, ...] | None = Field(
        default=None,
        description=(
            "All routes that publish this record, in any order. Routes that resolve to the same"
            " record publish it once."
        ),
        examples=[["users"]],
    )
    key: NonEmpty | None = Field(
        default=None,
        description=(
            "The Kafka key. On NATS what stands in `ce-partitionkey`, and orders the inbox."
        ),
        examples=["user_2Sample00000000000000000001"],
    )
    headers: dict[str, str | None] = Field(
        default={},
        description=(
            "Headers by their names, as they are sent. `null`: there is no such header. Headers"
            " that are not named may be anything."
        ),
        examples=[{"x-tenant": "acme", "svix-signature": None}],
    )
    value: dict[FieldPath, Any] = Field(
        default={},
        description=(
            "What stands in the record's value, which is JSON, by dotted paths. A mapping or a list"
            " is compared as a whole. `null`: nothing is there, or null. Paths that are not named"
            " may hold anything."
        ),
        examples=[{"data.public_metadata.tier": "enterprise", "data.private_metadata": None}],
    )
    refused: Reason | None = Field(
        default=None,
        description=(
            "The target must refuse the event for this reason, and nothing is published there. The"
            " topic or subject is then the template as the config has it."
        ),
        examples=["expression"],
    )

    @property
    def place(self) -> tuple[str, str]:
        """The word `topic` or `subject`, and the one that is expected."""
        return ("subject", self.subject or "") if self.topic is None else ("topic", self.topic)


def _none(value: object) -> object:
    if value == "none":
        return ()
    if not isinstance(value, tuple):
        raise refusal("expected a list of records, or none where no route takes the event")
    return value


class _OrNone:
    """Lets the word `none` stand for the empty list in the JSON Schema, as `_none` reads it."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"const": "none"}, handler(core)]}


Expectations = Annotated[tuple[Expectation, ...], BeforeValidator(_none), _OrNone()]


class Case(Model):
    """One test: an event, and what the table makes of it. It has one of event, file and body."""

    model_config = ConfigDict(json_schema_extra=_one_of("event", "file", "body"))

    name: NonEmpty = Field(
        description="What the test shows. No two tests of a file have the same.",
        examples=["a new user goes to Kafka and to NATS"],
    )
    event: NonEmpty | None = Field(
        default=None,
        description=(
            "A type of event. For a type of Clerk's catalogue it is the sample that `gateway send`"
            " posts; for any other type an envelope with `data.id` and `data.object`."
        ),
        examples=["user.created"],
    )
    file: FilePath | None = Field(
        default=None,
        description=(
            "A file with the body of an event, byte for byte, relative to the tests file; at most"
            " 1 MiB."
        ),
        examples=["events/user.created.json"],
    )
    body: dict[str, Any] | None = Field(
        default=None,
        description="The body of the event, written here.",
        examples=[{"type": "invoice.paid", "data": {"id": "inv_1"}}],
    )
    set: dict[FieldPath, Any] = Field(
        default={},
        description=(
            "Fields of the event by dotted paths, and what they are set to: any YAML value. A"
            " number is an entry of a list. Mappings that are missing inside `data` are made. A"
            " file that is changed is encoded anew."
        ),
        examples=[{"data.public_metadata.tier": "enterprise", "data.email_addresses": []}],
    )
    unset: tuple[FieldPath, ...] = Field(
        default=(),
        description="Fields of the event that are taken out, by dotted paths, after `set`.",
        examples=[["data.primary_email_address_id"]],
    )
    source: Name | None = Field(
        default=None,
        description=(
            "The source in the config that the event comes by. Default: the only one there is."
        ),
        examples=["clerk"],
    )
    id: NonEmpty = Field(
        default="msg_test",
        description="The event's `svix-id`.",
        examples=["msg_test"],
    )
    expect: Expectations = Field(
        description=(
            "The records that are published, in any order, and the refusals. `none` or `[]`: no"
            " route takes the event."
        ),
        examples=["none", [{"broker": "events", "topic": "clerk.users"}]],
    )
    exhaustive: bool = Field(
        default=True,
        description=(
            "Whether a record or a refusal that is not expected fails the test. `false` lets others"
            " be, such as those of an audit route that takes everything."
        ),
        examples=[False],
    )


class TestsFile(Model):
    """The whole file."""

    __test__: ClassVar[bool] = False
    """pytest would take it for a class of tests."""

    tests: tuple[Case, ...] = Field(
        description="The tests; each stands alone.",
        examples=[
            [
                {
                    "name": "a new user goes to Kafka",
                    "event": "user.created",
                    "expect": [{"broker": "events", "topic": "clerk.users"}],
                }
            ]
        ],
    )
