"""Which streams take the subjects of one need, and which of them none takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from gateway.brokers.base import Finding, Need
from gateway.brokers.nats.subjects import covers, filter_of, overlaps, takes

_SHOWN = 3
"""Subjects that a message names; of the others it says how many."""

Severity = Literal["ok", "warning", "error"]
Subjects = Mapping[str, Sequence[str]]
"""The subjects of streams, by their names."""


class Streams(msgspec.Struct, frozen=True):
    """What is there, and what the config says is to be there."""

    broker: str
    there: Subjects
    """Of the streams that are there and may take something of the need."""
    planned: Subjects
    """Of those of the config that are not there yet: the gateway creates them at its start."""
    kept: Subjects
    """Of those of the config that are there, and so are left as they are: what the config says."""


def coverage(need: Need, streams: Streams) -> list[Finding]:
    """Say of the need which streams take it, and what would be right where none does."""
    if need.templated and not need.expected:
        return _by_prefix(need, streams)
    forms = need.expected if need.templated else (need.destination,)
    there = _taken(forms, streams.there)
    rest = _without(forms, there)
    planned = _taken(rest, streams.planned)
    rest = _without(rest, planned)
    partly = {form: found for form in rest if (found := _parts(form, streams.there))}
    missing = [form for form in rest if form not in partly]
    findings = [_ok(need, name, taken, forms) for name, taken in there.items()]
    findings += [_planned(need, name, taken, forms) for name, taken in planned.items()]
    findings += [_partly(need, form, parts) for form, parts in partly.items()]
    if missing:
        findings.append(_missing(need, missing, forms, streams))
    if len(there) + len(planned) > 1:
        findings.append(_several(need, [*there, *planned]))
    return findings if missing else findings + _later(need, streams, [*there, *planned])


def clashes(name: str, subjects: Iterable[str], others: Iterable[str]) -> Finding | None:
    """Say that a stream of the config cannot be created: `others` take what it is to take."""
    taken = sorted(set(others))
    if not taken:
        return None
    message = (
        f"it cannot be created: {_and(taken)} already takes subjects of {', '.join(subjects)}, and"
        " no two streams may take one subject; change either"
    )
    return Finding("error", f"stream {name}", message)


def _by_prefix(need: Need, streams: Streams) -> list[Finding]:
    """Of a template of which nothing but its beginning is known."""
    for subjects, say in ((streams.there, _ok), (streams.planned, _planned)):
        fitting = [name for name, own in subjects.items() if any(takes(one, need) for one in own)]
        if fitting:
            return [say(need, name, (), ()) for name in fitting]
    return [_missing(need, (f"{need.destination}*",), (), streams)]


def _taken(forms: Iterable[str], streams: Subjects) -> dict[str, list[str]]:
    """Give the forms by the stream that takes all that they stand for."""
    taken: dict[str, list[str]] = {}
    for form in forms:
        for name, subjects in streams.items():
            if any(covers(subject, form) for subject in subjects):
                taken.setdefault(name, []).append(form)
    return taken


def _without(forms: Iterable[str], taken: Mapping[str, Iterable[str]]) -> list[str]:
    done = {form for own in taken.values() for form in own}
    return [form for form in forms if form not in done]


def _parts(form: str, streams: Subjects) -> dict[str, list[str]]:
    """Give the subjects that take a part of what a form stands for, by their streams."""
    return {
        name: parts
        for name, subjects in streams.items()
        if (parts := [subject for subject in subjects if overlaps(subject, form)])
    }


def _ok(need: Need, stream: str, taken: Sequence[str], forms: Sequence[str]) -> Finding:
    what = "it" if len(taken) == len(forms) else listed(taken)
    return Finding("ok", about(need), f"stream {stream} takes {what}")


def _planned(need: Need, stream: str, taken: Sequence[str], forms: Sequence[str]) -> Finding:
    what = "" if len(taken) == len(forms) else f" for {listed(taken)}"
    message = (
        f"stream {stream} does not exist; it is created when the gateway starts{what}"
        f" (used by {need.used_by})"
    )
    return Finding("warning", about(need), message)


def _partly(need: Need, form: str, parts: Subjects) -> Finding:
    subjects = [subject for own in parts.values() for subject in own]
    wide = _wild(form)
    message = (
        f"{_streams(parts)} {_verb(parts)} only {listed(subjects)} of {form}: a record for another"
        f" subject is refused (no_stream); give {wide} to one stream (used by {need.used_by})"
    )
    return Finding("warning", about(need), message)


def _missing(need: Need, missing: Sequence[str], forms: Sequence[str], streams: Streams) -> Finding:
    is_all = len(missing) == len(forms) or not forms
    wanted = [filter_of(need)] if is_all else _widened(missing)
    what = "this subject" if is_all else listed(missing)
    # One that the config has too was meant for it.
    kept = [
        name
        for name, subjects in streams.kept.items()
        if any(overlaps(subject, form) for subject in subjects for form in missing)
    ]
    if kept:
        right = (
            f"stream {kept[0]} is there with other subjects than in"
            f" brokers.{streams.broker}.streams, and is left as it is; add {listed(wanted)} to it"
        )
    elif streams.there and not is_all:
        right = (
            f"add {listed(wanted)} to {_streams(streams.there)}, or create a stream, or take the"
            " types out of the route"
        )
    else:
        right = (
            f"create one (nats stream add NAME --subjects='{','.join(wanted)}'), or name it in"
            f" brokers.{streams.broker}.streams"
        )
    return Finding(
        "error", about(need), f"no stream takes {what}; {right} (used by {need.used_by})"
    )


def _several(need: Need, streams: Sequence[str]) -> Finding:
    message = (
        f"{_streams(streams)} share its subjects: whoever reads one misses the others, and the"
        f" order of a user's events is kept within one only; one stream with {filter_of(need)}"
        f" takes all (used by {need.used_by})"
    )
    return Finding("warning", about(need), message)


def _later(need: Need, streams: Streams, names: Sequence[str]) -> list[Finding]:
    subjects = [one for own in (streams.there, streams.planned) for n in own for one in own[n]]
    left = [form for form in need.later if not any(covers(one, form) for one in subjects)]
    if not left or not names:
        return []
    wide = list(dict.fromkeys(map(_wild, left)))
    message = (
        f"no stream takes all of {listed(wide)}: a type that is new would be refused (no_stream);"
        f" add that to {_streams(names[:1])} (used by {need.used_by})"
    )
    return [Finding("warning", about(need), message)]


def _widened(forms: Sequence[str]) -> list[str]:
    """Give patterns that take all of the forms: with a wildcard for the last token."""
    return list(
        dict.fromkeys(f"{form.rpartition('.')[0]}.*" if "." in form else form for form in forms)
    )


def _wild(form: str) -> str:
    """Give the pattern that takes all that a form stands for: a wildcard is a whole token."""
    return ".".join("*" if "*" in token else token for token in form.split("."))


def listed(subjects: Sequence[str]) -> str:
    """Name the first of the subjects, and say how many there are beside."""
    shown = list(subjects[:_SHOWN])
    more = len(subjects) - len(shown)
    return _and([*shown, f"{more} more"] if more else shown)


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _streams(names: Iterable[str]) -> str:
    listed = list(names)
    return f"stream{'s' if len(listed) > 1 else ''} {_and(listed)}"


def _verb(names: Mapping[str, object]) -> str:
    return "takes" if len(names) == 1 else "take"


def about(need: Need) -> str:
    """Give what a finding of a need is about: its subject, or the beginning of its subjects."""
    return f"{need.destination}*" if need.templated else need.destination
