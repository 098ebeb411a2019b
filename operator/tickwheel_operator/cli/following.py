"""Following a TaskRun to its end, by its status: for a person with a bar, for a log with a line now and then.

The command that made the TaskRun calls it. Invariant: it only reads; whoever stops it stops nothing else.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tickwheel_operator.api import TaskRun
from tickwheel_operator.cli.objects import NotThere, Objects
from tickwheel_operator.cli.options import Output
from tickwheel_operator.kube.errors import ApiUnanswered

__all__ = ["State", "follow", "state_of"]

_LOOK_EVERY_S = 1.0
_LINE_EVERY_S = 10.0
_API_SERVER_BACK_WITHIN_S = 60.0
_STALLED_FOR_S = 10.0
"""What is applied together may be seen in any order, so the operator may change its mind."""


class State(msgspec.Struct, frozen=True):
    """Where a TaskRun is."""

    name: str
    namespace: str
    state: str
    """As its status has it: Pending, Running, Succeeded, Failed, Cancelled."""
    stalled: bool
    """The operator cannot meet the request until somebody mends what `message` says."""
    total: int | None
    """Its dispatches, or a backfill's runs; None: the operator has not counted them yet."""
    succeeded: int
    failed: int
    message: str

    @property
    def ended(self) -> bool:
        return self.state not in ("Pending", "Running")

    @property
    def well(self) -> bool:
        """Nothing speaks against success, as far as it is known."""
        return self.state == "Succeeded" or not (self.ended or self.stalled)

    def __str__(self) -> str:
        counted = ""
        if self.total is not None:
            counted = f": {self.succeeded} of {self.total} runs succeeded, {self.failed} failed"
        said = f"; {self.message}" if self.message and self.state != "Succeeded" else ""
        return f"{self.name} {'stalled' if self.stalled else self.state.lower()}{counted}{said}"


def state_of(stored: dict[str, Any]) -> State:
    """What the object says."""
    status = stored.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    outcome, stalled = conditions.get("Succeeded", {}), conditions.get("Stalled", {})
    is_stalled = stalled.get("status") == "True"
    state = str(status.get("state") or "Pending")
    if state in ("Pending", "Running"):
        state = {"True": "Succeeded", "False": "Failed"}.get(str(outcome.get("status")), state)
    runs = status.get("dispatches") or {}
    return State(
        name=stored["metadata"]["name"],
        namespace=stored["metadata"]["namespace"],
        state=state,
        stalled=is_stalled,
        total=runs.get("total"),
        succeeded=runs.get("succeeded", 0),
        failed=runs.get("failed", 0),
        message=str((stalled if is_stalled else outcome).get("message") or ""),
    )


async def follow(objects: Objects, name: str, *, total: int, output: Output) -> State:
    """Its state when it ended, or when it is stalled for good; meanwhile its progress, of `total` until it says more.

    Raises `click.ClickException` when it is deleted, or when the API server is gone for a minute.
    """
    shown = _Shown(total, output)
    answered_at, stalled_at = time.monotonic(), math.inf
    with shown.bar:
        while True:
            try:
                state = state_of(await objects.get(TaskRun, name))
            except NotThere as error:
                raise click.ClickException(f"the {error} was deleted while it was watched") from error
            except ApiUnanswered:
                # An API server that restarts does not end a backfill, nor who watches one.
                if time.monotonic() > answered_at + _API_SERVER_BACK_WITHIN_S:
                    raise
            else:
                answered_at = time.monotonic()
                stalled_at = min(stalled_at, answered_at) if state.stalled else math.inf
                if state.ended or answered_at > stalled_at + _STALLED_FOR_S:
                    return state
                shown.show(state)
            await asyncio.sleep(_LOOK_EVERY_S)


class _Shown:
    """What is on the terminal, or in the log, of it."""

    def __init__(self, total: int, output: Output) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._total = total
        self._silent = output is not Output.TABLE
        self._told, self._told_at = "", -_LINE_EVERY_S
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}"),
            console=self._console,
            disable=self._silent or not self._console.is_terminal,
        )
        self._task = self.bar.add_task("Pending", total=total, failed="")

    def show(self, state: State) -> None:
        self.bar.update(
            self._task,
            description=state.state,
            total=self._total if state.total is None else state.total,
            completed=state.succeeded + state.failed,
            failed=f"{state.failed} failed" if state.failed else "",
        )
        line = state.message if self._console.is_terminal else str(state)
        if self._silent or line in ("", self._told) or time.monotonic() < self._told_at + _LINE_EVERY_S:
            return
        self._told, self._told_at = line, time.monotonic()
        self._console.print(line, markup=False, soft_wrap=True)
