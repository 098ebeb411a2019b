"""All triggers that stand alone: the list that the codec of schedules reads, and that a new trigger is added to."""

from .cron_expression import CronTrigger
from .daily_interval import DailyIntervalTrigger
from .fixed_rate import FixedRateTrigger
from .once import OnceTrigger

__all__ = ["Unfiltered"]

Unfiltered = CronTrigger | FixedRateTrigger | OnceTrigger | DailyIntervalTrigger
