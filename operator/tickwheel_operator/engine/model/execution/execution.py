"""What each kind of execution decides of a run: which dispatches it has, and what the end of one means for it.

The fold of the facts asks it (`engine.model.state`), so a member is pure, and holds nothing but what follows from
facts.
"""

from __future__ import annotations

import abc
from typing import ClassVar

from tickwheel_operator.engine.model.runs import Dispatch, End, Run

__all__ = ["Execution"]


class Execution(abc.ABC):
    """How a run is divided."""

    __slots__ = ()

    retroactive: ClassVar[bool] = False
    """It makes up for the past: its dispatches wait behind all others, it stands outside of its task's overlap policy,
    and the tasks that follow its own do not hear of its end."""

    @abc.abstractmethod
    def divide(self, run: Run, ready_ms: int) -> tuple[Dispatch, ...]:
        """The dispatches of a run that was just made, which may be leased from `ready_ms` on; none: it makes runs."""

    @abc.abstractmethod
    def ended(self, end: End) -> End | None:
        """One of the run's dispatches, or of the runs that it made, has ended so. Returns how the run ends with it;
        None: it goes on."""

    def closed(self, run: Run, end: End) -> None:  # noqa: B027 (most need not)
        """The run itself has ended so, whoever decided it: what that means for its task."""

    @property
    def counts(self) -> tuple[int, int, int] | None:
        """Of the runs that it makes: how many in all, how many succeeded, how many did not. None: it makes none."""
        return None

    @property
    def span_ms(self) -> tuple[int, int] | None:
        """The instants that its request named, the second exclusive; None: it named none."""
        return None
