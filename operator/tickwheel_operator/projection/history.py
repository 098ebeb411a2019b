"""TaskRun objects as views: the last runs of each task, kept in line with what the engine remembers.

Made with labels and an owner reference, so that they are told from requests and go with their task. The leader lists
them once, when its term begins, and keeps a digest of each; nobody else writes them. Invariant: only objects with the
view label and this task as their owner are ever written or deleted.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.read.views import RunView, TaskView
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.kinds.taskrun import TASK_RUN, VIEW_LABEL, run_status
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.projection.writer import Writer
from tickwheel_operator.projection.writing import with_transition_times

__all__ = ["VIEW_SELECTOR", "History"]

_log = logging.getLogger(__name__)

_TASK_LABEL = "tickwheel.io/task"
VIEW_SELECTOR = f"{VIEW_LABEL}=true"
_LABEL_CHARS = 63
_FINAL_STATES = frozenset(state.value for state in RunState if state.is_final)


class _View(NamedTuple):
    digest: int
    """Of its status; 0: it has none."""
    uid: str
    """Empty: an object of the name exists that is not ours."""
    final: bool


class History:
    """The view objects of one term."""

    def __init__(
        self, writer: Writer, failed: Callable[[Mapping[str, Any], Exception], None] = lambda item, error: None
    ) -> None:
        """`failed` hears of an object that cannot be read: it stays as it is, and the others are kept."""
        self._writer = writer
        self._failed = failed
        self._of_task: dict[str, dict[str, _View]] = {}
        """By the task's uid and the object's name."""
        self.listed = False

    def __len__(self) -> int:
        return sum(map(len, self._of_task.values()))

    async def load(self) -> None:
        """List what exists. Raises `ApiError`."""
        self._of_task.clear()
        async for item in self._writer.views(VIEW_SELECTOR):
            try:
                if owner := _owner(item):
                    self._of_task.setdefault(owner, {})[item["metadata"]["name"]] = _read(item)
            except Exception as error:
                self._failed(item, error)
        self.listed = True

    def forget(self, task_uid: str) -> None:
        """The task is gone; Kubernetes' garbage collection takes its objects."""
        self._of_task.pop(task_uid, None)

    def differs(self, view: TaskView, asked: frozenset[str]) -> bool:
        """Whether anything is to be written. `asked` are run ids that users' own TaskRuns show."""
        known = self._of_task.get(view.uid, {})
        wanted = _wanted(view, asked)
        return bool(_old(known, wanted)) or any(_differs(known.get(name), run) for name, run in wanted.items())

    async def sync(self, view: TaskView, asked: frozenset[str]) -> None:
        """Create, update and delete until the objects are the view's runs. Raises `ApiError`.

        The old ones go last: where requests wait for their turn, a task would seem to have had no runs meanwhile.
        """
        known = self._of_task.setdefault(view.uid, {})
        wanted = _wanted(view, asked)
        try:
            for name, run in wanted.items():
                if name not in known:
                    known[name] = await self._create(view, run)
                if _differs(known[name], run):
                    await self._update(view, run, known)
        except ApiError:
            await self._drop(view, known, wanted)  # where a quota is full, the next try has room then
            raise
        await self._drop(view, known, wanted)

    async def _drop(self, view: TaskView, known: dict[str, _View], wanted: Mapping[str, RunView]) -> None:
        for name in _old(known, wanted):
            await self._writer.delete_run(view.namespace, name, known[name].uid)
            known.pop(name, None)

    async def _create(self, view: TaskView, run: RunView) -> _View:
        made = await self._writer.create_run(view.namespace, _body(view, run))
        if made.ok:
            return _View(0, made.body["metadata"]["uid"], final=False)
        found = await self._writer.read_run(view.namespace, run.name)
        if found.ok and _owner(found.body) == view.uid:
            return _read(found.body)
        _log.warning("TaskRun %s/%s is not the operator's: its run is not shown", view.namespace, run.name)
        return _View(0, "", final=False)

    async def _update(self, view: TaskView, run: RunView, known: dict[str, _View]) -> None:
        before, uid = known[run.name].digest, known[run.name].uid
        status = run_status(run, 1)
        written = await self._writer.patch_status(
            "TaskRun", view.namespace, run.name, uid, with_transition_times(status, _since(run)),
            has_status=before != 0,
        )  # fmt: skip
        if written.ok:
            known[run.name] = _View(TASK_RUN.digests(status)[0], uid, final=run.state.is_final)
        else:
            known.pop(run.name, None)  # somebody deleted it: the next change makes it again


def _read(item: Mapping[str, Any]) -> _View:
    status = item.get("status") or {}
    final = status.get("state") in _FINAL_STATES
    return _View(TASK_RUN.digests(status)[0], item["metadata"]["uid"], final=final)


def _wanted(view: TaskView, asked: frozenset[str]) -> dict[str, RunView]:
    """The runs that are shown here, by the names of their objects."""
    return {run.name: run for run in view.runs if run.run_id not in asked and not run.requested}


def _old(known: Mapping[str, _View], wanted: Mapping[str, RunView]) -> list[str]:
    """Our objects that are wanted no longer."""
    return [name for name, shown in known.items() if name not in wanted and shown.uid]


def _differs(known: _View | None, run: RunView) -> bool:
    """A run that ended never changes: most views have only such runs, and cost nothing."""
    if known is None:
        return True
    return bool(known.uid) and not known.final and known.digest != TASK_RUN.digests(run_status(run, 1))[0]


def _since(run: RunView) -> str:
    """The instant of the run's last change of state, the same on every leader."""
    return timestamp(run.ended_ms or run.started_ms or run.created_ms)


def _owner(item: Mapping[str, Any]) -> str:
    """The uid of the task that a view belongs to; empty for what is no view."""
    metadata = item["metadata"]
    if (metadata.get("labels") or {}).get(VIEW_LABEL) != "true":
        return ""
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("kind") == "ScheduledTask" and reference.get("controller"):
            return str(reference["uid"])
    return ""


def _body(view: TaskView, run: RunView) -> dict[str, Any]:
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "TaskRun",
        "metadata": {
            "name": run.name,
            "namespace": view.namespace,
            "labels": {VIEW_LABEL: "true", _TASK_LABEL: _label_value(view.name)},
            "ownerReferences": [
                {
                    "apiVersion": "tickwheel.io/v1alpha1",
                    "kind": "ScheduledTask",
                    "name": view.name,
                    "uid": view.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {"task": view.name, "scheduledTime": timestamp(run.scheduled_ms)},
    }


def _label_value(name: str) -> str:
    """The task's name, or what fits of it and a digest."""
    if len(name) <= _LABEL_CHARS:
        return name
    return f"{name[:52].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
