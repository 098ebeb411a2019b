"""From a document (a mapping, as YAML or the API server gives it) to a resource, or to what is wrong with it.

Called by the controllers for objects of the API server, and by `tickwheel dev`, `run --file` and `lint` for
files. Beside the schema it asks what CEL cannot: whether the cron expression can be read, whether the time
zone exists, whether the parameters fit.
Invariants: a returned resource is complete and valid, defaults filled in; every fault names its field;
`status` is never read, so an object with a damaged status parses.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tickwheel_operator.api.faults import FieldFault, InvalidManifest, shown
from tickwheel_operator.api.kinds import KINDS
from tickwheel_operator.api.nesting import MOST_LEVELS
from tickwheel_operator.api.resource import API_VERSION, GROUP, Resource
from tickwheel_operator.api.scalars import stays_text
from tickwheel_operator.api.schema import Model
from tickwheel_operator.api.text import ObjectName

__all__ = ["parse"]

_BY_NAME = {kind.kind_name(): kind for kind in KINDS}
_PLAIN = re.compile("[A-Za-z0-9][-A-Za-z0-9_.:/]*")
_JSON_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text (quote it)",
    "dict_type": "an object (fields with values)",
    "model_type": "an object (fields with values)",
    "model_attributes_type": "an object (fields with values)",
    "tuple_type": "a list",
}


def parse(document: Mapping[str, Any]) -> Resource:
    """The resource that the document describes.

    Raises
    ------
    InvalidManifest
        With one fault for each thing to mend.
    """
    kind = _kind_of(document)
    body = _written(document)
    if faults := list(_faults_of_shape(body)):
        raise InvalidManifest(faults)
    try:
        # by_name: the models have Python names too; a manifest has not.
        resource = kind.model_validate(body, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidManifest([_fault(kind, detail) for detail in error.errors(include_url=False)]) from None
    if faults := [*_faults_of_identity(resource), *resource.faults_of_meaning()]:
        raise InvalidManifest(faults)
    return resource


def _kind_of(document: Mapping[str, Any]) -> type[Resource]:
    version = document.get("apiVersion")
    if version != API_VERSION:
        known = f"{API_VERSION} is the version of {GROUP} that is served"
        raise InvalidManifest([FieldFault("apiVersion", f"{version!r} is not known; {known}")])
    name = document.get("kind")
    if not isinstance(name, str) or name not in _BY_NAME:
        near = get_close_matches(str(name), _BY_NAME, n=1, cutoff=0.5)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise InvalidManifest(
            [FieldFault("kind", f"{name!r} is not a kind of {GROUP}{meant}; there are {', '.join(_BY_NAME)}")]
        )
    return _BY_NAME[name]


def _written(document: Mapping[str, Any]) -> dict[str, Any]:
    """What people write of a document; the rest is the server's, and often larger."""
    body = {name: value for name, value in document.items() if name != "status"}
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and "managedFields" in metadata:
        body["metadata"] = {name: value for name, value in metadata.items() if name != "managedFields"}
    return body


class _Way(NamedTuple):
    """How one comes to a member; a path only where somebody asks, since paths may be long and members many."""

    parent: _Way | None
    step: int | str

    def steps(self) -> list[int | str]:
        found: list[int | str] = []
        way: _Way | None = self
        while way is not None:
            found.append(way.step)
            way = way.parent
        return found[::-1]


def _faults_of_shape(body: Mapping[str, Any]) -> Iterator[FieldFault]:
    """What no schema looks at: keys that are not text, and free JSON that is nested without a bound."""
    level: list[tuple[_Way | None, Any]] = [(None, body)]
    for _ in range(MOST_LEVELS):
        deeper: list[tuple[_Way | None, Any]] = []
        for way, value in level:
            if isinstance(value, list):
                deeper += [(_Way(way, place), child) for place, child in enumerate(value) if _holds(child)]
                continue
            for key, child in value.items():
                if not isinstance(key, str):
                    yield FieldFault(_path(way.steps()) if way else "", f"the key {shown(key)} is not text; quote it")
                elif _holds(child):
                    deeper.append((_Way(way, key), child))
        level = deeper
    for way, _ in level[:1]:
        yield FieldFault(_path(way.steps()[:2]) if way else "", f"is nested more than {MOST_LEVELS} levels deep")


def _holds(value: object) -> bool:
    return isinstance(value, (Mapping, list))


def _faults_of_identity(resource: Resource) -> Iterator[FieldFault]:
    metadata = resource.metadata
    if not metadata.name and not metadata.generate_name:
        yield FieldFault("metadata.name", "is missing; small letters, digits, '-' and '.', such as shop-sync")
    for rule in resource.root_rules():
        if not rule.holds(resource):
            yield FieldFault("metadata.name", rule.message)


