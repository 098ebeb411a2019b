"""The live picture of a dev session: tasks, their next instants, what ran last and where; and the same in plain lines
where there is no terminal. `Picture` is the host's view sink, so it only ever shows what is durable.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.read.views import PoolView, RunView, TaskView, Views
from tickwheel_operator.engine.sources import ByClock, ByHand, Source
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers import CronTrigger, FixedRateTrigger, OnceTrigger, Trigger
from tickwheel_operator.engine.triggers.instants import by_clock_of

__all__ = ["Headline", "Picture"]

_STYLES = {
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "bold red",
    RunState.CANCELLED: "yellow",
    RunState.RUNNING: "cyan",
    RunState.PENDING: "dim",
}
_SIGNS = {
    RunState.SUCCEEDED: "✓",
    RunState.FAILED: "✗",
    RunState.CANCELLED: "-",
    RunState.RUNNING: "▸",
    RunState.PENDING: "…",
}
_VIEWS_AT_ONCE = 500
_WIDE = 110
"""Columns of a terminal from which states and headings are spelled out."""
_LONG_MS = 1_000
"""An open run that runs for longer is shown in the place of the last ended one."""
_SHORTENED = ((1, 8), (0, 10), (5, 8), (1, 3), (0, 3), (5, 3))
"""What a narrow terminal shortens, in this order, and to which width: names; the figures keep theirs."""


class _Column(msgspec.Struct, frozen=True):
    heading: str
    least: int
    right: bool = False


_WIDE_COLUMNS = (
    _Column("TASK", 12), _Column("TRIGGER", 12), _Column("NEXT", 6, right=True), _Column("LAST RUN", 18),
    _Column("LATE", 6, right=True), _Column("WHERE", 12), _Column("TRIES", 5, right=True), _Column("OK", 6, right=True),
    _Column("FAILED", 6, right=True), _Column("ACTIVE", 6, right=True),
)  # fmt: skip
_NARROW_COLUMNS = (
    _Column("TASK", 8), _Column("TRIGGER", 8), _Column("NEXT", 6, right=True), _Column("LAST", 10),
    _Column("LATE", 5, right=True), _Column("WHERE", 8), _Column("TRY", 3, right=True), _Column("OK", 3, right=True),
    _Column("FAIL", 4, right=True), _Column("ACT", 3, right=True),
)  # fmt: skip


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    workers: int
    seconds: float
    url: str
    ending: str = ""
    """What goes on when the session ends."""


class Picture:
    """Holds the latest view of each task, and draws."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskView] = {}
        self.pools: list[PoolView] = []

    def wanted(self) -> int:
        return _VIEWS_AT_ONCE

    def show(self, views: Views) -> None:
        for view in views.tasks:
            self.tasks[view.uid] = view
        self.pools = views.pools

    def unregistered(self, specs: Iterable[TaskSpec]) -> list[str]:
        """A sentence for each task whose handler no worker has, where there are workers that might."""
        pools = {(pool.namespace, pool.name): pool for pool in self.pools if pool.workers > pool.draining}
        found = []
        for spec in specs:
            pool = pools.get((spec.namespace, spec.pool))
            if pool is not None and spec.handler not in pool.handlers:
                known = ", ".join(pool.handlers) or "none"
                found.append(f"{spec.name}: no worker has registered the handler {spec.handler!r}; there are {known}")
        return found

    # --- live ---

    def draw(
        self,
        console: Console,
        specs: dict[str, TaskSpec],
        headline: Headline,
        faults: Sequence[str],
        notes: Sequence[str],
    ) -> RenderableType:
        """The whole picture, no higher than the terminal."""
        messages: list[RenderableType] = [Text(fault, style="bold red") for fault in faults]
        messages += [Text(note, style="yellow") for note in notes]
        room = max(3, console.height - 4)  # headline, empty line, headings, and one that terminals keep free
        lines = [len(console.render_lines(message)) for message in messages]
        while messages and sum(lines) > room - min(3, len(specs)):
            messages.pop()
            lines.pop()
        if len(messages) < len(faults) + len(notes):
            messages.append(Text(f"and {len(faults) + len(notes) - len(messages)} more messages", style="yellow"))
            lines.append(1)
        ordered = sorted(specs.items(), key=lambda item: (item[1].namespace, item[1].name))
        rows = max(1, room - sum(lines))
        if len(ordered) > rows:
            hidden = len(ordered) - rows + 1
            ordered = ordered[: rows - 1]
            messages.insert(0, Text(f"and {hidden} more tasks", style="dim"))
        else:
            spare = self._not_done(specs)[: rows - len(ordered)]
            messages += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in spare]
        table = self._table(console.width, ordered, ending=bool(headline.ending))
        return Group(self._headline(headline), Text(), table, *messages)

    def _headline(self, headline: Headline) -> Text:
        elapsed = int(headline.seconds)
        backlog = sum(pool.backlog for pool in self.pools)
        used = sum(pool.used for pool in self.pools)
        slots = sum(pool.slots for pool in self.pools)
        rest = (f"{used}/{slots} slots  {backlog} waiting  ", ""), (headline.url, "dim")
        return Text.assemble(
            ("tickwheel dev", "bold cyan"),
            f"  {elapsed // 60:02d}:{elapsed % 60:02d}  ",
            (f"{headline.workers} worker{'' if headline.workers == 1 else 's'}", "" if headline.workers else "yellow"),
            "  ",
            *(((headline.ending, "bold yellow"),) if headline.ending else rest),
            no_wrap=True,
            overflow="ellipsis",
        )

    def _table(self, width: int, specs: Sequence[tuple[str, TaskSpec]], *, ending: bool) -> Table:
        wide = width >= _WIDE
        shown = any(spec.namespace != "default" for _, spec in specs)
        now_ms = time.time_ns() // 1_000_000
        rows = []
        for uid, spec in specs:
            name = f"{spec.namespace}/{spec.name}" if shown else spec.name
            rows.append(self._row(name, spec, self.tasks.get(uid), now_ms, wide=wide, ending=ending))
        gap = 2 if wide else 1
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
        columns = _WIDE_COLUMNS if wide else _NARROW_COLUMNS
        widths = [
            max(column.least, *(row[place].cell_len for row in rows), 0) if rows else column.least
            for place, column in enumerate(columns)
        ]
        excess = sum(widths) + gap * (len(columns) - 1) - width
        for place, least in _SHORTENED:
            cut = max(0, min(excess, widths[place] - least))
            widths[place] -= cut
            excess -= cut
        for column, chosen in zip(columns, widths, strict=True):
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                width=chosen,
                no_wrap=True,
                overflow="ellipsis",
            )
        for row in rows:
            table.add_row(*row)
        return table

    def _row(
        self, name: str, spec: TaskSpec, view: TaskView | None, now_ms: int, *, wide: bool, ending: bool
    ) -> list[Text]:
        cells = [Text(name, style="bold"), Text(_source(spec.source, wide=wide), style="dim")]
        if view is None:
            return [*cells, *[Text("-", style="dim")] * 8]
        if spec.suspend:
            cells.append(Text("off", style="yellow"))
        elif view.next_ms is None or ending:
            cells.append(Text("-", style="dim"))
        else:
            cells.append(Text(_span(max(0, view.next_ms - now_ms))))
        run = _latest(view, now_ms)
        if run is None:
            cells += [Text("-", style="dim")] * 4
        else:
            cells += [
                Text(_state(run, wide=wide), style=_STYLES[run.state]),
                Text(_span(max(0, run.created_ms - run.scheduled_ms), exact=True)),
                Text(run.worker or "-"),
                Text(str(run.attempts), style="yellow" if run.attempts > 1 else ""),
            ]
        cells += [
            Text(str(view.succeeded), style="green"),
            Text(str(view.failed), style="red" if view.failed else "dim"),
            Text(str(view.active), style="" if view.active else "dim"),
        ]
        return cells

    def _not_done(self, specs: dict[str, TaskSpec]) -> list[str]:
        """A line for each task with skipped instants or cancelled runs. Few have some: columns would cost the names."""
        views = [self.tasks[uid] for uid in specs if uid in self.tasks]
        return [
            f"{view.name}: {', '.join(counts)}"
            for view in sorted(views, key=lambda view: (view.namespace, view.name))
            if (counts := _cancelled_and_skipped(view))
        ]

    # --- plain ---

    def summary(self, specs: dict[str, TaskSpec], seconds: float) -> Table:
        """What the ledger says of the tasks at the end of a session; the figures are those since it began."""
        table = Table(title=f"after {seconds:.0f} s", title_justify="left", box=None, header_style="bold")
        for name in ("TASK", "SUCCEEDED", "FAILED", "CANCELLED", "SKIPPED", "ACTIVE"):
            table.add_column(name, justify="left" if name == "TASK" else "right")
        for uid, spec in sorted(specs.items(), key=lambda item: (item[1].namespace, item[1].name)):
            view = self.tasks.get(uid)
            if view is None:
                table.add_row(spec.name, *"00000")
                continue
            skipped = f"{view.skipped}{_reasons(view)}"
            counts = (view.succeeded, view.failed, view.cancelled, skipped, view.active)
            table.add_row(spec.name, *map(str, counts))
        return table

    def lines(self, specs: dict[str, TaskSpec]) -> list[str]:
        """One line a task."""
        found = []
        for view in sorted(self.tasks.values(), key=lambda view: (view.namespace, view.name)):
            if view.uid in specs:
                run = _latest(view, 0)
                more = "".join(f" {count}," for count in _cancelled_and_skipped(view))
                last = f", last {run.state.value} on {run.worker or '-'}" if run is not None else ""
                found.append(
                    f"{view.name}: {view.succeeded} succeeded, {view.failed} failed,{more} {view.active} active,"
                    f" next {_clock(view.next_ms)}{last}"
                )
        return found


