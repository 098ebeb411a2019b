"""Cron expressions: what a user may write, and when it fires.

The triggers of the engine, `tickwheel next` and `tickwheel lint` call this package. Three steps, three
modules: `parsing` turns text into bit masks and is the only place that knows the syntax; `schedule` finds
local times from the masks; `daylight` turns local times into instants (those of daily intervals too) and is the
only place that knows the daylight-saving rule. `zones` knows where a zone's offset changes. Instants are
integers of milliseconds since the Unix epoch, UTC.
Invariant: the answer depends on the arguments and on the zone data only.
"""

from .advice import quartz_warnings, warnings
from .daylight import instant_of_local
from .errors import CronError, UnknownZoneError
from .normal import normal_text
from .parsing import MAX_EXPRESSION_LENGTH, parse
from .schedule import CronSchedule
from .zones import zone_named

__all__ = [
    "MAX_EXPRESSION_LENGTH",
    "CronError",
    "CronSchedule",
    "UnknownZoneError",
    "instant_of_local",
    "normal_text",
    "parse",
    "quartz_warnings",
    "warnings",
    "zone_named",
]
