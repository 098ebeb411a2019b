"""AlertChannel (`twa`): where alerts go. Invariant: addresses, which hold secrets, stand in a Secret and never here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tickwheel_operator.api.conditions import Conditions, ObservedGeneration
from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.meaning import of_zone
from tickwheel_operator.api.resource import AGE, READY, Column, Presentation, Resource
from tickwheel_operator.api.schema import ListOf, Model, Rule
from tickwheel_operator.api.text import ClockTime, Instant, ObjectName, TimeZone
from tickwheel_operator.api.trigger import Weekdays

__all__ = ["AlertChannel", "AlertChannelSpec", "AlertChannelStatus"]


class SecretKey(Model):
    """A key of a Secret."""

    name: ObjectName
    """A Secret of the same namespace."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern="^[-._a-zA-Z0-9]+$")]
    """The key in it."""


class UrlSource(Model):
    """Where the addresses are."""

    secret_key_ref: SecretKey
    """A key of a Secret that holds the addresses, one URL a line."""


class QuietSpan(Model):
    """A span of the day in which nothing is sent."""

    rules = (Rule("self.from != self.to", "from and to must differ", lambda span: span.from_ != span.to),)

    from_: Annotated[ClockTime, Field(alias="from")]
    """When it begins: `"22:00"` (in quotes)."""
    to: ClockTime
    """When it ends; before `from`: on the next day."""
    days: Weekdays = ()
    """The weekdays on which it begins. Default: every day."""


class AlertChannelSpec(Model):
    """Where alerts go, how they read, and when there are none."""

    urls_from: UrlSource
    """The addresses."""
    template: Annotated[str, Field(max_length=16_384)] = ""
    """How a message reads. Default: one built in."""
    time_zone: TimeZone = TimeZone("UTC")
    """The IANA time zone of `silence`."""
    silence: Annotated[tuple[QuietSpan, ...], ListOf(most=32)] = ()
    """Spans of the day in which nothing is sent."""


class AlertChannelStatus(Model):
    """What the operator made of it."""

    observed_generation: ObservedGeneration | None = None
    """The generation that this status speaks of."""
    conditions: Conditions = ()
    """Ready, Reconciling, Stalled (the message names the field to mend)."""
    last_sent_time: Instant | None = None
    """When a message last went out."""


class AlertChannel(Resource):
    """Where alerts go."""

    presentation: ClassVar[Presentation] = Presentation(
        plural="alertchannels",
        short="twa",
        columns=(
            Column(name="Sent", path=".status.lastSentTime", type="date", description="When a message last went out"),
            READY,
            AGE,
        ),
    )
    status_model: ClassVar[type[Model] | None] = AlertChannelStatus
    name_limit: ClassVar[int] = 63

    kind: Literal["AlertChannel"] = "AlertChannel"
    spec: AlertChannelSpec

    def faults_of_meaning(self) -> Iterator[FieldFault]:
        yield from of_zone(self.spec.time_zone, "spec.timeZone")
