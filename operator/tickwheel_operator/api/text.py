"""The texts of the API that mean something: durations, quantities, names, pointers, instants.

Each is a `str` that is checked when it is read and knows its number (`Duration("90s").milliseconds`).
The class carries the pattern and bounds that go into the CRD and the sentence that says what is allowed.
Invariant: a value of these types is valid; code that holds one need not check it again. Bounds that a
pattern cannot say (a minimum length of time) are CEL rules where CEL can say them, and are checked here.
"""

from __future__ import annotations

import enum
import re
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tickwheel_operator.api.faults import shown
from tickwheel_operator.api.schema import RULES, Rule
from tickwheel_operator.engine.triggers.instants import instant_of

__all__ = [
    "Choice",
    "ClockTime",
    "CronExpression",
    "DateRange",
    "DelayInterval",
    "Duration",
    "ErrorType",
    "Expression",
    "HandlerName",
    "IdempotencyKey",
    "Instant",
    "ProgressDeadline",
    "JsonPointer",
    "Label",
    "LaneName",
    "ObjectName",
    "Percent",
    "PositiveDuration",
    "Quantity",
    "RateInterval",
    "SuccessRule",
    "Text",
    "TimeZone",
    "Weekday",
]


class Text(str):
    """A text with a shape. Subclasses set the class variables; `read` is where a value comes in."""

    __slots__ = ()

    pattern: ClassVar[str] = ""
    """Anchored, RE2; empty: any text."""
    shortest: ClassVar[int] = 1
    longest: ClassVar[int]
    expected: ClassVar[str]
    """What is allowed, with an example: `a duration such as 500ms`."""
    rules: ClassVar[tuple[Rule, ...]] = ()
    schema_format: ClassVar[str] = ""
    """A format that the API server knows and checks."""

    @classmethod
    def read(cls, value: object) -> Self:
        """Check a value from a manifest. Raises `PydanticCustomError` with a message for its author."""
        if not isinstance(value, str):
            raise cls._refused(shown(value), "is not text (quote it)")
        if not cls.shortest <= len(value) <= cls.longest:
            raise cls._refused(
                shown(value), f"has {len(value)} characters; {cls.shortest} to {cls.longest} are allowed"
            )
        if cls.pattern and not re.fullmatch(cls.pattern, value, re.ASCII):
            raise cls._refused(shown(value), "is not allowed")
        text = cls(value)
        for rule in cls.rules:
            if not rule.holds(text):
                raise PydanticCustomError(
                    "text", "{value} is not allowed: {message}", {"value": shown(value), "message": rule.message}
                )
        text.check()
        return text

    def check(self) -> None:
        """What the pattern cannot say. Raises as `read`."""

    @classmethod
    def _refused(cls, value: str, what: str) -> PydanticCustomError:
        return PydanticCustomError(
            "text",
            "{value} {what}; expected {expected}",
            {"value": value, "what": what, "expected": cls.expected},
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        result: JsonSchemaValue = {"type": "string", "maxLength": cls.longest}
        if cls.shortest:
            result["minLength"] = cls.shortest
        if cls.pattern:
            result["pattern"] = cls.pattern
        if cls.schema_format:
            result["format"] = cls.schema_format
        if cls.rules:
            result[RULES] = [rule.schema() for rule in cls.rules]
        return result


class Choice(enum.StrEnum):
    """One of a few words, UpperCamelCase."""

    @classmethod
    def read(cls, value: object) -> Self:
        """Check a value from a manifest. Raises `PydanticCustomError` that lists the words."""
        words = [member.value for member in cls]
        if isinstance(value, str) and value in words:
            return cls(value)
        near = get_close_matches(str(value).casefold(), [word.casefold() for word in words], n=1)
        meant = next((f" (did you mean {word}?)" for word in words if near and word.casefold() == near[0]), "")
        raise PydanticCustomError(
            "choice", "{value} is not one of {words}{meant}",
            {"value": shown(value), "words": ", ".join(words), "meant": meant},
        )  # fmt: skip

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "enum": [member.value for member in cls]}


class Weekday(Choice):
    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


# --- time ------------------------------------------------------------------------------------------------------------

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = "[0-9]{1,9}(ms|s|m|h|d)"


