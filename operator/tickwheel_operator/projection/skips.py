"""Why scheduled instants made no run, in words for people: the Events tell it, with the field that changes it.

The reasons are those of `ledger.facts.SkipReason`, spelled as statuses and metrics spell them. Invariant: every reason
has its words here; one that a person may want to act upon is a warning.
"""

from __future__ import annotations

import msgspec

__all__ = ["EXPLANATIONS", "Explanation"]


class Explanation(msgspec.Struct, frozen=True):
    """One reason."""

    why: str
    mend: str
    """Which field changes it."""
    warning: bool = True

    @property
    def kind(self) -> str:
        """The type of its Event."""
        return "Warning" if self.warning else "Normal"


EXPLANATIONS = {
    "Misfired": Explanation(
        "they were overdue, as after a downtime or a suspend, and spec.misfire.policy Skip drops such",
        "FireOnce makes one run for all of them, FireAll one for each",
    ),
    "Coalesced": Explanation(
        "they were overdue, as after a downtime or a suspend, and one later run stands for them: "
        "spec.misfire.policy is FireOnce",
        "FireAll makes a run for each",
        warning=False,
    ),
    "Deadline": Explanation(
        "they were overdue by more than spec.misfire.startingDeadline",
        "a longer one, or none, lets them fire",
    ),
    "CatchUpLimit": Explanation(
        "more were overdue than spec.misfire.maxCatchUp, and the latest were run",
        "a higher one lets more of them fire; `tickwheel backfill` makes up for those that did not",
    ),
    "Backlog": Explanation(
        "too many runs wait for workers of the pool in spec.pool",
        "give the WorkerPool more spec.replicas or spec.slots, or fire less often",
    ),
    "Overlap": Explanation(
        "earlier runs were still open, and spec.concurrency.policy is Forbid",
        "Queue lets them wait, Replace cancels the oldest, a higher spec.concurrency.maxConcurrent lets more be open",
        warning=False,
    ),
    "QueueFull": Explanation(
        "as many runs waited for earlier ones as spec.concurrency.queueLimit allows",
        "a higher one lets more wait, a higher spec.concurrency.maxConcurrent lets more run at a time",
    ),
    "Edited": Explanation(
        "they were overdue when spec.trigger was changed",
        "the new trigger counts from the change; `tickwheel backfill` makes up for them",
        warning=False,
    ),
    "Suspended": Explanation(
        "the runs that the task follows ended while spec.suspend was set",
        "set it to false",
        warning=False,
    ),
    "Stalled": Explanation(
        "the runs that spec.trigger.completion follows ended while the task was stalled",
        "mend what its condition Stalled names; a TaskRun for each makes up for them",
    ),
    "Calendar": Explanation(
        "the runs that the task follows ended outside of spec.trigger.window, or when spec.trigger.calendars forbid it",
        "widen the window, or mend the calendars",
        warning=False,
    ),
}
