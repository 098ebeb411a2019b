"""A schema in words and as an example, for the person whose parameters were refused."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["example", "summary"]

_SHOWN = 10
_LEVELS = 4
_CHARS = 300


def summary(schema: Any) -> str:
    """The parameters of a handler: names, types, and which are required."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not properties:
        return "any" if isinstance(schema, dict) and schema.get("additionalProperties", True) else "none"
    required = schema.get("required", ())
    names = sorted(properties, key=lambda name: name not in required)
    said = [f"{name} ({_kind(properties[name])}{', required' if name in required else ''})" for name in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(said) + more


def example(schema: Any) -> str:
    """JSON with the required parameters; one that the rarer keywords refuse is possible."""
    return msgspec.json.encode(_value(schema, _LEVELS)).decode()[:_CHARS]


def _kind(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "anything"
    if "const" in schema:
        return _json(schema["const"])
    if isinstance(values := schema.get("enum"), list):
        said = " or ".join(_json(value) for value in values[:_SHOWN])
        return said + (f" or {len(values) - _SHOWN} others" if len(values) > _SHOWN else "")
    if isinstance(choices := schema.get("anyOf") or schema.get("oneOf"), list):
        return " or ".join(dict.fromkeys(_kind(choice) for choice in choices[:_SHOWN]))
    if isinstance(parts := schema.get("allOf"), list) and parts:
        return _kind(parts[0])
    kind = schema.get("type")
    words = [str(one) for one in kind] if isinstance(kind, list) else [str(kind)] if kind else ["anything"]
    return " or ".join(words)


def _value(schema: Any, levels: int) -> Any:
    if not isinstance(schema, dict) or levels == 0:
        return "..."
    if "const" in schema:
        return schema["const"]
    if isinstance(values := schema.get("enum"), list) and values:
        return values[0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(choices := schema.get(keyword), list) and choices:
            return _value(choices[0], levels)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = schema.get("properties", {})
            return {
                name: _value(properties.get(name), levels - 1) for name in list(schema.get("required", ()))[:_SHOWN]
            }
        case "array":
            return [_value(schema["items"], levels - 1)] if "items" in schema else []
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1 if "exclusiveMinimum" in schema else 1)
            return min(least, schema["maximum"]) if "maximum" in schema else least
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "..."


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:50]
