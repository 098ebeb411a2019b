"""The live picture of a dev session: tasks, their next instants, what ran last and where."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tickwheel_operator.dev.folder import Fault
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.views import PoolView, TaskView, Views

__all__ = ["Picture"]

_STYLES = {
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "bold red",
    RunState.CANCELLED: "yellow",
    RunState.RUNNING: "cyan",
    RunState.PENDING: "dim",
}
_WINDOW = 500


class Picture:
    """The host's view sink: holds the latest view of each task and draws it."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskView] = {}
        self.pools: list[PoolView] = []
        self.notice = ""

    def wanted(self) -> int:
        return _WINDOW

    def show(self, views: Views) -> None:
        for view in views.tasks:
            self.tasks[view.uid] = view
        self.pools = views.pools

    def draw(self, specs: dict[str, TaskSpec], faults: list[Fault], workers: int, ledger: str, started: float) -> Group:
        now_ms = time.time_ns() // 1_000_000
        tasks = Table(expand=True, box=None, pad_edge=False, header_style="bold")
        for name, justify in (
            ("TASK", "left"), ("TRIGGER", "left"), ("NEXT", "right"), ("LAST RUN", "left"), ("LATE", "right"),
            ("WHERE", "left"), ("TRIES", "right"), ("OK", "right"), ("FAILED", "right"), ("ACTIVE", "right"),
        ):  # fmt: skip
            tasks.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for uid, spec in sorted(specs.items(), key=lambda item: (item[1].namespace, item[1].name)):
            tasks.add_row(*self._row(spec, self.tasks.get(uid), now_ms))
        parts: list[Text | Table | Panel] = [self._headline(workers, ledger, started), Text(), tasks]
        for fault in faults:
            where = f"{fault.file}: {fault.path}" if fault.path else fault.file
            parts.append(Text(f"{where}: {fault.message}", style="bold red"))
        for view in self.tasks.values():
            if view.handler.workers and not view.handler.with_handler and view.uid in specs:
                handler = specs[view.uid].handler
                parts.append(Text(f"{view.name}: no worker has registered the handler {handler!r}", style="yellow"))
        if self.notice:
            parts.append(Text(self.notice, style="yellow"))
        return Group(*parts)

    def summary(self, specs: dict[str, TaskSpec], seconds: float) -> Table:
        """What happened since the ledger began, for the end of a session."""
        table = Table(title=f"after {seconds:.0f} s", title_justify="left", box=None, header_style="bold")
        for name in ("TASK", "SUCCEEDED", "FAILED", "SKIPPED", "ACTIVE"):
            table.add_column(name, justify="left" if name == "TASK" else "right")
        for uid, spec in sorted(specs.items(), key=lambda item: item[1].name):
            view = self.tasks.get(uid)
            counts = (view.succeeded, view.failed, view.skipped, view.active) if view else (0, 0, 0, 0)
            table.add_row(spec.name, *map(str, counts))
        return table

    def print_plain(self, console: Console, specs: dict[str, TaskSpec]) -> None:
        """One line a task, where there is no terminal to draw on."""
        for uid, view in sorted(self.tasks.items(), key=lambda item: item[1].name):
            if uid in specs:
                console.print(
                    f"{view.name}: {view.succeeded} succeeded, {view.failed} failed, {view.active} active,"
                    f" next {_clock(view.next_ms)}",
                    highlight=False,
                )

    def _headline(self, workers: int, ledger: str, started: float) -> Text:
        elapsed = int(time.monotonic() - started)
        backlog = sum(pool.backlog for pool in self.pools)
        used = sum(pool.used for pool in self.pools)
        slots = sum(pool.slots for pool in self.pools)
        return Text.assemble(
            ("tickwheel dev", "bold cyan"),
            f"  {elapsed // 60:02d}:{elapsed % 60:02d}  {workers} workers  {used}/{slots} slots"
            f"  {backlog} waiting  {ledger}",
        )

    def _row(self, spec: TaskSpec, view: TaskView | None, now_ms: int) -> list[Text]:
        trigger = "by hand" if spec.trigger is None else spec.trigger.describe()
        if view is None:
            return [Text(spec.name), Text(trigger, style="dim"), Text("-")]
        if spec.suspend:
            following = Text("suspended", style="yellow")
        elif view.next_ms is None:
            following = Text("-")
        else:
            following = Text(f"{max(0, view.next_ms - now_ms) / 1000:.1f} s")
        run = view.runs[0] if view.runs else None
        ended = next((r for r in view.runs if r.state.is_final), run)
        cells = [Text(spec.name, style="bold"), Text(trigger, style="dim"), following]
        if ended is None:
            cells += [Text("-", style="dim")] * 4
        else:
            state = Text(
                f"{ended.state.value} {_clock(ended.ended_ms or ended.created_ms)}", style=_STYLES[ended.state]
            )
            cells += [
                state,
                Text(f"{max(0, ended.created_ms - ended.scheduled_ms)} ms"),
                Text(ended.worker or "-"),
                Text(str(ended.attempts)),
            ]
        cells += [
            Text(str(view.succeeded), style="green"),
            Text(str(view.failed), style="red" if view.failed else "dim"),
            Text(str(view.active)),
        ]
        return cells


def _clock(instant_ms: int | None) -> str:
    if not instant_ms:
        return "-"
    return datetime.fromtimestamp(instant_ms / 1000, tz=UTC).astimezone().strftime("%H:%M:%S")
