"""Documents as they stand in a config file: read, made of the models, and drawn."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, TypeGuard, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.base import bare_type
from gateway.config.document import read_document
from gateway.config.interpolation import Expansion, Interpolator
from gateway.config.models import GatewayConfig, KafkaConfig, NatsConfig
from gateway.config.names import Suggester
from gateway.config.validation import validate
from gateway.config.written import as_written
from tests.canaries import SECRET

_SECRET_FIELDS = {"password": "hidden", "token": "0123456789abcdef"}
VARIABLE = "${V:-"
"""How a drawn value begins that is put in from outside."""


class AsWritten(Interpolator):
    """Leaves every `${…}` where it stands: what an editor sees."""

    def __init__(self) -> None:
        super().__init__({})

    def expand(self, source: str) -> Expansion:
        return Expansion(source, ())


def as_written_in(text: str) -> Any:
    """Read a file as an editor does, without replacing anything."""
    return read_document(text, "config.yaml", AsWritten()).value


def full(model: type[BaseModel] = GatewayConfig) -> dict[str, Any]:
    """Give a document with every key that there is, made of the examples."""
    return {name: _full_value(name, info) for name, info in model.model_fields.items()}


def complete() -> dict[str, Any]:
    """Give a document with every key but those that exclude each other: the loader takes it."""
    document = full()
    for way in ("credentials_file", "nkey_seed_file", "token"):
        del document["brokers"]["bus"][way]
    document["brokers"]["bus"]["jetstream"] = True
    (target,) = document["routes"][0]["targets"]
    subject = target.pop("subject")
    document["routes"][0]["targets"].append({"broker": "bus", "subject": subject})
    del document["delivery"]["dead_letter"]["subject"]
    return document


def _full_value(name: str, info: FieldInfo) -> Any:
    wanted, _ = bare_type(info.annotation)
    if is_model(wanted):
        return full(wanted)
    if name == "brokers":
        return {"events": full(KafkaConfig), "bus": full(NatsConfig)}
    inner: Any = _inner(wanted)
    if is_model(inner):
        return {"clerk": full(inner)} if get_origin(wanted) is dict else [full(inner)]
    if name == "secrets":
        return [SECRET]
    return _SECRET_FIELDS.get(name, deepcopy((info.examples or [None])[0]))


def _inner(wanted: Any) -> Any:
    """Give what a list or a mapping holds, or None."""
    arguments = get_args(wanted)
    return bare_type(arguments[-1 if get_origin(wanted) is dict else 0])[0] if arguments else None


def models_take(document: Any) -> bool:
    """Tell whether the models take a document, as the loader reads it from a file."""
    read = read_document(json.dumps(document), "config.yaml", Interpolator({}))
    return (
        isinstance(validate(GatewayConfig, read.value, Suggester()), GatewayConfig)
        and not read.problems
    )


def is_model(wanted: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(wanted, type) and issubclass(wanted, BaseModel)


@st.composite
def drawn(draw: st.DrawFn, model: type[BaseModel] = GatewayConfig) -> dict[str, Any]:
    """Draw a document that the models take: any of the keys, values as text from outside too."""
    document = {}
    for name, info in model.model_fields.items():
        if info.is_required() or draw(st.booleans()):
            document[name] = draw(_value(name, info))
    if "topic" in model.model_fields and not {"topic", "subject"} & document.keys():
        # What editors are told beyond the models: one of the two must be there.
        place = draw(st.sampled_from(["topic", "subject"]))
        document[place] = draw(_value(place, model.model_fields[place]))
    return document


def _value(name: str, info: FieldInfo) -> st.SearchStrategy[Any]:
    wanted, optional = bare_type(info.annotation)
    if is_model(wanted):
        return st.none() | drawn(wanted)
    if name == "brokers":
        of_each_kind = drawn(KafkaConfig) | drawn(NatsConfig)
        return st.dictionaries(st.sampled_from(["events", "bus"]), of_each_kind, min_size=1)
    inner: Any = _inner(wanted)
    if is_model(inner):
        if get_origin(wanted) is dict:
            return st.dictionaries(st.sampled_from(["a", "b-2"]), drawn(inner), min_size=1)
        return st.lists(drawn(inner), min_size=1, max_size=2)
    plain = st.sampled_from([_full_value(name, info), *_default(info)])
    choices = plain | _from_outside(plain)
    return choices | st.sampled_from([None, VARIABLE + "}"]) if optional else choices


def _default(info: FieldInfo) -> list[Any]:
    return [] if info.is_required() else [as_written(info.default, info)]


def _from_outside(plain: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Have scalars, and lists of texts, come from a variable."""

    def put_in(value: Any) -> Any:
        if isinstance(value, list):
            return VARIABLE + ",".join(value) + "}" if value else value
        if isinstance(value, bool):
            return VARIABLE + str(value).lower() + "}"
        scalar = isinstance(value, str | int | float)
        return f"{VARIABLE}{value}}}" if scalar else value

    return plain.map(put_in)
