"""A model out of a faulty document, so that what is right in it can be checked as well.

Each faulty value is left to its default, or replaced by a stand-in where the field has none.
The result is never used to run anything; what is said about the repaired places is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

from gateway.config.names import Suggester
from gateway.config.problems import MAX_PROBLEMS, DocumentPath
from gateway.config.validation import Fault, Root, validate

__all__ = ["STAND_INS", "Repairs", "repair"]

_MAX_ROUNDS: Final = 8
"""A repair can uncover the next fault, once for each level of the models."""

STAND_INS: Final[dict[str, Any]] = {
    "broker": "stand-in",
    "brokers": {},
    "events": ["stand-in"],
    "kind": "kafka",
    "mechanism": "PLAIN",
    "name": "stand-in",
    "password": "stand-in",
    "routes": [],
    "secrets": ["whsec_c3RhbmQtaW4gc3RhbmQtaW4="],
    "sources": {},
    "subjects": ["stand-in"],
    "targets": [],
    "username": "stand-in",
}
"""A valid value of every field of the config that has no default."""


class Repairs:
    """The places where a model is not what the document says."""

    def __init__(self, paths: Iterable[DocumentPath]) -> None:
        self._paths: set[DocumentPath] = set()
        self._around: set[DocumentPath] = set()
        for path in paths:
            self.add(path)

    def add(self, path: DocumentPath) -> None:
        """Note a place."""
        self._paths.add(path)
        self._around.update(path[:length] for length in range(len(path) + 1))

    def touch(self, path: DocumentPath) -> bool:
        """Tell whether a place is at `path`, in it, or around it."""
        return path in self._around or any(
            path[:length] in self._paths for length in range(len(path))
        )


def repair(
    root: type[Root],
    value: Any,
    faults: tuple[Fault, ...],
    repairs: Repairs,
    stand_ins: Mapping[str, Any] = STAND_INS,
) -> Root | None:
    """Replace what is faulty until the rest is valid; None where too little remains.

    `stand_ins` has a valid value of every field of `root` that has no default. None is given
    too for `MAX_PROBLEMS` faults: there may be more that are not known.
    """
    if len(faults) >= MAX_PROBLEMS:
        return None
    value = deepcopy(value)
    for _ in range(_MAX_ROUNDS):
        if not isinstance(value, dict):
            return None
        for fault in faults:
            repairs.add(fault.place.path)
            repairs.add(_replace(value, fault, stand_ins))
        result = validate(root, value, Suggester(0))
        if not isinstance(result, tuple):
            return result
        faults = result
    return None


def _replace(root: dict[str, Any], fault: Fault, stand_ins: Mapping[str, Any]) -> DocumentPath:
    """Repair one fault, and give the path of what was replaced."""
    place = fault.place
    if fault.at_key:
        return _delete(root, place.path)
    if fault.type in {"union_tag_invalid", "union_tag_not_found", "model_attributes_type"}:
        return _set(root, place.path[:2], {"kind": "kafka"})
    if place.field is None:
        return _set(root, place.path, {})
    if not place.model.model_fields[place.field].is_required():
        return _delete(root, place.field_path)
    return _set(root, place.field_path, deepcopy(stand_ins[place.field]))


def _parent(root: Any, path: DocumentPath) -> Any:
    """Give what holds the end of `path`, or an empty dict where its entry is already gone.

    That happens below a key that is faulty itself.
    """
    for part in path[:-1]:
        try:
            root = root[part]
        except KeyError:
            return {}
    return root


def _delete(root: Any, path: DocumentPath) -> DocumentPath:
    _parent(root, path).pop(path[-1], None)
    return path


def _set(root: Any, path: DocumentPath, value: Any) -> DocumentPath:
    _parent(root, path)[path[-1]] = value
    return path