class Duration(Text):
    """A length of time, zero or more: `500ms`, `90s`, `1h30m`, `7d`. A day has 24 hours."""

    pattern = f"^({_PART}){{1,5}}$"
    longest = 32
    expected = "a duration of whole numbers with the units d, h, m, s, ms, such as 500ms, 90s, 1h30m or 7d"
    least_ms: ClassVar[int] = 0
    most_ms: ClassVar[int] = 3_650 * 86_400_000
    """Ten years: beyond any use, and far below where sums of milliseconds overflow."""

    @property
    def milliseconds(self) -> int:
        return sum(int(number) * _UNIT_MS[unit] for number, unit in re.findall("([0-9]+)(ms|s|m|h|d)", self))

    def check(self) -> None:
        if self.milliseconds < self.least_ms:
            raise self._refused(shown(str(self)), f"is shorter than {self.least_ms}ms")
        if self.milliseconds > self.most_ms:
            raise self._refused(shown(str(self)), f"is longer than {self.most_ms // 86_400_000}d")


class PositiveDuration(Duration):
    """A length of time, more than zero."""

    least_ms = 1
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!self.matches('^(0+(ms|s|m|h|d))+$')", "must be more than zero", lambda text: text.milliseconds > 0),
    )


class RateInterval(PositiveDuration):
    """The interval of a fixed rate: 10 ms up, since each instant costs a durable record."""

    least_ms = 10
    rules: ClassVar[tuple[Rule, ...]] = (
        *PositiveDuration.rules,
        Rule("!self.matches('^0*[0-9]ms$')", "the shortest is 10ms", lambda text: text.milliseconds >= 10),
    )


class DelayInterval(PositiveDuration):
    """The pause of a fixed delay: 1 s up."""

    least_ms = 1_000
    rules: ClassVar[tuple[Rule, ...]] = (
        *PositiveDuration.rules,
        Rule("!self.matches('^0*[0-9]{1,3}ms$')", "the shortest is 1s", lambda text: text.milliseconds >= 1_000),
    )


class ProgressDeadline(PositiveDuration):
    """A time in which something must get on: 30 s to 24 h."""

    expected = "a duration from 30s to 24h, such as 5m"
    least_ms = 30_000
    most_ms = 86_400_000


class Instant(Text):
    """A moment, RFC 3339 with its offset: `2026-12-24T18:00:00Z`. Years 1 to 9999 in UTC."""

    longest = 40
    schema_format = "date-time"
    expected = "an RFC 3339 time with its offset, such as 2026-12-24T18:00:00Z or 2026-12-24T18:00:00.5+08:00"
    rules = (
        Rule(
            "self.getFullYear() >= 1 && self.getFullYear() <= 9999",
            "in UTC it must be in the years 1 to 9999, for example 2026-12-24T18:00:00Z",
            lambda text: text.is_in_range(),
        ),
    )

    @property
    def milliseconds(self) -> int:
        """Since the Unix epoch, UTC; what is below a millisecond is cut off."""
        return instant_of(self._datetime())

    def is_in_range(self) -> bool:
        """Whether the moment is an instant in UTC too. What is no moment at all is refused by `check`."""
        try:
            moment = self._datetime()
        except ValueError:
            return True
        if moment.tzinfo is None:
            return True
        try:
            instant_of(moment)
        except ValueError:
            return False
        return True

    def check(self) -> None:
        shape = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
        if not re.fullmatch(shape, self, re.ASCII):
            raise self._refused(shown(str(self)), "is not allowed")
        try:
            self._datetime()
        except ValueError as error:
            raise self._refused(shown(str(self)), "is no date and time of the calendar") from error

    def _datetime(self) -> datetime:
        # fromisoformat reads at most six digits of a fraction; more are below our resolution.
        return datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", self.upper()))


class ClockTime(Text):
    """A time of day: `08:00` or `08:00:30`; `24:00` is the end of the day."""

    pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?|24:00(:00)?)$"
    longest = 8
    expected = 'a time of day in quotes, such as "08:00" or "18:30:15"'

    @property
    def milliseconds(self) -> int:
        """Since midnight, by the clock on the wall."""
        hours, minutes, seconds = (int(part) for part in f"{self}:00".split(":")[:3])
        return ((hours * 60 + minutes) * 60 + seconds) * 1_000


class DateRange(Text):
    """A date, or the first and the last date with a slash between them."""

    pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}(/[0-9]{4}-[0-9]{2}-[0-9]{2})?$"
    longest = 21
    expected = 'a date or a range of dates in quotes, such as "2026-10-01" or "2026-10-02/2026-10-07"'

    def check(self) -> None:
        try:
            dates = [datetime.fromisoformat(part) for part in self.split("/")]
        except ValueError as error:
            raise self._refused(shown(str(self)), "is no date of the calendar") from error
        if dates != sorted(dates):
            raise self._refused(shown(str(self)), "ends before it begins")


