"""What CEL can say of the values of an object before it is stored, beyond its schema.

`policies` puts the expressions into policies. They are made from the models, from the table of `api.supported` and from
the cron parser's own fields, so that a field that is built, or a bound that moves, moves them too.
Invariant: what these refuse, the operator refuses too, of the same field path; what they let in, it may still refuse.
"""

from __future__ import annotations

import json
import string
import types
import typing
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from typing import Any

from pydantic.fields import FieldInfo

from tickwheel_operator.api.meaning import MAX_PARAMETERS_BYTES
from tickwheel_operator.api.nesting import MOST_LEVELS
from tickwheel_operator.api.resource import Resource
from tickwheel_operator.api.schema import Model
from tickwheel_operator.api.supported import gaps, unsupported_kind
from tickwheel_operator.api.text import CronExpression, Duration, TimeZone
from tickwheel_operator.engine.cron.fields import DAY_OF_MONTH, DAY_OF_WEEK, FIELDS, CronField

__all__ = ["CRON_NEVER", "MACROS", "TABLES", "item_pattern", "literal", "not_supported", "of_values", "time_zones"]


def literal(value: object) -> str:
    """A value as CEL writes it; for text and lists of text, JSON is CEL."""
    return json.dumps(value, ensure_ascii=False)


def not_supported(kind: type[Resource]) -> list[str]:
    """For each gap of the kind, an optional text: what is not supported, if it is set."""
    return [_gap(kind, gap.path, gap.instead, gap.words) for gap in gaps(kind.kind_name())]


def of_values(kind: type[Resource]) -> list[str]:
    """For each field whose value CEL can look at more closely than the schema, an optional text: what is wrong."""
    closed = [gap.path for gap in gaps(kind.kind_name()) if not gap.words]
    if "" in closed:
        return []
    return [
        expression
        for path, annotation in _leaves(kind, "")
        if not any(path == gap or path.startswith(f"{gap}.") for gap in closed)
        for expression in _of_value(path, annotation)
    ]


def _of_value(path: str, annotation: object) -> list[str]:
    if annotation == dict[str, Any]:
        return [_parameters(path), _nesting(path)] if path.endswith(".parameters") else [_nesting(path)]
    expression = _of_text(path, annotation)
    return [expression] if expression else []


def _of_text(path: str, annotation: object) -> str:
    if not isinstance(annotation, type):
        return ""
    if issubclass(annotation, CronExpression):
        return _cron(path)
    if issubclass(annotation, TimeZone):
        return _zone(path)
    if issubclass(annotation, Duration):
        return _duration(path, annotation)
    return ""


def _optional(path: str) -> str:
    """The field as an optional value, whichever of the objects that hold it are set."""
    return "o" + "".join(f".?{name}" for name in path.split("."))


def _when(path: str, refused: str, message: str) -> str:
    """An optional text: the message, if the field is set and its value `v` is refused."""
    return f"{_optional(path)}.optFlatMap(v, {refused} ? optional.of({message}) : optional.none())"


# --- what is not built -----------------------------------------------------------------------------------------------


def _gap(kind: type[Resource], path: str, instead: str, words: tuple[str, ...]) -> str:
    if not path:
        return f"optional.of({literal(str(unsupported_kind(kind.kind_name())))})"
    field = _field(kind, path)
    default = field.get_default(call_default_factory=True, validated_data={})
    value_type = _type(field)
    refused = "true"
    if words:
        refused = f"v in {literal(list(words))}"
    elif isinstance(default, (bool, int, str)):
        refused = f"v != {literal(default)}"
    elif default == ():
        refused = "size(v) > 0"
    elif default is not None:
        raise TypeError(f"{kind.kind_name()} {path}: a default of {default!r} has no counterpart in CEL")
    name = path.rpartition(".")[2]
    end = literal(f" is not supported by this version of Tickwheel{f'; {instead}' if instead else ''}")
    shown = isinstance(value_type, type) and issubclass(value_type, (int, str)) and value_type is not bool
    begin = literal(f"{path}: {name} ") + " + string(v)" if shown else literal(f"{path}: {name}")
    return _when(path, refused, f"{begin} + {end}")


