"""What the live workers of a cluster say of tasks: `lint --cluster`.

It reads `status.handlers` of the pools that the tasks name. Invariants: each pool is read once; what no live worker has
said is a warning, never a fault, since it may be rolled out later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from tickwheel_operator.api import FieldFault, Resource, ScheduledTask, WorkerPool
from tickwheel_operator.cli.manifests import Finding, Manifest
from tickwheel_operator.cli.objects import NotThere, Objects
from tickwheel_operator.handlers.checking import Checkers
from tickwheel_operator.kinds.registered import MOST_HANDLERS
from tickwheel_operator.kube.client import KubeClient

__all__ = ["live_findings"]

_NAMES_SHOWN = 20
_UNCHECKED = "the handlers and parameters of its tasks are not checked"

PoolKey = tuple[str, str]


class _Handler(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None
    differ: bool = False


class _Status(msgspec.Struct):
    handlers: list[_Handler] = []


class _Stored(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


async def live_findings(client: KubeClient, valid: Sequence[tuple[Manifest, Resource]]) -> list[Finding]:
    """Findings about the tasks among these objects, in their order. Raises `click.ClickException`, `ApiUnanswered`."""
    tasks = [(manifest, resource) for manifest, resource in valid if isinstance(resource, ScheduledTask)]
    pools: dict[PoolKey, dict[str, _Handler]] = {}
    findings: list[Finding] = []
    checkers = Checkers()
    for manifest, task in tasks:
        key = (task.metadata.namespace, str(task.spec.pool))
        if key not in pools:
            pools[key], problem = await _handlers(client, *key)
            if problem:
                findings.append(manifest.warning("spec.pool", problem))
        if pools[key]:
            findings += _of_task(manifest, task, pools[key], checkers)
    return findings


async def _handlers(client: KubeClient, namespace: str, pool: str) -> tuple[dict[str, _Handler], str]:
    """What the pool's live workers registered, by name, and why nothing is known of it."""
    try:
        stored = await Objects(client, namespace).get(WorkerPool, pool)
    except NotThere as error:
        return {}, f"the cluster has no {error}: {_UNCHECKED}"
    handlers = {handler.name: handler for handler in msgspec.convert(stored, _Stored).status.handlers}
    if handlers:
        return handlers, ""
    return {}, f"no live worker of pool {pool} in namespace {namespace} has registered a handler: {_UNCHECKED}"


def _of_task(
    manifest: Manifest, task: ScheduledTask, handlers: dict[str, _Handler], checkers: Checkers
) -> Iterator[Finding]:
    name = str(task.spec.handler)
    handler = handlers.get(name)
    if handler is not None:
        yield from _of_parameters(manifest, task, handler, checkers)
    elif len(handlers) < MOST_HANDLERS:  # else the status may have left it out
        yield manifest.warning("spec.handler", _not_registered(name, str(task.spec.pool), list(handlers)))


def _not_registered(name: str, pool: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (
        f"{name!r} is not registered by the live workers of pool {pool}{meant}; "
        f"registered: {', '.join(names[:_NAMES_SHOWN])}{more}. Its runs wait until a worker registers it"
    )


def _of_parameters(manifest: Manifest, task: ScheduledTask, handler: _Handler, checkers: Checkers) -> Iterator[Finding]:
    """A task without a trigger runs only with the parameters of who asks for a run, which go over its own."""
    if handler.parameters is None:
        return
    by_hand = task.spec.trigger is None
    refusal = checkers.refusal(
        handler.name,
        [msgspec.json.encode(handler.parameters)],
        msgspec.json.encode(task.spec.parameters),
        "spec.parameters",
    )
    for fault in refusal.faults if refusal is not None else ():
        if by_hand and fault.missing:
            continue
        message = f"{fault.message}. {refusal.takes}" if refusal is not None and refusal.takes else fault.message
        if handler.differ:
            message += ". Live workers of the pool differ, so that others may take it"
        elif by_hand:
            message += ". A run that gives no other value is refused"
        yield manifest.fault(FieldFault(fault.path, message), warning=handler.differ or by_hand)
