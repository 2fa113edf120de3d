"""What becomes of an event by docs/routing.md, docs/consumers.md and docs/http.md.

It shares no code with the gateway and is naive on purpose: every rule is written once more, from
the text, over the config as it stands in the file. JMESPath is the library's own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

Refused = tuple[str, str]
"""A broker, and the reason."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PAYER = ["data.payer.organization_id", "data.payer.user_id", "data.id"]
_KEYS = {
    "email": ["data.user_id", "data.id"],
    "sms": ["data.user_id", "data.id"],
    "session": ["data.user_id", "data.id"],
    "organizationDomain": ["data.organization_id", "data.id"],
    "organizationInvitation": ["data.organization_id", "data.id"],
    "organizationMembership": ["data.organization.id", "data.id"],
    "paymentAttempt": _PAYER,
    "subscription": _PAYER,
    "subscriptionItem": _PAYER,
}


class _Refusal(Exception):
    """A target that never gets the event."""


@dataclass(frozen=True)
class Expected:
    """What must come of an event."""

    status: int
    word: str
    verdicts: dict[str, str] = field(default_factory=dict)
    records: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    """(broker, destination, key, names of routes, extra headers, value as JSON)."""
    refusals: Counter[Refused] = field(default_factory=Counter)


def expected(config: dict[str, Any], source: str, body: bytes, svix_id: str) -> Expected:
    """Say what becomes of a body that comes to a source under this id."""
    if len(body) > {"512KiB": 512 * 1024, "2KiB": 2048}[config["server"]["max_body"]]:
        return Expected(413, "rejected")
    try:
        document = json.loads(body)
    except ValueError:
        return Expected(400, "rejected")
    if not isinstance(document, dict):
        return Expected(400, "rejected")
    settings = config["sources"][source]
    event_type = jmespath.search(settings.get("type", "type"), document)
    if not isinstance(event_type, str) or not event_type:
        if settings.get("kind", "clerk") == "clerk":
            return Expected(400, "rejected")
        event_type = None
    elif len(event_type) > 256:
        return Expected(400, "rejected")
    return _Event(config, source, body, document, event_type, svix_id).expected()


