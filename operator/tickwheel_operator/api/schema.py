"""The ground that all API models stand on: strict, frozen models that carry their CRD rules with them.

A rule that crosses fields is written once, as a `Rule`: its CEL goes into the CRD for the API server and
its `holds` is what `parse` asks where there is no API server (`tickwheel dev`, `tickwheel lint`).
Invariant: both sides refuse the same manifests; the corpus of bad manifests in the integration tests is
sent to both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = ["Flag", "JsonObject", "ListOf", "Model", "Number", "Rule", "Whole", "at_most_one", "exactly_one"]

RULES = "x-kubernetes-validations"

Whole = Annotated[int, Strict()]
"""A whole number; text and booleans are refused."""
Flag = Annotated[bool, Strict()]
"""`true` or `false`; text and numbers are refused."""
Number = Annotated[float, Strict()]
"""A number; text is refused."""
JsonObject = dict[str, Any]
"""Any JSON object: the API server keeps all of its fields."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on a model, for the API server (CEL) and for Python."""

    cel: str
    """`self` is the object; cheap enough for the API server's cost budget."""
    message: str
    """What is allowed, for the person who wrote the manifest."""
    holds: Callable[[Any], bool] = lambda _: True
    """The same condition on the model. Transition rules (`oldSelf`) have no counterpart: a file has no past."""

    def schema(self) -> JsonSchemaValue:
        return {"rule": self.cel, "message": self.message}


class Model(BaseModel):
    """An object of the API. Unknown fields are refused, fields are camelCase, docstrings are descriptions."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Conditions that cross fields."""

    @model_validator(mode="after")
    def _keep_rules(self) -> Any:
        for rule in type(self).rules:
            if not rule.holds(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        result = handler(schema)
        if cls.rules:
            handler.resolve_ref_schema(result)[RULES] = [rule.schema() for rule in cls.rules]
        return result

    def manifest(self) -> dict[str, Any]:
        """The object as JSON, as its user would write it: only what was set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


@dataclass(frozen=True, slots=True)
class ListOf:
    """Bounds and merge behaviour of a list field: `Annotated[tuple[Lane, ...], ListOf(most=16, key="name")]`."""

    most: int
    """The most entries."""
    least: int = 0
    key: str = ""
    """Entries are known by this field, which no two may share (list type `map`)."""
    unique: bool = False
    """No two entries are equal (list type `set`)."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        result = handler(schema)
        result["maxItems"] = self.most
        if self.least:
            result["minItems"] = self.least
        if self.key:
            result["x-kubernetes-list-type"] = "map"
            result["x-kubernetes-list-map-keys"] = [self.key]
        else:
            result["x-kubernetes-list-type"] = "set" if self.unique else "atomic"
        return result

    def _read(self, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.least <= len(entries) <= self.most:
            raise PydanticCustomError(
                "length",
                "has {count} entries; {least} to {most} are allowed",
                {"count": len(entries), "least": self.least, "most": self.most},
            )
        if self.key or self.unique:
            names = [getattr(entry, self.key) if self.key else entry for entry in entries]
            twice = next((name for position, name in enumerate(names) if name in names[:position]), None)
            if twice is not None:
                raise PydanticCustomError(
                    "duplicate", "'{name}' stands twice; each entry may stand once", {"name": str(twice)}
                )
        return entries


def exactly_one(*fields: str) -> Rule:
    """The rule of a union that must have a member, by the names that manifests use."""
    return Rule(
        f"{_count(fields)} == 1",
        f"exactly one of {', '.join(fields)} must be set",
        lambda model: _members(model, fields) == 1,
    )


def at_most_one(*fields: str) -> Rule:
    """The rule of a union that may be empty."""
    return Rule(
        f"{_count(fields)} <= 1",
        f"at most one of {', '.join(fields)} may be set",
        lambda model: _members(model, fields) <= 1,
    )


def _count(fields: tuple[str, ...]) -> str:
    return f"[{', '.join(f'has(self.{field})' for field in fields)}].filter(member, member).size()"


def _members(model: Model, fields: tuple[str, ...]) -> int:
    aliases = {info.alias or name: name for name, info in type(model).model_fields.items()}
    return sum(getattr(model, aliases[field]) is not None for field in fields)
