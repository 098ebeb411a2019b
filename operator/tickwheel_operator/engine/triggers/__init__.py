"""Triggers: when a task fires, as immutable values with one question, "what comes after this instant?".

Controllers build them from `spec.trigger`; the scheduler asks them for instants, the misfire rule for what was missed.
`trigger` is the seam, each trigger is one module that fills it, and `members` lists them. `filtered` restricts any of
them by a window and calendars (`filters`, `calendar`). Instants (`instants`) are milliseconds since the epoch, UTC.
Invariants: answers depend on the value alone; triggers with equal keys have equal instants, so that their tasks share
one timer; no answer walks over all missed instants.
"""

from .cron_expression import CronTrigger
from .daily_interval import DailyIntervalTrigger
from .filtered import FilteredTrigger, counted_until, latest, looked_until, once_at
from .fixed_rate import FixedRateTrigger
from .members import Unfiltered
from .once import OnceTrigger
from .spelling import spell_duration
from .trigger import Trigger

__all__ = [
    "AnyTrigger",
    "CronTrigger",
    "DailyIntervalTrigger",
    "FilteredTrigger",
    "FixedRateTrigger",
    "OnceTrigger",
    "Trigger",
    "Unfiltered",
    "counted_until",
    "latest",
    "looked_until",
    "once_at",
    "spell_duration",
]

AnyTrigger = Unfiltered | FilteredTrigger
"""The triggers that a codec can tell apart by their tag."""
