"""`tickwheel next`: when a task fires, by the operator's own code, with or without a cluster.

For scripts it prints instants and nothing else; for people also what they depend on, and why there are none.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickwheel_operator.cli.moments import MOMENT, distance, local, moment_ms
from tickwheel_operator.cli.objects import objects_of
from tickwheel_operator.cli.options import Cluster, Output, cluster_options, output_option, structured
from tickwheel_operator.cli.schedules import Schedule, of_cluster, of_expression, of_files
from tickwheel_operator.cli.serving import warn_of_a_past_instant
from tickwheel_operator.engine.cron import UnknownZoneError, zone_named
from tickwheel_operator.engine.schedule.jitter import jittered_start_ms, shortest_gap_ms
from tickwheel_operator.engine.triggers import spell_duration
from tickwheel_operator.engine.triggers.instants import instant_of, timestamp

__all__ = ["next_instants"]

_MOST = 1_000
_LEAST_WIDTH = 120
_NAMESPACE_OF_FILES = "default"


@click.command(name="next", short_help="Show when a task fires next.")
@click.argument("task", required=False)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
    help="Read tasks and calendars from a file, a folder or - (standard input) instead of a cluster. Can be repeated.",
)
@click.option("--cron", "expression", help="A cron expression instead of a task: '0 9 * * MON-FRI'.")
@click.option(
    "--time-zone",
    "zone_name",
    help="With --cron, the IANA time zone it is read in (default UTC); else the one that times are shown in "
    "(default: the task's).",
)
@click.option(
    "--from",
    "since",
    type=MOMENT,
    help="Instants after this time; one at it is left out (backfill counts it). Without an offset: in the zone above.",
)
@click.option("--count", type=click.IntRange(1, _MOST), default=10, show_default=True, help="How many, at most.")
@output_option
@cluster_options(about="The task's namespace; with --file that of manifests that name none (default).")
def next_instants(
    task: str | None,
    files: tuple[Path, ...],
    expression: str | None,
    zone_name: str | None,
    since: datetime | None,
    count: int,
    output: Output,
    cluster: Cluster,
) -> None:
    """Show when TASK fires next.

    Give a task of the cluster by its name, or --file with manifests (all their tasks, or the one named TASK), or --cron
    with an expression. Nothing but --cron and --file is needed without a cluster; calendars that a task names are read
    from where the task is.

    -o json prints an array of RFC 3339 instants in UTC; of files with several tasks, an object with an array for each.
    What can never fire gives [].
    """
    now_ms = time.time_ns() // 1_000_000

    def since_ms(own_zone: str) -> int:
        return now_ms if since is None else moment_ms(since, _zone(zone_name or own_zone))

    if zone_name is not None:
        _zone(zone_name)
    asked, faults = 1, list[str]()
    if expression is not None:
        if task is not None or files:
            raise click.UsageError("--cron stands for a task: leave TASK and --file out, or leave out --cron")
        schedules = [of_expression(expression, zone_name or "UTC")]
    elif files:
        namespace = cluster.namespace or _NAMESPACE_OF_FILES
        of = of_files(files, name=task, namespace=namespace, created_ms=since_ms)
        schedules, asked, faults = of.schedules, of.tasks, of.faults
    elif task is not None:
        schedules = [asyncio.run(_of_cluster(cluster, task))]
        _warn_of_the_past(schedules[0], now_ms)
    else:
        raise click.UsageError("name a TASK of the cluster, or give --file F or --cron '0 9 * * MON-FRI'")

    found = [(schedule, schedule.instants(since_ms(schedule.zone), count)) for schedule in schedules]
    _show(found, output, several=asked > 1, zone_name=zone_name, since_ms=since_ms, now_ms=now_ms)
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        sys.exit(1)


def _show(
    found: Sequence[tuple[Schedule, Sequence[int]]],
    output: Output,
    *,
    several: bool,
    zone_name: str | None,
    since_ms: Callable[[str], int],
    now_ms: int,
) -> None:
    if output is not Output.TABLE:
        for schedule, _ in found:
            if schedule.assumed:
                click.echo(": ".join(filter(None, (schedule.title, schedule.assumed))), err=True)
        lists = {schedule.title: [timestamp(instant) for instant in instants] for schedule, instants in found}
        click.echo(structured(lists if several else next(iter(lists.values())), output))
        return
    console = Console(highlight=False)
    console.width = max(console.width, _LEAST_WIDTH)  # a narrow terminal wraps lines, and cuts no instant off
    for number, (schedule, instants) in enumerate(found):
        if number:
            console.print()
        said = _said(schedule, instants, since_ms(schedule.zone))
        _print(console, schedule, instants, said, zone_name or schedule.zone, now_ms)


async def _of_cluster(cluster: Cluster, task: str) -> Schedule:
    async with objects_of(cluster) as objects:
        return await of_cluster(objects, task)


def _warn_of_the_past(schedule: Schedule, now_ms: int) -> None:
    """Of a task that the operator should have done something about."""
    if schedule.published and not (schedule.stalled or schedule.spec.suspend):
        with contextlib.suppress(ValueError):
            warn_of_a_past_instant(instant_of(datetime.fromisoformat(schedule.published)), now_ms)


def _zone(name: str) -> ZoneInfo:
    try:
        return zone_named(name)
    except UnknownZoneError as error:
        raise click.BadParameter(str(error), param_hint="'--time-zone'") from error


def _print(
    console: Console, schedule: Schedule, instants: Sequence[int], said: Sequence[str], zone_name: str, now_ms: int
) -> None:
    spec = schedule.spec
    heading = ": ".join(part for part in (schedule.title, schedule.heading) if part)
    console.print(Text(heading, style="bold"), soft_wrap=True)
    for line in said:
        console.print(Text(line), soft_wrap=True)
    if not instants:
        return
    zone = _zone(zone_name)
    jittered = spec.jitter_ms > 0 and bool(spec.uid)
    table = Table(box=None, pad_edge=False)
    if zone_name != "UTC":
        table.add_column(f"LOCAL ({zone_name})", no_wrap=True)
    for heading in ("UTC", "FROM NOW", *(("STARTS",) if jittered else ())):
        table.add_column(heading, no_wrap=True)
    for instant in instants:
        row = [timestamp(instant), distance(instant, now_ms)]
        if zone_name != "UTC":
            row.insert(0, local(instant, zone))
        if jittered:
            row.append(f"+{(jittered_start_ms(spec, instant, instant, 0) - instant) / 1_000:.3f}s")
        table.add_row(*row)
    console.print(table)


def _said(schedule: Schedule, instants: Sequence[int], since_ms: int) -> list[str]:
    """What a person should know beside the instants."""
    spec = schedule.spec
    said = [schedule.assumed] if schedule.assumed else []
    if schedule.stalled:
        said.append(f"stalled, so that none of these fires: {schedule.stalled}")
    if schedule.unmet:
        said.append(f"no worker can run it yet: {schedule.unmet}")
    if spec.suspend:
        said.append("suspended: nothing fires before spec.suspend is false")
    over = spec.trigger is None and spec.source.has_ended(since_ms, is_open=True)
    if schedule.without_instants and not over:
        next_one = f"; the next one is {schedule.published}" if schedule.published and not spec.suspend else ""
        said.append(f"{schedule.without_instants}{next_one}")
    elif not instants:
        said.append("it never fires again after that time")
    if spec.jitter_ms > 0 and (instants or spec.trigger is None) and not over:
        delay = f"jitter: each run starts up to {spell_duration(spec.jitter_ms)} after its instant"
        gap_ms = None if spec.trigger is None else shortest_gap_ms(spec.trigger, since_ms)
        if gap_ms is not None and gap_ms <= spec.jitter_ms:
            delay += ", but before the next one"
        if spec.trigger is None:
            said.append(delay)
        elif spec.uid:
            said.append(f"{delay}, as STARTS says")
        else:
            said.append(f"{delay}; the object's uid decides by how much")
    return said