class CronExpression(Text):
    """A cron expression. Its fields are read by `engine.cron`; the API server counts them only."""

    longest = 256
    expected = 'a cron expression such as "0 9 * * MON-FRI"'
    rules = (
        Rule(
            r"self.matches('^\\s*(@[A-Za-z]+|[^\\s@]+(\\s+[^\\s@]+){4,5})\\s*$')",
            "a cron expression has 5 fields (minute hour day-of-month month day-of-week), 6 with the seconds "
            'first, or is a macro such as @daily; for example "0 9 * * MON-FRI"',
            lambda text: bool(re.fullmatch(r"^\s*(@[A-Za-z]+|[^\s@]+(\s+[^\s@]+){4,5})\s*$", text)),
        ),
    )


class TimeZone(Text):
    """A name of the IANA time zone data. Whether it exists is asked of the zone data, not of the API server."""

    pattern = "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"
    longest = 64
    expected = "an IANA time zone such as Asia/Shanghai, Europe/Berlin or UTC"


# --- numbers ---------------------------------------------------------------------------------------------------------


class Percent(Text):
    """A share, 0% to 100%."""

    pattern = r"^(100|[0-9]{1,2}(\.[0-9]{1,2})?)%$"
    longest = 6
    expected = "a percentage from 0% to 100%, such as 85% or 0.5%"

    @property
    def fraction(self) -> float:
        """0 to 1."""
        return float(self[:-1]) / 100


class SuccessRule(Text):
    """How many of a broadcast's workers must succeed."""

    pattern = r"^(All|Any|Quorum|(100|[0-9]{1,2}(\.[0-9]{1,2})?)%)$"
    longest = 6
    expected = "All, Any, Quorum (more than half) or a percentage such as 80%"


_SUFFIX = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(1_000),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip


class Quantity(Text):
    """A Kubernetes quantity: `500m`, `2`, `256Mi`. Whole numbers need no quotes."""

    pattern = "^[0-9]{1,15}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?$"
    longest = 32
    expected = 'a Kubernetes quantity such as 500m, 2, "0.5" or 256Mi'

    @classmethod
    def read(cls, value: object) -> Self:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return super().read(value)

    @property
    def amount(self) -> Decimal:
        """In the base unit: cores, bytes."""
        number, suffix = re.findall("^([0-9.]+)([A-Za-z]*)$", self)[0]
        return Decimal(number) * _SUFFIX[suffix]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "x-kubernetes-int-or-string": True,
            "pattern": cls.pattern,
            "maxLength": cls.longest,
        }


# --- names -----------------------------------------------------------------------------------------------------------


class ObjectName(Text):
    """The name of a Kubernetes object of the same namespace."""

    pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    longest = 253
    expected = "the name of an object: small letters, digits, '-' and '.', such as shop-sync"


class Label(Text):
    """A DNS label: the name of a pool, a node of a workflow."""

    pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
    longest = 63
    expected = "a name of small letters, digits and '-', such as shops"


class LaneName(Text):
    """A lane of the pool, or `Auto`."""

    pattern = "^(Auto|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"
    longest = 63
    expected = "Auto or the name of a lane of the pool, such as short"


class HandlerName(Text):
    """The name that workers register a handler under."""

    pattern = "^[A-Za-z0-9_]([A-Za-z0-9_.:/-]*[A-Za-z0-9_])?$"
    longest = 128
    expected = "the name of a handler: letters, digits and _ . : / - inside, such as shop-sync or shops.sync"


class ErrorType(Text):
    """The name of an error type as the worker reports it."""

    pattern = "^[A-Za-z_][A-Za-z0-9_.:$]*$"
    longest = 253
    expected = "the name of an error type, such as TimeoutError or shop.OutOfStock"


class IdempotencyKey(Text):
    """The same key is the same run."""

    pattern = "^[!-~]([ -~]*[!-~])?$"
    longest = 200
    expected = "printable ASCII without spaces at the ends, such as order-4711"


class JsonPointer(Text):
    """RFC 6901, into the run's parameters: `/customer/id`."""

    pattern = "^(/([^~/]|~[01])*)+$"
    longest = 256
    expected = "a JSON pointer that begins with a slash, such as /shop or /customer/id"


class Expression(Text):
    """A CEL expression over the run's parameters and the results of earlier nodes."""

    longest = 2_048
    expected = 'a CEL expression such as "nodes.extract.result.count > 0"'
