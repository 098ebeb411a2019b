"""A folder of manifests in the place of an API server.

It gives each object what an API server would: a uid, a creation time, a generation that grows with its spec, and the
last valid version, which counts while a file has a fault. They are kept beside the ledger (`dev.memory`), so that a
second start goes on where the first one stopped. What the objects mean together (calendars, tasks that follow others)
is worked out by the catalog, as in a cluster. Used by `dev.session`, which posts what changed to the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tickwheel_operator.api import objects, parse, unsupported
from tickwheel_operator.api.documents import SUFFIXES
from tickwheel_operator.api.faults import FieldFault, InvalidManifest
from tickwheel_operator.api.workerpool import WorkerPool
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.dev.memory import Known, Memory
from tickwheel_operator.dev.watched import Watched, listed
from tickwheel_operator.engine.messages import Command, TaskRemoved
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.kinds import AWAITED, KINDS
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK, SeenTask
from tickwheel_operator.kinds.seen import Seen
from tickwheel_operator.kinds.taskrun import TASK_RUN
from tickwheel_operator.kinds.workerpool import WORKER_POOL, SeenPool

__all__ = ["MOST_WORKERS", "Fault", "Folder", "LocalPool"]

MOST_WORKERS = 8
"""Worker processes of one pool here, whatever its `spec.replicas`: a folder that is meant for a cluster must not
bring a laptop down."""

_SLOTS = 16
_DRAIN_MS = 60_000
_LOCAL = tuple(kind for kind in AWAITED if kind is not TASK_RUN)
"""The kinds that mean something without an API server."""

_log = logging.getLogger(__name__)


class Fault(msgspec.Struct, frozen=True):
    """Why a document of the folder is not taken."""

    file: str
    object: str
    """`ScheduledTask/hello`, or empty for the whole file."""
    path: str
    """Field path, or empty for the whole document."""
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.object, self.path, self.message) if part)


class LocalPool(msgspec.Struct, frozen=True):
    """How many local worker processes a pool has, and how they run."""

    namespace: str
    name: str
    replicas: int
    slots: int
    drain_ms: int
    """How long a worker that is told to end may finish what it runs."""


class _Pool(msgspec.Struct, frozen=True):
    """A WorkerPool, and what becomes of it here."""

    observed: SeenPool
    local: LocalPool
    autoscaled: bool


_Object = Seen | _Pool


class _Read(msgspec.Struct):
    """All files, read once."""

    known: dict[str, Known]
    faults: list[Fault]
    unreadable: set[str]
    """Names of files of which not every object is known: what they had before is kept."""


class Folder:
    """Reads the manifests and says what changed, as commands."""

    def __init__(self, directory: Path, memory: Path) -> None:
        self.directory = directory
        self._memory = Memory(memory)
        self._files = Watched(lambda: listed(directory, SUFFIXES))
        self._catalog = Catalog()
        self.tasks: dict[str, TaskSpec] = {}
        """Those that are armed, by uid."""
        self.pools: dict[tuple[str, str], LocalPool] = {}
        self.faults: list[Fault] = []
        self.remarks: list[str] = []
        """What is valid, but done in another way here than in a cluster."""

    def changed(self) -> bool:
        """Whether a file has come, gone or changed since it was last read."""
        return self._files.changed()

    def read(self, now_ms: int) -> list[Command]:
        """Read all files again. Returns what a leading engine must be told. A document with a fault keeps its object
        as it was last valid, and a file that is no YAML all of its objects."""
        found = self._read_files(now_ms)
        for key, known in self._memory.objects.items():
            if key not in found.known and known.file in found.unreadable:
                found.known[key] = known
        self.pools, self.faults, self.remarks = {}, found.faults, []
        objects: list[_Object] = []
        for key in list(found.known):
            try:
                objects.append(_compiled(found.known[key]))
            except InvalidManifest:
                # Valid for the version of Tickwheel that remembered it, and the file's own fault is in the list.
                del found.known[key]
        self._memory.objects = found.known
        self._memory.save()
        commands: list[Command] = []
        self._catalog.attach(commands.extend)
        self._see(objects)
        self._catalog.detach()
        files = {known.uid: known.file for known in found.known.values()}
        self.tasks = {}
        for entry in self._catalog.tasks():
            if entry.spec is not None:
                self.tasks[entry.seen.uid] = entry.spec
            elif entry.fault is not None:
                title = f"ScheduledTask/{entry.seen.name}"
                self.faults.append(Fault(files[entry.seen.uid], title, "", entry.fault.message))
        return commands

    def isolate(self, uid: str, error: Exception) -> None:
        """The engine failed at the task: the next term leaves it alone, until its manifest is edited."""
        self._catalog.isolate(uid, error)
        self.tasks.pop(uid, None)
        entry = self._catalog.task(uid)
        if entry is not None and entry.fault is not None:
            file = next((known.file for known in self._memory.objects.values() if known.uid == uid), "")
            self.faults.append(Fault(file, f"ScheduledTask/{entry.seen.name}", "", entry.fault.message))

    def keep(self) -> str:
        """Try again to make durable what was read, where that failed. Returns why it fails; empty: nothing is left."""
        if self._memory.problem:
            self._memory.save()
        return self._memory.problem

    def snapshot(self) -> Iterator[Command]:
        """Everything, for a new engine."""
        return self._catalog.snapshot()

    def paused(self) -> Iterator[Command]:
        """Nothing fires any more, and what is known is kept: what comes due while a session drains is the next one's,
        under the misfire policy."""
        for uid in self.tasks:
            yield TaskRemoved(uid=uid, forget=False)

    # --- files ---

    def _read_files(self, now_ms: int) -> _Read:
        found = _Read({}, [], set())
        for path in self._files.take():
            try:
                for document in objects(path.read_bytes(), among_others=True):
                    self._read_document(path.name, document.body, found, now_ms)
            except InvalidManifest as invalid:
                found.unreadable.add(path.name)
                found.faults += [Fault(path.name, "", f.path, " ".join(f.message.split())) for f in invalid.faults]
            except OSError as error:
                found.unreadable.add(path.name)
                found.faults.append(Fault(path.name, "", "", f"cannot be read: {error}"))
        return found

    def _read_document(self, file: str, document: dict[str, Any], found: _Read, now_ms: int) -> None:
        metadata = document.get("metadata")
        named = metadata if isinstance(metadata, dict) else {}
        title = f"{document.get('kind')}/{named.get('name')}"
        key = f"{document.get('kind')}/{named.get('namespace') or 'default'}/{named.get('name')}"
        try:
            if key in found.known:
                first = found.known[key].file
                raise _fault("metadata.name", f"{title} stands twice: {first} has it too; rename or remove one of them")
            kept: dict[str, Any] = {
                name: document[name] for name in ("apiVersion", "kind", "metadata", "spec") if name in document
            }
            known = self._memory.accept(key, file, kept, now_ms)
            _compiled(known)
            found.known[key] = known
        except InvalidManifest as invalid:
            found.faults += [Fault(file, title, f.path, f.message) for f in invalid.faults]
            if key in found.known:
                return
            if key in self._memory.objects:
                found.known[key] = self._memory.objects[key]
            else:
                # It may be a known object whose name is what is broken: nothing of the file goes until that is mended.
                found.unreadable.add(file)

    # --- objects ---

    def _see(self, objects: list[_Object]) -> None:
        """Tell the catalog what exists: what others name comes first, and goes last."""
        tasks = [seen for seen in objects if isinstance(seen, SeenTask)]
        pools = self._complete([seen for seen in objects if isinstance(seen, _Pool)], tasks)
        others = [seen for seen in objects if not isinstance(seen, SeenTask | _Pool)]
        catalog, exist = self._catalog, [*pools, *others, *tasks]
        for seen in exist:
            catalog.seen(seen)
        uids = {seen.uid for seen in exist}
        for kind in sorted(_LOCAL, key=lambda kind: kind is not SCHEDULED_TASK):
            for uid in catalog.objects.uids(kind) - uids:
                catalog.gone(kind, uid)

    def _complete(self, pools: list[_Pool], tasks: list[SeenTask]) -> list[SeenPool]:
        """The pools of the folder, and one for each that only a task names."""
        for seen in pools:
            self._run_here(seen.local, autoscaled=seen.autoscaled)
        found = [seen.observed for seen in pools]
        for task in tasks:
            if task.spec is not None and (task.namespace, task.spec.pool) not in self.pools:
                namespace, name = task.namespace, task.spec.pool
                self.pools[namespace, name] = LocalPool(namespace, name, 1, _SLOTS, _DRAIN_MS)
                self.remarks.append(f"pool {name}: no WorkerPool of that name here, so it gets one worker")
                found.append(_observed_pool(PoolSpec(namespace=namespace, name=name), f"of tasks: {namespace}/{name}"))
        return found

    def _run_here(self, pool: LocalPool, *, autoscaled: bool) -> None:
        if pool.replicas > MOST_WORKERS:
            self.remarks.append(f"pool {pool.name}: {MOST_WORKERS} workers run here, not its {pool.replicas} replicas")
            pool = msgspec.structs.replace(pool, replicas=MOST_WORKERS)
        if autoscaled:
            self.remarks.append(f"pool {pool.name}: autoscaling is for clusters; here it has {pool.replicas} workers")
        self.pools[pool.namespace, pool.name] = pool


def _compiled(known: Known) -> _Object:
    """What the catalog and the workers get. Raises `InvalidManifest`, and nothing else: one document costs no other."""
    try:
        return _compile(known)
    except InvalidManifest:
        raise
    except Exception as error:
        _log.exception("%s: an object cannot be read", known.file)
        what = f"tickwheel failed at this object, which is a fault of its own; please report it: {error!r}"
        raise _fault("", what) from error


def _compile(known: Known) -> _Object:
    document = known.document
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        metadata = {
            **metadata,
            "namespace": metadata.get("namespace") or "default",
            "uid": known.uid,
            "generation": known.generation,
            "creationTimestamp": timestamp(known.created_ms),
        }
        document = {**document, "metadata": metadata}
    manifest = parse(document)
    if faults := unsupported(manifest):
        raise InvalidManifest(faults)
    named = manifest.metadata
    if not named.name:
        raise _fault("metadata.name", "is missing; dev mode draws no names (generateName)")
    kind = KINDS.get(manifest.kind_name())
    if kind is None or kind not in _LOCAL:
        *names, last = (local.name for local in _LOCAL)
        what = f"dev mode runs {', '.join(names)} and {last} objects; {manifest.kind_name()} needs a cluster"
        raise _fault("kind", what)
    seen: Seen = kind.compile(kind.bare(document), manifest)
    if not isinstance(seen, SeenPool) or not isinstance(manifest, WorkerPool):
        return seen
    spec = manifest.spec
    local = LocalPool(named.namespace, named.name, spec.replicas, spec.slots, spec.drain_timeout.milliseconds)
    return _Pool(seen, local, spec.autoscaling is not None)


def _observed_pool(spec: PoolSpec, uid: str) -> SeenPool:
    return SeenPool(kind=WORKER_POOL.name, uid=uid, namespace=spec.namespace, name=spec.name, generation=1, spec=spec)


def _fault(path: str, message: str) -> InvalidManifest:
    return InvalidManifest([FieldFault(path, message)])