def _cancelled_and_skipped(view: TaskView) -> list[str]:
    """`2 cancelled` and `13 skipped (Overlap)`, as far as there are any."""
    found = [f"{view.cancelled} cancelled"] if view.cancelled else []
    return [*found, f"{view.skipped} skipped{_reasons(view)}"] if view.skipped else found


def _reasons(view: TaskView) -> str:
    """Why instants made no run: ` (Overlap)`, ` (12 Overlap, 1 Deadline)`."""
    reasons = ", ".join(reason if len(view.skips) == 1 else f"{count} {reason}" for reason, count, _ in view.skips)
    return f" ({reasons})" if reasons else ""


def _latest(view: TaskView, now_ms: int) -> RunView | None:
    """The last run that ended; or one that goes on for a while, since that is what a person waits for."""
    for run in view.runs:
        if run.state is RunState.RUNNING and run.started_ms and now_ms - run.started_ms > _LONG_MS:
            return run
    ended = next((run for run in view.runs if run.state.is_final), None)
    return ended or (view.runs[0] if view.runs else None)


def _state(run: RunView, *, wide: bool) -> str:
    word = run.state.value if wide else _SIGNS[run.state]
    if run.state is RunState.RUNNING and run.fraction:
        return f"{word} {run.fraction:.0%}"
    return f"{word} {_clock(run.ended_ms or run.started_ms or run.created_ms)}"