# --- cron ------------------------------------------------------------------------------------------------------------

_BELOW = {59: "[0-5]?[0-9]", 23: "(1?[0-9]|2[0-3])", 31: "([1-9]|[12][0-9]|3[01])", 12: "([1-9]|1[0-2])", 6: "[0-7]"}
"""Numbers up to the highest value of a field; Sunday is 7 too."""
_WORDS = r"[^ \t\r\n]+"
MACROS = ("@YEARLY", "@ANNUALLY", "@MONTHLY", "@WEEKLY", "@DAILY", "@MIDNIGHT", "@HOURLY")
"""In capitals."""


def item_pattern(field: CronField) -> str:
    """An item of a field's list, in capitals: what `engine.cron` reads, whole."""
    number = f"0*{_BELOW[field.high]}"
    value = f"({'|'.join([number, *field.names])})" if field.names else number
    plain = f"([*?]|H([(]{value}-{value}[)])?|{value}(-{value})?)(/0*[1-9][0-9]*)?"
    special = {
        DAY_OF_MONTH.name: f"|LW|L(-0*([12]?[0-9]|30))?|{value}W",
        DAY_OF_WEEK.name: f"|{value}L|{value}#0*[1-5]",
    }
    return f"^({plain}{special.get(field.name, '')})$"


def _all_of(*values: str) -> str:
    value = f"0*({'|'.join(values)})"
    return f"{value}(,{value})*"


CRON_NEVER = (
    rf"^(\S+\s+){{2,3}}({_all_of('30', '31')}\s+{_all_of('2', 'FEB')}"
    rf"|{_all_of('31')}\s+{_all_of('2', '4', '6', '9', '11', 'FEB', 'APR', 'JUN', 'SEP', 'NOV')})\s+[*?]$"
)
"""Expressions, trimmed and in capitals, on days that their months never have. Not all that never fire: the rest the
operator finds."""


_CRON = string.Template(
    r"""
$field.optFlatMap(v, [v.upperAscii().trim()].map(c,
  c.startsWith('@') ?
    (c in variables.macros ? optional.none() : optional.of($path + "'" + v + $unknown)) :
  c.matches($never) ?
    optional.of($path + "'" + v + "' never fires: no date matches all of its fields") :
  [c.findAll($words)].map(f, size(f) == 5 ? ['0'] + f : f).map(w,
    [size(w) != 6 ? [] : [0, 1, 2, 3, 4, 5].filter(i, w[i].split(',').exists(x, !x.matches(variables.cron[i].item)))
      .map(i, variables.cron[i].name + " field: '" +
        w[i].split(',').filter(x, !x.matches(variables.cron[i].item)).join("', '") +
        "' is out of range or cannot be read; allowed: " + variables.cron[i].allowed +
        "; for example '" + variables.cron[i].example + "'")
    ].map(faults, size(faults) == 0 ? optional.none() : optional.of($path + faults.join('; ')))[0]
  )[0]
)[0])""".strip()
)


def _cron(path: str) -> str:
    """Of a macro, of days that never come, or of all bad items of all fields."""
    macros = ", ".join(macro.lower() for macro in MACROS)
    return _CRON.substitute(
        field=_optional(path),
        path=literal(f"{path}: "),
        unknown=literal(f"' is not known; allowed: {macros}; for example '@daily'"),
        never=literal(CRON_NEVER),
        words=literal(_WORDS),
    )


# --- zones, durations, sizes -----------------------------------------------------------------------------------------


@cache
def time_zones() -> tuple[str, ...]:
    """The IANA names of the `tzdata` package that this version is locked to, not of the machine that asks."""
    return tuple(sorted(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()))


def _zone(path: str) -> str:
    city = "'/' + v.lowerAscii().split('/')[size(v.split('/')) - 1]"
    near = f"variables.zones.filter(z, ('/' + z.lowerAscii()).endsWith({city}))"
    hint = (
        f"[{near}].map(n, size(n) == 0 ? 'for example Asia/Shanghai or UTC' : 'did you mean ' + n.join(' or ') + '?')"
    )
    begin, end = literal(f"{path}: '"), literal("' is not a time zone of the IANA data (case matters); ")
    return _when(path, "!(v in variables.zones)", f"{begin} + v + {end} + {hint}[0]")


