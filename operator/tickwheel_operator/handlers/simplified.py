"""A worker's JSON Schema made safe to check with: no reference, no recursion, a bounded number of parts.

Workers are not trusted with the operator's time, and a schema with references can take time that grows exponentially
with the value. So references are written out, the number of parts is bounded, and where a reference leads into itself
anything is allowed. Invariant: the result accepts all that the schema accepts; where it is less strict, the handler's
own check decides.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec
from jsonschema_rs import Draft202012Validator, RegexOptions

__all__ = ["MOST_PARTS", "PATTERNS", "UnusableSchema", "simplified"]

MOST_PARTS = 2_000
"""The most that a schema may have once its references are written out. Patterns and long values are several."""
PATTERNS = RegexOptions(size_limit=256 * 1024, dfa_size_limit=256 * 1024)
"""Expressions that are matched in linear time."""
_PATTERN_CHARS = 1_000
_PARTS_OF_A_PATTERN = 20
"""Making one costs as much."""
_BYTES_A_PART = 16
"""Long values and names count as several parts."""

_KEPT = frozenset(
    (
        "type", "const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "required",
        "dependentRequired",
    )
)  # fmt: skip
_ONE = frozenset(("additionalProperties", "items", "propertyNames"))
_NAMED = frozenset(("properties", "dependentSchemas"))


class UnusableSchema(Exception):
    """The operator cannot check with it; the text says why."""


def simplified(schema: object) -> Any:
    """Raises `UnusableSchema`."""
    return _Writer(schema).write(schema, ())[0]


class _Writer:
    def __init__(self, document: object) -> None:
        self._document = document
        self._parts = 0

    def write(self, schema: object, inside: tuple[str, ...]) -> tuple[Any, bool]:
        """The schema, and whether it is less strict than the one given. `inside` are the references on the way."""
        if isinstance(schema, bool):
            return schema, False
        if not isinstance(schema, dict):
            raise UnusableSchema(f"a schema must be an object, true or false, not {str(schema)[:50]!r}")
        result: dict[str, Any] = {}
        loose = False
        for keyword, value in schema.items():
            self._count(1)
            loose |= self._keyword(keyword, value, result, inside)
        if "$ref" not in schema:
            return result, loose
        target, less = self._referred(schema["$ref"], inside)
        return ({"allOf": [target, result]} if result else target), loose or less

    def _keyword(self, keyword: str, value: Any, result: dict[str, Any], inside: tuple[str, ...]) -> bool:
        loose = False
        if keyword in _KEPT:
            self._count(len(msgspec.json.encode(value)) // _BYTES_A_PART)
            result[keyword] = value
        elif keyword == "pattern":
            self._count(_PARTS_OF_A_PATTERN)
            if not _is_usable(value):
                return True
            result[keyword] = value
        elif keyword in _ONE:
            result[keyword], loose = self.write(value, inside)
        elif keyword == "allOf":
            written, loose = self._list(keyword, value, inside)
            result.setdefault("allOf", []).extend(written)
        elif keyword in ("anyOf", "prefixItems"):
            result[keyword], loose = self._list(keyword, value, inside)
        elif keyword == "oneOf":
            written, loose = self._list(keyword, value, inside)
            # A branch that accepts more than it should would make two match.
            result.setdefault("allOf", []).append({"anyOf" if loose else keyword: written})
        elif keyword in _NAMED or keyword == "patternProperties":
            result[keyword], loose = self._named(keyword, value, inside)
        elif keyword in ("not", "if", "then", "else", "contains", "unevaluatedProperties", "unevaluatedItems"):
            return True  # rare, and not to be loosened: left to the handler
        return loose

    def _list(self, keyword: str, value: Any, inside: tuple[str, ...]) -> tuple[list[Any], bool]:
        if not isinstance(value, list):
            raise UnusableSchema(f"{keyword} must be a list of schemas")
        written = [self.write(one, inside) for one in value]
        return [schema for schema, _ in written], any(loose for _, loose in written)

    def _named(self, keyword: str, value: Any, inside: tuple[str, ...]) -> tuple[dict[str, Any], bool]:
        if not isinstance(value, dict):
            raise UnusableSchema(f"{keyword} must be an object of schemas")
        self._count(sum(map(len, value)) // _BYTES_A_PART)
        written = {
            name: (True, True) if keyword == "patternProperties" and not _is_usable(name) else self.write(one, inside)
            for name, one in value.items()
        }
        return {name: schema for name, (schema, _) in written.items()}, any(loose for _, loose in written.values())

    def _referred(self, reference: object, inside: tuple[str, ...]) -> tuple[Any, bool]:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise UnusableSchema(f"$ref {str(reference)[:100]!r}: only references inside of the schema are followed")
        if reference in inside:
            return True, True
        found = self._document
        for step in filter(None, reference[1:].split("/")):
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise UnusableSchema(f"$ref {reference[:100]!r} leads nowhere")
            found = found[name]
        return self.write(found, (*inside, reference))

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > MOST_PARTS:
            raise UnusableSchema(f"it has more than {MOST_PARTS:,} parts once its references are written out")


def _is_usable(pattern: object) -> bool:
    return isinstance(pattern, str) and len(pattern) <= _PATTERN_CHARS and _compiles(pattern)


@functools.lru_cache(maxsize=1_000)
def _compiles(pattern: str) -> bool:
    """One with look-around does not: it cannot be matched in linear time."""
    try:
        Draft202012Validator({"pattern": pattern}, pattern_options=PATTERNS, offline=True)
    except ValueError:
        return False
    return True
