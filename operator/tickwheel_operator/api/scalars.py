"""What a scalar of YAML is to Kubernetes: text, a number, true, false or null.

Kubernetes reads YAML 1.1 with rules of its own (Go's integers, no base 60, dates stay text) and then writes JSON.
PyYAML's rules differ, so they are not used. Asked by `documents`; held against a real API server by
`tests/integration/test_documents.py`. Invariant: `resolved` is pure, takes linear time and raises `BadScalar` only.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from decimal import Decimal
from typing import Final

__all__ = ["BadScalar", "Scalar", "as_json_number", "resolved", "stays_text"]

Scalar = str | int | float | bool | None

_YAML: Final = "tag:yaml.org,2002:"
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]+)?(Z|[+-][0-9][0-9]:[0-9][0-9])?)?"
)
_INTEGER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_POINT = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
"""What begins with a point: underscores between two digits only."""
_RADIX = {"0x": 16, "0b": 2, "0o": 8}
_WORDS: Final[dict[str, Scalar]] = {
    **{spelled: True for word in ("y", "yes", "true", "on") for spelled in (word, word.capitalize(), word.upper())},
    **{spelled: False for word in ("n", "no", "false", "off") for spelled in (word, word.capitalize(), word.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_MOST_WHOLE = 1e21
"""From here on Go writes a float with an exponent, so that it stays a float."""


class BadScalar(ValueError):
    """The scalar has no value that JSON could hold."""


def resolved(text: str, tag: str | None, *, plain: bool) -> Scalar:
    """The value of a scalar, as JSON from an API server would have it.

    Parameters
    ----------
    tag
        As the parser gives it, `tag:yaml.org,2002:int` for `!!int`; None or `!` where there is none.
    plain
        It is not quoted, and no block.
    """
    if tag is None or tag == "!":
        return as_json_number(_plain(text)) if plain and tag is None else text
    if not tag.startswith(_YAML):
        return text
    kind = tag.removeprefix(_YAML)
    value = _tagged(text, kind)
    if value is _NOTHING:
        raise BadScalar(f"{_short(text)} cannot be read as !!{kind}")
    return as_json_number(value)


def stays_text(text: str) -> bool:
    """Whether Kubernetes reads it as this text without quotes."""
    return isinstance(_plain(text), str)


class _Nothing(float):
    """No value; none of the values of YAML is this object."""


_NOTHING: Final = _Nothing()


def _tagged(text: str, kind: str) -> Scalar:
    match kind:
        case "str":
            return text
        case "binary":
            return _decoded(text)
        case "timestamp":
            return text if _TIMESTAMP.fullmatch(text) else _NOTHING
        case "null":
            return None if text in _WORDS and _WORDS[text] is None else _NOTHING
        case "bool" | "int" | "float":
            value = _plain(text)
            if kind == "float" and type(value) is int and abs(value) < 2**63:
                return float(value)
            return value if type(value).__name__ == kind else _NOTHING
    return text


def _plain(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == ".":
        return _float(text.replace("_", ""), text) if _POINT.fullmatch(text) else text
    if text[0] not in "+-0123456789":
        return text
    digits = text.replace("_", "")
    # What does not fit in 64 bits is a float, so no long text is ever converted to an integer.
    if len(digits) <= 70 and (whole := _INTEGER.fullmatch(digits)):
        sign, number = whole.groups()
        base = _RADIX.get(number[:2].lower(), 8 if number[0] == "0" else 10)
        value = int(number, base) * (-1 if sign == "-" else 1)
        if -(2**63) <= value < 2**63 or (not sign and value < 2**64):
            return value
    return _float(digits, text) if _DECIMAL.fullmatch(digits) else text


def _float(digits: str, text: str) -> float | str:
    """The number; the text where it is beyond the largest."""
    value = float(digits)
    return text if math.isinf(value) else value


def _decoded(text: str) -> Scalar:
    try:
        return base64.b64decode("".join(text.split("\n")), validate=True).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        return _NOTHING


def as_json_number(value: Scalar) -> Scalar:
    """A number as the JSON of an API server has it: 1e3 is 1000, and what exceeds 64 bits has a double's precision."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return value
        value = float(value)
    if not math.isfinite(value):
        raise BadScalar("JSON has no infinity and no NaN; leave it out, or quote it to have text")
    if value == int(value) and abs(value) < _MOST_WHOLE:
        return int(Decimal(repr(value)))
    return value


def _short(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}..."