def _duration(path: str, kind: type[Duration]) -> str:
    unit = (
        "p.endsWith('ms') ? 1 : p.endsWith('s') ? 1000 : p.endsWith('m') ? 60000 : p.endsWith('h') ? 3600000 : 86400000"
    )
    total = f"v.findAll('[0-9]+(ms|s|m|h|d)').map(p, int(p.find('[0-9]+')) * ({unit})).sum()"
    days = kind.most_ms // 86_400_000
    allowed = f"' is not allowed; {kind.least_ms}ms to {days}d are allowed, for example 90s or 1h30m"
    message = f"{literal(f'{path}: {chr(39)}')} + v + {literal(allowed)}"
    refused = f"[{total}].exists(ms, ms < {kind.least_ms} || ms > {kind.most_ms})"
    return _when(path, refused, message)


def _parameters(path: str) -> str:
    """CEL cannot write JSON, but it can count what the JSON has at least: keys, texts, and entries one level down."""
    least = "size(k) + 4 + (type(v[k]) == string ? size(v[k]) + 2 : type(v[k]) == list ? 2 * size(v[k]) : "
    least += "type(v[k]) == map ? 5 * size(v[k]) : 1)"
    message = f"{literal(f'{path}: has more than ')} + {literal(f'{MAX_PARAMETERS_BYTES} bytes as JSON; ')}"
    message += f" + {literal(f'{MAX_PARAMETERS_BYTES} are allowed. Pass the address of large data instead')}"
    return _when(path, f"v.map(k, {least}).sum() > {MAX_PARAMETERS_BYTES}", message)


def _nesting(path: str) -> str:
    """One step for each level: what has a mapping or list in it that far down. An object that is nested more deeply
    than Python can read would hide all others from the operator, so this must not be left to it."""
    deepest = MOST_LEVELS - len(path.split("."))
    refused = f"type(v{deepest}) == list || type(v{deepest}) == map"
    for number in reversed(range(deepest)):
        v = "v" if number == 0 else f"v{number}"
        inside = f"(type({v}) == list ? {v} : type({v}) == map ? {v}.map(k, {v}[k]) : [])"
        refused = f"{inside}.exists(v{number + 1}, {refused})"
    return _when(path, refused, literal(f"{path}: is nested more than {MOST_LEVELS} levels deep"))


# --- tables that the expressions look into ---------------------------------------------------------------------------


def _cron_table() -> str:
    rows = (
        {"name": field.name, "item": item_pattern(field), "allowed": field.allowed, "example": field.example}
        for field in FIELDS
    )
    return "[\n" + ",\n".join(f"  {literal(row)}" for row in rows) + "\n]"


TABLES: dict[str, Callable[[], str]] = {
    "zones": lambda: "[" + ", ".join(literal(zone) for zone in time_zones()) + "]",
    "cron": _cron_table,
    "macros": lambda: literal(list(MACROS)),
}
"""Name of a policy's variable, and what makes its expression."""


# --- the models ------------------------------------------------------------------------------------------------------


def _leaves(model: type[Model], path: str) -> Iterator[tuple[str, object]]:
    """Every field of `spec` that is not an object of the API itself, by path. Entries of lists are not looked at."""
    for name, field in model.model_fields.items():
        alias = field.alias or name
        if not path and alias != "spec":
            continue
        inner = f"{path}.{alias}" if path else alias
        annotation = _type(field)
        if isinstance(annotation, type) and issubclass(annotation, Model):
            yield from _leaves(annotation, inner)
        else:
            yield inner, annotation


def _field(kind: type[Model], path: str) -> FieldInfo:
    first, _, rest = path.partition(".")
    field = next(info for name, info in kind.model_fields.items() if (info.alias or name) == first)
    return _field(_type(field), rest) if rest else field


def _type(field: FieldInfo) -> Any:
    """What the field holds when it is set."""
    annotation: Any = field.annotation
    while typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType):
        annotation = next(member for member in typing.get_args(annotation) if member is not type(None))
    return annotation
