"""`tickwheel backfill`: the runs of past instants, by one TaskRun, and its progress.

The TaskRun's name follows from the task and the span. So the same command again makes nothing new: it goes on watching,
or tells how it ended. Invariant: what is watched is what was asked for; Ctrl-C ends the watching, never a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from datetime import datetime
from typing import Any

import click
import msgspec

from tickwheel_operator.api import API_VERSION, InvalidManifest, TaskRun, parse
from tickwheel_operator.cli.following import follow, state_of
from tickwheel_operator.cli.moments import MOMENT, moment_ms
from tickwheel_operator.cli.objects import AlreadyThere, NotThere, Objects, objects_of
from tickwheel_operator.cli.options import Cluster, Output, cluster_options, output_option, structured
from tickwheel_operator.cli.schedules import Schedule, of_cluster
from tickwheel_operator.engine.cron import zone_named
from tickwheel_operator.engine.spec import EngineConfig
from tickwheel_operator.engine.triggers import counted_until
from tickwheel_operator.engine.triggers.instants import timestamp

__all__ = ["backfill"]

_CUT_SHORT = 130
"""The exit status after Ctrl-C, as shells know it."""
_MOST = EngineConfig().max_backfill


class Span(msgspec.Struct, frozen=True):
    """What is made up for."""

    since: str = msgspec.field(name="from")
    to: str
    instants: int
    first: str | None
    last: str | None


@click.command(short_help="Run a task for each past instant of a span.")
@click.argument("task")
@click.option(
    "--from",
    "since",
    type=MOMENT,
    required=True,
    help="Instants from this time on; one at it counts (next leaves it out).",
)
@click.option("--to", "until", type=MOMENT, required=True, help="No instant at or after this one.")
@click.option("--max-parallel", type=click.IntRange(1, 1_000), help="How many runs at a time.", show_default="10")
@click.option("--name", help="The TaskRun's name.", show_default="made of task and span")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow it until it ends.")
@click.option("--dry-run", is_flag=True, help="Make nothing; print how many instants there are, the first and last.")
@output_option
@cluster_options(about="The task's namespace.")
def backfill(
    task: str,
    since: datetime,
    until: datetime,
    max_parallel: int | None,
    name: str | None,
    wait: bool,
    dry_run: bool,
    output: Output,
    cluster: Cluster,
) -> None:
    """Run TASK for every instant of its trigger from --from until before --to.

    Times are RFC 3339 (2026-11-01T00:00:00Z); without an offset (2026-11-01) they are read in the task's time zone.
    Each run is told the instant it stands for. An instant that a backfill ran already is not run again.

    The same command again goes on watching. Ctrl-C ends the watching, not the runs. Exits with 1 when any run failed.
    """

    async def ask() -> bool:
        async with objects_of(cluster) as objects:
            schedule = await of_cluster(objects, task)
            span = _span(schedule, since, until)
            if dry_run:
                _print_span(task, span, output)
                return True
            request = _request(task, name or _name(task, span), objects.namespace, span, max_parallel)
            return await _run(objects, request, span, wait, output)

    try:
        well = asyncio.run(ask())
    except KeyboardInterrupt:
        sys.exit(_CUT_SHORT)
    sys.exit(0 if well else 1)


async def _run(objects: Objects, request: dict[str, Any], span: Span, wait: bool, output: Output) -> bool:
    """Ask for it, and follow it. Returns whether all is well."""
    name, task = request["metadata"]["name"], request["spec"]["task"]
    if not span.instants:
        raise click.ClickException(
            f"{task} has no instant from {span.since} until before {span.to}: there is nothing to make up for; see "
            f"`tickwheel next {task} -n {objects.namespace} --from {span.since}`"
        )
    if span.instants > _MOST:
        raise click.ClickException(
            f"{task} has more than {_MOST:,} instants from {span.since} until before {span.to}: divide the span"
        )
    state = state_of(await _ask_for(objects, request, output))
    try:
        if wait:
            state = await follow(objects, name, total=span.instants, output=output)
    except asyncio.CancelledError:
        click.echo(
            f"\n{name} goes on. Give the same command to watch it again, or cancel it: "
            f"kubectl patch taskruns.tickwheel.io {name} "
            f'-n {objects.namespace} --type merge -p \'{{"spec": {{"cancel": true}}}}\'',
            err=True,
        )
        raise
    if output is not Output.TABLE:
        click.echo(structured(state, output))
    else:
        click.echo(str(state))
        if state.state in ("Failed", "Cancelled"):
            click.echo(
                f"see `kubectl get taskruns.tickwheel.io -n {objects.namespace}` for its runs; the same command with "
                "another --name runs what has not succeeded",
                err=True,
            )
    return state.well


def _span(schedule: Schedule, since: datetime, until: datetime) -> Span:
    """The instants from `since` until before `until`."""
    if schedule.without_instants:
        raise click.ClickException(f"{schedule.title} cannot be backfilled: {schedule.without_instants}")
    trigger = schedule.spec.trigger
    if trigger is None:
        raise TypeError(f"{schedule.title} has neither a trigger nor a reason why")
    zone = zone_named(schedule.zone)
    since_ms, until_ms = moment_ms(since, zone), moment_ms(until, zone)
    if until_ms <= since_ms:
        raise click.BadParameter(
            f"{timestamp(until_ms)} is not after --from, {timestamp(since_ms)}", param_hint="'--to'"
        )
    if until_ms > time.time_ns() // 1_000_000:
        raise click.BadParameter(
            f"{timestamp(until_ms)} is in the future, and a backfill makes up for past instants", param_hint="'--to'"
        )
    after_ms, last_ms = since_ms - 1, until_ms - 1
    if counted_until(trigger, after_ms, last_ms) < last_ms:
        raise click.ClickException("window and calendars refuse too many instants of this span one by one: divide it")
    first = trigger.next_after(after_ms)
    last = trigger.last_at_or_before(last_ms, after_ms)
    return Span(
        since=timestamp(since_ms),
        to=timestamp(until_ms),
        instants=trigger.count_between(after_ms, last_ms, _MOST + 1),
        first=None if first is None or last is None else timestamp(first),
        last=None if last is None else timestamp(last),
    )


def _name(task: str, span: Span) -> str:
    digest = hashlib.sha256(f"{span.since}/{span.to}".encode()).hexdigest()
    return f"{task}-backfill-{digest[:10]}"


def _request(task: str, name: str, namespace: str, span: Span, max_parallel: int | None) -> dict[str, Any]:
    """The TaskRun that asks for it."""
    wanted: dict[str, Any] = {"from": span.since, "to": span.to}
    if max_parallel is not None:
        wanted["maxParallel"] = max_parallel
    body = {
        "apiVersion": API_VERSION,
        "kind": TaskRun.kind_name(),
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"task": task, "backfill": wanted},
    }
    try:
        parse(body)
    except InvalidManifest as invalid:
        options = {"metadata.name": "--name", "spec.task": "TASK"}
        told = "; ".join(f"{options.get(fault.path, fault.path)}: {fault.message}" for fault in invalid.faults)
        raise click.UsageError(told) from invalid
    return body


async def _ask_for(objects: Objects, body: dict[str, Any], output: Output) -> dict[str, Any]:
    """The TaskRun: a new one, or the one that was asked for before with the same words."""
    name = body["metadata"]["name"]
    try:
        made = await objects.create(TaskRun, body)
    except AlreadyThere as there:
        try:
            stored = await objects.get(TaskRun, name)
        except NotThere as error:
            raise click.ClickException(f"the {there} was just deleted; give the command again") from error
        _is_the_same(stored, body)
        if output is Output.TABLE:
            click.echo(f"{name} was asked for before; it is not asked for again")
        return stored
    if output is Output.TABLE:
        click.echo(f"{name} is asked for")
    return made


def _is_the_same(stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compares what was said, as the stored object spells it: what was left out may be what it likes."""
    spec, backfilled = stored["spec"], stored["spec"].get("backfill") or {}
    differing = [
        f"{field} is {has!r} there, not {wants!r}"
        for field, has, wants in (
            ("task", spec.get("task"), wanted["spec"]["task"]),
            *((key, backfilled.get(key), value) for key, value in wanted["spec"]["backfill"].items()),
        )
        if has != wants
    ]
    if differing:
        raise click.ClickException(
            f"there is another TaskRun {stored['metadata']['name']}: {'; '.join(differing)}. It cannot be changed: "
            "leave the option out to watch that one, or choose another --name (what ran is not run again)"
        )


def _print_span(task: str, span: Span, output: Output) -> None:
    if output is not Output.TABLE:
        click.echo(structured(span, output))
        return
    count = f"more than {_MOST:,}" if span.instants > _MOST else f"{span.instants:,}"
    click.echo(f"{task}: {count} instants from {span.since} until before {span.to}")
    if span.instants:
        click.echo(f"first {span.first}")
        click.echo(f"last  {span.last}")
