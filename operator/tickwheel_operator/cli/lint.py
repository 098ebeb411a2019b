"""`tickwheel lint`: what is wrong with manifests, before anybody applies them.

It says what the operator would say in the `Stalled` condition and the admission policies at apply time, since it asks
the same code. It needs a cluster only for what live workers take (`--cluster`). Invariant: a fault, one line, exit
status 1; advice alone never fails.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import click

from tickwheel_operator.api import FieldFault, InvalidManifest, Resource, ScheduledTask, WorkerPool, unsupported
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.cli.live import live_findings
from tickwheel_operator.cli.manifests import Finding, Manifest, read
from tickwheel_operator.cli.options import Cluster, Output, cluster_options, output_option, structured
from tickwheel_operator.cli.schedules import bound
from tickwheel_operator.cli.serving import warn_unless_served
from tickwheel_operator.cli.unheeded import unheeded
from tickwheel_operator.controllers.completions import Completions
from tickwheel_operator.engine.cron import warnings as cron_warnings
from tickwheel_operator.engine.schedule.jitter import shortest_gap_ms
from tickwheel_operator.engine.triggers import looked_until
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.engine.triggers.spelling import spell_duration
from tickwheel_operator.kinds.calendar import compile_calendar
from tickwheel_operator.pools import constraints

__all__ = ["lint"]

_CIRCLE_SHOWN = 10


@click.command(short_help="Check manifests.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option("--cluster", "live", is_flag=True, help="Check also against what the live workers of a cluster take.")
@output_option
@cluster_options(
    about="The namespace of manifests that name none, as for kubectl apply.",
    shown="default; with --cluster the context's",
)
def lint(files: tuple[Path, ...], live: bool, output: Output, cluster: Cluster) -> None:
    """Check the manifests in FILES: files, folders, or - for the standard input.

    Prints one line for each fault, and exits with 1 if there is any: the file and line, the object, the field, what is
    wrong, what is allowed. Warnings are for what is valid and often not meant; they go to standard error and fail
    nothing. Objects of other API groups are passed over. -o json and yaml print both as a list.

    With --cluster, handlers and parameters of tasks are checked also against what live workers have registered. It
    needs the right to get WorkerPools.
    """
    if not live and (cluster.context or cluster.kubeconfig):
        raise click.UsageError("--context and --kubeconfig name the cluster of --cluster: add it, or leave them out")
    reading = read(files)
    findings = list(reading.findings)
    if live:
        findings += asyncio.run(_with_cluster(reading.manifests, cluster))
    else:
        findings += _check(reading.manifests, cluster.namespace or "default")[0]
    faults = [finding for finding in findings if not finding.warning]
    if output is not Output.TABLE:
        click.echo(structured(findings, output))
    else:
        for finding in findings:
            click.echo(str(finding), err=finding.warning)
        if not reading.manifests and not faults:
            click.echo("warning: there is no object of tickwheel.io in what was named", err=True)
        elif not faults:
            click.echo(f"{_count(len(reading.manifests), 'object')} in {_count(reading.files, 'file')}: no fault")
    sys.exit(1 if faults else 0)


async def _with_cluster(manifests: Sequence[Manifest], cluster: Cluster) -> list[Finding]:
    async with cluster.client() as client:
        await warn_unless_served(client)
        findings, valid = _check(manifests, cluster.namespace or cluster.context_namespace())
        return [*findings, *await live_findings(client, valid)]


def _check(manifests: Sequence[Manifest], namespace: str) -> tuple[list[Finding], list[tuple[Manifest, Resource]]]:
    """In the order of the files, but for what depends on several objects, which comes last. And what is valid."""
    now_ms = time.time_ns() // 1_000_000
    findings: list[Finding] = []
    valid: list[tuple[Manifest, Resource]] = []
    calendars: dict[str, dict[str, CalendarDates]] = {}
    for manifest in manifests:
        try:
            findings += manifest.remarks()
            resource = manifest.resource(namespace=namespace, creationTimestamp=timestamp(now_ms))
            if gaps := unsupported(resource):
                raise InvalidManifest(gaps)
            if isinstance(resource, WorkerPool) and (faults := constraints.faults(resource)):
                raise InvalidManifest(faults)
            if isinstance(resource, Calendar):
                own = calendars.setdefault(resource.metadata.namespace, {})
                own[resource.metadata.name] = compile_calendar(resource)
        except InvalidManifest as invalid:
            findings += [manifest.fault(fault) for fault in invalid.faults]
        except Exception as error:
            findings.append(manifest.failed(error))
        else:
            valid.append((manifest, resource))
    for manifest, resource in valid:
        try:
            findings += _of_resource(manifest, resource, calendars.get(resource.metadata.namespace, {}), now_ms)
        except Exception as error:
            findings.append(manifest.failed(error))
    findings += _followed(manifests, valid, namespace)
    findings += _twice(manifests, namespace)
    return findings, valid


def _of_resource(
    manifest: Manifest, resource: Resource, calendars: dict[str, CalendarDates], now_ms: int
) -> Iterator[Finding]:
    for fault in unheeded(resource):
        yield manifest.fault(fault, warning=True)
    if isinstance(resource, ScheduledTask):
        yield from _of_task(manifest, resource, calendars, now_ms)
    elif isinstance(resource, Calendar):
        for position, expression in enumerate(resource.spec.crons):
            yield from _advice(manifest, f"spec.crons[{position}]", expression)


def _of_task(
    manifest: Manifest, task: ScheduledTask, calendars: dict[str, CalendarDates], now_ms: int
) -> Iterator[Finding]:
    trigger = task.spec.trigger
    uses = () if trigger is None else trigger.calendars
    unknown = [(position, use.name) for position, use in enumerate(uses) if use.name not in calendars]
    if unknown and trigger is not None:
        for position, name in unknown:
            message = f"there is no valid Calendar {name} in these files: what it leaves of the trigger is not checked"
            yield manifest.warning(f"spec.trigger.calendars[{position}].name", message)
        known = tuple(use for use in uses if use.name in calendars)
        without = task.spec.model_copy(update={"trigger": trigger.model_copy(update={"calendars": known})})
        task = task.model_copy(update={"spec": without})
    try:
        spec = bound(task, calendars)
    except InvalidManifest as invalid:
        yield from (manifest.fault(fault) for fault in invalid.faults)
        return
    source = spec.trigger
    gap_ms = None if source is None or not spec.jitter_ms else shortest_gap_ms(source, now_ms)
    if gap_ms is not None and gap_ms <= spec.jitter_ms:
        message = (
            f"is not shorter than the {spell_duration(gap_ms)} between two instants: a run starts before the next "
            "instant, so the jitter is cut there"
        )
        yield manifest.warning("spec.trigger.jitter", message)
    if source is not None and looked_until(source, now_ms) is None:
        message = (
            "all its instants are past: once applied, the misfire policy decides about the last one, and no other comes"
        )
        yield manifest.warning("spec.trigger", message)
    if trigger is not None and trigger.cron is not None:
        yield from _advice(manifest, "spec.trigger.cron", trigger.cron)


def _advice(manifest: Manifest, path: str, expression: str) -> Iterator[Finding]:
    yield from (manifest.warning(path, message) for message in cron_warnings(expression))


def _followed(
    manifests: Sequence[Manifest], valid: Sequence[tuple[Manifest, Resource]], namespace: str
) -> Iterator[Finding]:
    """Tasks that follow one which is not there, or themselves in the end."""
    path = "spec.trigger.completion.task"
    there = {_name(manifest, namespace) for manifest in manifests if manifest.kind == ScheduledTask.kind_name()}
    completions = Completions()
    followers: list[tuple[Manifest, tuple[str, str]]] = []
    for manifest, resource in valid:
        if isinstance(resource, ScheduledTask) and resource.spec.trigger and resource.spec.trigger.completion:
            place, followed = resource.metadata.namespace, str(resource.spec.trigger.completion.task)
            completions.link((place, resource.metadata.name), (place, followed))
            followers.append((manifest, (place, resource.metadata.name)))
            if (place, followed) not in there:
                message = f"there is no ScheduledTask {followed} of namespace {place} in these files"
                yield manifest.warning(path, f"{message}: until there is one in the cluster, this task is stalled")
    for manifest, name in followers:
        circle = [one for _, one in islice(completions.cycle(name), _CIRCLE_SHOWN)]
        if circle:
            chain = " -> ".join([*circle, *(["..."] if len(circle) == _CIRCLE_SHOWN else []), name[1]])
            message = f"{chain} is a circle, in which a run would follow itself; break it"
            yield manifest.fault(FieldFault(path, message))


def _name(manifest: Manifest, namespace: str) -> tuple[str, str] | None:
    """Namespace and name; None: it has none."""
    metadata = manifest.with_defaults(namespace=namespace).get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        return None
    return str(metadata["namespace"]), str(metadata["name"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _twice(manifests: Sequence[Manifest], namespace: str) -> Iterator[Finding]:
    """Objects that would overwrite each other."""
    first: dict[tuple[object, ...], Manifest] = {}
    for manifest in manifests:
        name = _name(manifest, namespace)
        if name is None:
            continue
        known = first.setdefault((manifest.kind, name), manifest)
        if known is not manifest:
            where = f"{known.file}:{known.line('metadata.name')}"
            message = f"stands twice: {where} has the same kind, namespace and name; rename or remove one of them"
            yield manifest.fault(FieldFault("metadata.name", message))