def _source(source: Source, *, wide: bool) -> str:
    match source.within(None):
        case ByClock(trigger):
            return _trigger(trigger, wide=wide)
        case ByHand():
            return "by hand"
        case unfiltered:
            return unfiltered.describe()


def _trigger(trigger: Trigger, *, wide: bool) -> str:
    match trigger:
        case CronTrigger():
            expression = " ".join(trigger.expression.split())
            return f"{expression} {trigger.zone_name}" if wide and trigger.zone_name != "UTC" else expression
        case FixedRateTrigger():
            return trigger.describe().partition(" from ")[0]
        case OnceTrigger():
            return f"once {_clock(trigger.at_ms)}"
        case _:
            return trigger.describe()


def _span(milliseconds: int, *, exact: bool = False) -> str:
    """A span of time in at most six characters; `exact` with the milliseconds of a short one."""
    seconds = milliseconds / 1000
    if exact and milliseconds < 1000:
        return f"{milliseconds}ms"
    if seconds < 100:
        return f"{seconds:.1f}s"
    minutes = int(seconds // 60)
    if minutes < 100:
        return f"{minutes}m{int(seconds % 60):02d}s"
    hours = minutes // 60
    return f"{hours}h{minutes % 60:02d}m" if hours < 48 else f"{hours // 24}d"


def _clock(instant_ms: int | None) -> str:
    if instant_ms is None:
        return "-"
    return f"{by_clock_of(None, instant_ms):%H:%M:%S}"