@dataclass
class _Event:
    config: dict[str, Any]
    source: str
    body: bytes
    document: dict[str, Any]
    type: str | None
    svix_id: str

    def expected(self) -> Expected:
        verdicts: dict[str, str] = {}
        met: dict[tuple[Any, ...], list[str]] = {}
        values: dict[tuple[Any, ...], Any] = {}
        refusals: Counter[Refused] = Counter()
        for route in self.config["routes"]:
            verdicts[route["name"]] = verdict = self.verdict(route)
            if verdict not in {"matches", "failed"}:
                continue
            for target in route["targets"]:
                if verdict == "failed":
                    refusals[target["broker"], "expression"] += 1
                    continue
                try:
                    record = self.record(route["name"], target)
                except _Refusal as refusal:
                    refusals[target["broker"], str(refusal)] += 1
                    continue
                names = met.setdefault(record, [])
                if route["name"] not in names:
                    names.append(route["name"])
                values[record] = self.value(target)
        records: Counter[tuple[Any, ...]] = Counter()
        for record, names in met.items():
            broker, destination, key, _payload, _redact, headers = record
            if sum(len(name) + len(value) for name, value in headers) > 8192:
                refusals[broker, "too_large"] += 1
            elif " " in destination:
                refusals[broker, "invalid_destination"] += 1
            else:
                value = json.dumps(values[record], sort_keys=True)
                records[broker, destination, key, ",".join(names), headers, value] += 1
        return self.answered(verdicts, records, refusals)

    def answered(
        self,
        verdicts: dict[str, str],
        records: Counter[tuple[Any, ...]],
        refusals: Counter[Refused],
    ) -> Expected:
        if not records and not refusals:
            policy = self.config["unmatched"]
            if policy == "dead_letter":
                unmatched = Counter({("", "unmatched"): 1})
                return Expected(200, "dead_lettered", verdicts, records, unmatched)
            status = {"accept": 200, "reject": 422}[policy]
            return Expected(status, "unmatched", verdicts)
        if not refusals:
            return Expected(200, "delivered", verdicts, records)
        if "dead_letter" in self.config["delivery"]:
            return Expected(200, "dead_lettered", verdicts, records, refusals)
        return Expected(503, "failed", verdicts, records, refusals)

    def verdict(self, route: dict[str, Any]) -> str:
        if self.type is None:
            return "no_type"
        if self.source not in route.get("sources", [self.source]):
            return "source"
        if not any(_fits(pattern, self.type) for pattern in route["events"]):
            return "events"
        if any(_fits(pattern, self.type) for pattern in route.get("exclude", [])):
            return "exclude"
        return self.condition(route) if "when" in route else "matches"

    def condition(self, route: dict[str, Any]) -> str:
        try:
            value = self.search(route["when"], route["name"])
        except _Refusal:
            return "failed"
        is_false = value is None or value is False or value in ("", [], {})
        return "when" if is_false else "matches"

    def search(self, expression: str, route: str) -> Any:
        own = {"source": self.source, "route": route, "svix_id": self.svix_id}
        if self.type is not None:
            own["type"] = self.type
        try:
            return jmespath.search(expression, {**self.document, **own})
        except (JMESPathError, TypeError, ValueError, KeyError):
            raise _Refusal("expression") from None

    def record(self, route: str, target: dict[str, Any]) -> tuple[Any, ...]:
        """Give what makes two records the same."""
        template = target.get("topic") or target["subject"]
        destination = self.render(template, route, self.token)
        key = self.render(target.get("key", ""), route, _text) or self.default_key()
        headers = tuple(
            sorted(
                (name, _clean(self.render(value, route, _text)))
                for name, value in target.get("headers", {}).items()
            )
        )
        if "{" in template:
            self.check(target["broker"], destination)
        payload, redact = target.get("payload", "original"), frozenset(target.get("redact", []))
        return target["broker"], destination, key, payload, redact, headers

    def check(self, broker: str, destination: str) -> None:
        """Refuse what a template rendered and the file names for something else."""
        named = {
            (target["broker"], target.get("topic") or target["subject"])
            for route in self.config["routes"]
            for target in route["targets"]
        }
        letter = self.config["delivery"].get("dead_letter")
        if letter:
            name = letter.get("topic") or letter["subject"]
            named |= {(letter["broker"], name), (letter["broker"], f"{name}.state")}
        longest = 249 if broker == "events" else 1024
        if (broker, destination) in named or len(destination) > longest:
            raise _Refusal("destination")

    def render(self, template: str, route: str, write: Any) -> str:
        """Put values into a template; `{{` is one brace."""
        rendered = ""
        for part in re.findall(r"\{\{|\}\}|\{[^}]*\}|[^{}]+", template):
            if part in {"{{", "}}"}:
                rendered += part[0]
            elif part[0] == "{":
                rendered += write(self.search(part[1:-1], route), part == "{type}")
            else:
                rendered += part
        if write is _text and len(rendered) > 8192:
            raise _Refusal("too_large")
        return rendered

    def token(self, value: Any, is_type: bool) -> str:
        """Write a value into a topic or subject."""
        if value is None or value == "" or isinstance(value, dict | list):
            raise _Refusal("expression")
        text = _text(value)
        allowed = _LETTERS + ("_-." if is_type else "_-")
        safe = "".join(char if char in allowed else "_" for char in text)
        if is_type:
            # No token may be empty: a dot at either end, or before another, is replaced too.
            around = f".{safe}."
            safe = "".join(
                "_" if char == "." and (at == 0 or around[at + 2] == ".") else char
                for at, char in enumerate(safe)
            )
        if safe == text and len(text) <= 128:
            return text
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{safe[:119].rstrip('.')}-{digest}"

    def default_key(self) -> str:
        entity = (self.type or "").split(".")[0]
        for path in _KEYS.get(entity, ["data.id"]):
            value = jmespath.search(path, self.document)
            if isinstance(value, str | int) and not isinstance(value, bool) and value:
                return str(value) if len(str(value)) <= 512 else self.svix_id
        return self.svix_id

    def value(self, target: dict[str, Any]) -> Any:
        payload = target.get("payload", "original")
        if payload == "original":
            return self.body.decode()
        shown = json.loads(self.body)
        for path in target.get("redact", []):
            _leave_out(shown, path.split("."))
        return shown.get("data") if payload == "data" else shown


def _fits(pattern: str, event_type: str) -> bool:
    if pattern == "*":
        return True
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else pattern == event_type


def _text(value: Any, _is_type: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _clean(text: str) -> str:
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]", "", text)


def _leave_out(value: Any, path: list[str]) -> None:
    if isinstance(value, list):
        for element in value:
            _leave_out(element, path)
    elif isinstance(value, dict) and len(path) == 1:
        value.pop(path[0], None)
    elif isinstance(value, dict):
        _leave_out(value.get(path[0]), path[1:])
