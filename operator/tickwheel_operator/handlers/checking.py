"""Parameters against the schemas of a handler: what is wrong, where, what is allowed.

Invariants: the work of a check is bounded, whatever the schema and the parameters are; parameters are refused only if
every schema refuses them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from jsonschema_rs import Draft202012Validator, ValidationError

from tickwheel_operator.handlers.simplified import PATTERNS, UnusableSchema, simplified
from tickwheel_operator.handlers.words import example, summary

__all__ = ["MOST_WORK", "Checker", "Checkers", "ParameterFault", "Refusal"]

_log = logging.getLogger(__name__)

MOST_WORK = 4_000_000
"""Bytes of the schema, its references written out, times bytes of the parameters; above it they are not checked."""
_WORK_OF_ALL = 50_000
"""Up to this all faults are looked for; above it only the first, since each takes up to 100 times as long."""
_FAULTS_SHOWN = 3
_MOST_MADE = 1_000
"""Checkers that are kept."""
_CHARS = 200


class ParameterFault(NamedTuple):
    """One thing that is wrong with parameters."""

    path: str
    """Such as `spec.parameters.shop`."""
    message: str
    missing: bool
    """A required parameter is not there; `path` is where it belongs."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Refusal(NamedTuple):
    """Why parameters fit no schema of a handler."""

    faults: list[ParameterFault]
    """By the first schema; at least one."""
    takes: str
    """What the handler takes, and an example. Empty: the schema says odd things."""

    def __str__(self) -> str:
        wrong = "; ".join(dict.fromkeys(map(str, self.faults[:_FAULTS_SHOWN])))
        more = f"; and {len(self.faults) - _FAULTS_SHOWN} more faults" if len(self.faults) > _FAULTS_SHOWN else ""
        return f"{wrong}{more}" + (f". {self.takes}" if self.takes else "")


class Checker:
    """One schema of a handler's parameters. What it needs is made at the first check."""

    __slots__ = ("_made", "_size_bytes", "_validator", "schema", "source")

    def __init__(self, source: bytes) -> None:
        self.source = source
        """JSON, as the worker sent it."""
        self.schema: Any = True
        """What is checked against, once it was made."""
        self._made = False
        self._size_bytes = 0
        self._validator: Draft202012Validator | None = None

    def faults(self, parameters: bytes, decoded: Any) -> Iterable[ValidationError]:
        """What is wrong with the parameters; `parameters` are the bytes of `decoded`."""
        if not self._made:
            self._make()
        work = self._size_bytes * len(parameters)
        if self._validator is None or work > MOST_WORK:
            return ()
        if self._validator.is_valid(decoded):
            return ()
        if work <= _WORK_OF_ALL:
            return self._validator.iter_errors(decoded)
        try:
            self._validator.validate(decoded)
        except ValidationError as first:
            return (first,)
        return ()

    def _make(self) -> None:
        self._made = True
        try:
            self.schema = simplified(msgspec.json.decode(self.source))
            self._size_bytes = len(msgspec.json.encode(self.schema))
            self._validator = Draft202012Validator(self.schema, pattern_options=PATTERNS, offline=True)
        except (UnusableSchema, ValueError, RecursionError) as error:
            _log.warning("parameters are not checked against a handler's schema, which cannot be used: %s", error)


class Checkers:
    """Schemas that are ready to check with, of those that were used last."""

    def __init__(self) -> None:
        self._made: dict[bytes, Checker] = {}

    def refusal(self, handler: str, sources: Sequence[bytes], parameters: bytes, path: str) -> Refusal | None:
        """Why the parameters (a JSON object) fit none of the handler's schemas; None: they fit one, or there is none.
        `path` is where they stand, such as `spec.parameters`."""
        if not sources:
            return None
        decoded = msgspec.json.decode(parameters or b"{}")
        said: Refusal | None = None
        for source in sources:
            checker = self._checker(source)
            faults = list(checker.faults(parameters, decoded))
            if not faults:
                return None
            said = said or Refusal([_fault(fault, path) for fault in faults], _takes(handler, checker))
        return said

    def _checker(self, source: bytes) -> Checker:
        checker = self._made.pop(source, None) or Checker(source)
        self._made[source] = checker  # now the last
        if len(self._made) > _MOST_MADE:
            del self._made[next(iter(self._made))]
        return checker


def _takes(handler: str, checker: Checker) -> str:
    with contextlib.suppress(Exception):  # a schema that says odd things must not hide the fault
        return f"Handler {handler} takes: {summary(checker.schema)}; for example {example(checker.schema)}"
    return ""


def _fault(fault: ValidationError, path: str) -> ParameterFault:
    where = path + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step[:_CHARS]}" for step in fault.instance_path
    )
    text = str(fault.message)
    message = text if len(text) <= _CHARS else f"{text[: _CHARS // 2]}...{text[-_CHARS // 2 :]}"
    return ParameterFault(where, message, missing=fault.kind.name == "required")
