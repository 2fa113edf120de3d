"""The models as the manual: every field explained, and in the example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gateway.config import load_config
from gateway.config.base import bare_type
from gateway.config.models import GatewayConfig, KafkaConfig, ServerConfig
from gateway.config.repair import STAND_INS
from tests.canaries import SECRET

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def models(root: type[BaseModel] = GatewayConfig) -> Iterator[type[BaseModel]]:
    """Give every model that the config is made of."""
    yield root
    for info in root.model_fields.values():
        pending: list[Any] = [info.annotation]
        while pending:
            annotation = pending.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from models(annotation)
            else:
                pending.extend(get_args(annotation))


FIELDS = {
    f"{model.__name__}.{name}": (name, info)
    for model in models()
    for name, info in model.model_fields.items()
}


def test_the_walk_reaches_the_whole_config() -> None:
    assert {"TlsConfig.ca_file", "StreamConfig.max_age", "InboxConfig.path"} <= FIELDS.keys()
    assert len(FIELDS) > 80


@pytest.mark.parametrize(("name", "info"), FIELDS.values(), ids=FIELDS)
def test_every_field_is_explained_with_an_example_that_is_valid(name: str, info: FieldInfo) -> None:
    assert info.description
    assert info.description.rstrip().endswith((".", ")")), "a sentence"
    assert info.examples
    adapter = TypeAdapter[Any](info.rebuild_annotation())
    for example in info.examples:
        if "$" not in str(example):
            adapter.validate_python(_tuples(example, info), strict=True)


def _tuples(value: Any, info: FieldInfo) -> Any:
    """Lists of plain values are tuples to a strict adapter; in models the models see to it."""
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize(("name", "info"), FIELDS.values(), ids=FIELDS)
def test_every_field_is_in_the_example_file(name: str, info: FieldInfo) -> None:
    text = EXAMPLE.read_text()
    assert re.search(rf"(^|[\s{{#]){name}:", text, re.MULTILINE)


def test_every_required_field_has_a_stand_in_that_is_valid() -> None:
    required = {name: info for name, info in FIELDS.values() if info.is_required()}
    assert required.keys() == STAND_INS.keys()
    for name, info in required.items():
        TypeAdapter[Any](info.rebuild_annotation()).validate_python(_tuples(STAND_INS[name], info))


def test_the_example_is_right_without_a_warning_and_holds_the_defaults() -> None:
    loaded = load_config(EXAMPLE, {"CLERK_WEBHOOK_SIGNING_SECRET": SECRET})
    assert loaded.warnings == ()
    config = loaded.config
    for part in (config.server, config.admin, config.log, config.headers):
        assert part == type(part)()
    broker = config.brokers["events"]
    assert broker == KafkaConfig(kind="kafka", servers=("localhost:9092",))


def test_what_the_example_has_commented_out_is_right_too(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text().split("\n")
    head = next(at for at, line in enumerate(lines) if line.startswith("server:"))
    text = "\n".join(
        re.sub(r"^(\s+)# ?(\s*(?:- )?[a-z_]+:( |$).*)", r"\1\2", line) if at > head else line
        for at, line in enumerate(lines)
    )
    text = text.replace("# accept (200)", "")
    path = tmp_path / "all.yaml"
    path.write_text(text)
    env = dict.fromkeys(("NATS_TOKEN", "NATS_PASSWORD"), "x")
    env["CLERK_WEBHOOK_SIGNING_SECRET"] = SECRET
    with pytest.raises(Exception, match="log in one way") as caught:
        load_config(path, env)
    # All keys are known: what remains are choices that exclude each other, and missing files.
    assert "unknown key" not in str(caught.value)
    assert "expected" not in str(caught.value)


def test_models_are_frozen_and_closed() -> None:
    server = ServerConfig()
    with pytest.raises(ValidationError, match="frozen"):
        server.port = 1
    with pytest.raises(ValidationError, match="Extra inputs"):
        ServerConfig.model_validate({"nope": 1})


def test_code_may_give_numbers_and_lists() -> None:
    server = ServerConfig.model_validate({"deadline": 1.5, "trusted_proxies": ["::1"]})
    assert (server.deadline, server.trusted_proxies) == (1.5, ("::1",))


def test_a_union_of_types_is_not_bare() -> None:
    union = int | str | None
    assert bare_type(union) == (union, True)
    assert bare_type(int | None) == (int, True)
    assert bare_type(int | str) == (int | str, False)
