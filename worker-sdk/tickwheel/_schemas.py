"""The JSON Schemas of handlers, from their annotations, as workers register them.

The operator shows them in the pool's status and checks parameters against them when somebody asks for a run. Invariant:
a schema never refuses what the handler takes for want of a better description: what cannot be described is left open.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from pydantic.json_schema import GenerateJsonSchema

from ._protocol import MAX_SCHEMA_BYTES, MAX_SCHEMAS_BYTES, HandlerSchema
from ._registry import Handler

__all__ = ["Described", "describe"]

_log = logging.getLogger("tickwheel.worker")
_UNDESCRIBED = (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUndefinedAnnotation)
_NOTHING = HandlerSchema()
_encoder = msgspec.json.Encoder(order="sorted")


class Described(NamedTuple):
    """All handlers of a worker."""

    hash: str
    """Names these schemas: equal for equal ones."""
    schemas: dict[str, HandlerSchema]


class _Plain(GenerateJsonSchema):
    """Without titles made of names, which say nothing new, and without defaults: these may come from the environment,
    and a schema is shown to everybody who may read the pool."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])


def describe(handlers: Mapping[str, Handler]) -> Described:
    """The schemas of these handlers. What is too large is left open, with a warning in the log."""
    schemas: dict[str, HandlerSchema] = {}
    size_bytes = 0
    for name in sorted(handlers):
        schema = HandlerSchema(parameters=_parameters(handlers[name]), result=_result(handlers[name]))
        own_bytes = len(schema.parameters) + len(schema.result)
        if max(len(schema.parameters), len(schema.result)) > MAX_SCHEMA_BYTES:
            _log.warning(
                "handler %s: the JSON Schema of its parameters or result has more than %d bytes, so it is not "
                "registered: the operator shows none and checks nothing; simplify the types, or annotate with dict",
                *(name, MAX_SCHEMA_BYTES),
            )
        elif size_bytes + own_bytes > MAX_SCHEMAS_BYTES:
            _log.warning(
                "handler %s: the JSON Schemas of all handlers have more than %d bytes, so its own is not registered: "
                "the operator shows none and checks nothing; divide the handlers among several pools",
                *(name, MAX_SCHEMAS_BYTES),
            )
        else:
            size_bytes += own_bytes
            schemas[name] = schema
            continue
        schemas[name] = _NOTHING
    return Described(hashlib.sha256(_encoder.encode(schemas)).hexdigest()[:32], schemas)


def _parameters(handler: Handler) -> msgspec.Raw:
    adapters = [(name, adapter) for name, adapter in handler.adapters.items() if adapter is not None]
    found, definitions = _schemas([(name, "validation", adapter) for name, adapter in adapters])
    document: dict[str, Any] = {
        "type": "object",
        "properties": {name: found.get(name, {}) for name in handler.adapters},
        "additionalProperties": handler.open,
    }
    if handler.required:
        document["required"] = list(handler.required)
    return msgspec.Raw(_encoder.encode(document | definitions))


def _result(handler: Handler) -> msgspec.Raw:
    try:
        adapter = TypeAdapter[Any](handler.result_hint())
    except _UNDESCRIBED:
        return msgspec.Raw(b"{}")
    found, definitions = _schemas([("result", "serialization", adapter)])
    return msgspec.Raw(_encoder.encode(found.get("result", {}) | definitions))


def _schemas(
    wanted: Sequence[tuple[str, Literal["validation", "serialization"], TypeAdapter[Any]]],
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """By name, and the definitions that they share. One that has no schema, such as a type with a validator of its
    own, is left out."""
    usable = [item for item in wanted if _has_schema(*item)]
    found, shared = TypeAdapter.json_schemas(usable, schema_generator=_Plain)
    return {str(name): schema for (name, _), schema in found.items()}, {
        key: value for key, value in shared.items() if key == "$defs"
    }


def _has_schema(name: str, mode: Literal["validation", "serialization"], adapter: TypeAdapter[Any]) -> bool:
    try:
        _encoder.encode(adapter.json_schema(mode=mode, schema_generator=_Plain))
    except (*_UNDESCRIBED, TypeError, ValueError):
        return False
    return True