# --- from pydantic's errors to sentences -----------------------------------------------------------------------------


def _fault(kind: type[Resource], detail: ErrorDetails) -> FieldFault:
    location = [part for part in detail["loc"] if part != "[key]"]
    value = detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            holder = _model_at(kind, location[:-1])
            about = _description(holder, str(location[-1]))
            message = f"is missing. {about}" if about else "is missing"
        case "extra_forbidden":
            message = _unknown(_model_at(kind, location[:-1]), str(location[-1]))
        case "literal_error":
            message = f"{shown(value)} is not allowed; it must be {context.get('expected', '')}"
        case "string_pattern_mismatch" if location == ["metadata", "name"]:
            message = f"{shown(value)} is not allowed; expected {ObjectName.expected}"
        case "string_pattern_mismatch":
            message = f"{shown(value)} does not match {context.get('pattern', '')}"
        case "string_too_long" | "string_too_short":
            message = f"has {len(value)} characters; {_bound(context)} are allowed"
        case "too_long" | "too_short":
            message = f"has {len(value)} entries; {_bound(context)} are allowed"
        case "greater_than_equal":
            message = f"{shown(value)} is too small; the least is {context['ge']}"
        case "less_than_equal":
            message = f"{shown(value)} is too large; the most is {context['le']}"
        case known if known in _JSON_TYPES:
            message = f"{shown(value)} is not {_JSON_TYPES[known]}{_form(_model_at(kind, location), value)}"
        case _:
            message = detail["msg"]
    return FieldFault(_path(location), message)


def _path(location: list[int | str]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch("[A-Za-z_][A-Za-z0-9_-]*", part):
            path += f".{part}" if path else part
        else:
            path += f"[{part!r}]"
    return path


def _bound(context: Mapping[str, Any]) -> str:
    if "max_length" in context:
        return f"at most {context['max_length']}"
    return f"at least {context['min_length']}"


def _unknown(holder: type[Model] | None, name: str) -> str:
    if holder is None:
        return "is not a field"
    allowed = [info.alias or field for field, info in holder.model_fields.items()]
    near = get_close_matches(name.casefold(), [field.casefold() for field in allowed], n=1, cutoff=0.6)
    meant = next((field for field in allowed if near and field.casefold() == near[0]), None)
    hint = f"did you mean {meant}? " if meant else ""
    return f"is not a field; {hint}allowed: {', '.join(allowed) or 'none'}"


def _form(wanted: type[Model] | None, value: object) -> str:
    """How to write a value in the object that is wanted in its place; empty: none of its fields takes it."""
    if wanted is None or isinstance(value, (dict, list)) or value is None:
        return ""
    form = _written_in(wanted, value) or next(
        (
            f"{{{info.alias or field}: {form}}}"
            for field, info in wanted.model_fields.items()
            if (inner := _as_model(info.annotation)) is not None and (form := _written_in(inner, value))
        ),
        "",
    )
    return f"; write it as {form}" if form else ""


def _written_in(wanted: type[Model], value: object) -> str:
    """The value in the first field of the object that takes it."""
    for field, info in wanted.model_fields.items():
        name = info.alias or field
        try:
            wanted.model_validate({name: value}, by_alias=True, by_name=False)
        except ValidationError:
            continue
        plain = isinstance(value, str) and _PLAIN.fullmatch(value) and stays_text(value)
        return f"{{{name}: {value if plain else json.dumps(value)}}}"
    return ""


def _description(holder: type[Model] | None, name: str) -> str:
    if holder is None:
        return ""
    for field, info in holder.model_fields.items():
        if (info.alias or field) == name:
            return " ".join((info.description or "").split())
    return ""


def _model_at(kind: type[Model], location: list[int | str]) -> type[Model] | None:
    """The model that the location is in; None where it is in free JSON."""
    current: Any = kind
    for part in location:
        if isinstance(part, int):
            current = _element(current)
        elif isinstance(current, type) and issubclass(current, Model):
            found = [info for name, info in current.model_fields.items() if (info.alias or name) == part]
            current = found[0].annotation if found else None
        else:
            current = _element(current)
        current = _without_none(current)
    return _as_model(current)


def _as_model(annotation: Any) -> type[Model] | None:
    plain = _without_none(annotation)
    return plain if isinstance(plain, type) and issubclass(plain, Model) else None


def _without_none(annotation: Any) -> Any:
    while typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        annotation = members[0]
    return annotation


def _element(annotation: Any) -> Any:
    """What a list or a map holds."""
    arguments = typing.get_args(_without_none(annotation))
    if not arguments:
        return None
    return arguments[1] if typing.get_origin(annotation) is dict else arguments[0]
