"""A folder of manifests in the place of an API server.

It gives each object what an API server would: a uid, a creation time and a generation that grows with its spec. They
are kept beside the ledger, so that a second start goes on where the first one stopped.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tickwheel_operator.api.faults import InvalidManifest
from tickwheel_operator.api.parse import parse
from tickwheel_operator.api.scheduledtask import ScheduledTask
from tickwheel_operator.api.supported import unsupported
from tickwheel_operator.api.workerpool import WorkerPool
from tickwheel_operator.controllers.compile import compile_pool, compile_task
from tickwheel_operator.engine.messages import Command, PoolApplied, TaskApplied, TaskRemoved
from tickwheel_operator.engine.spec import TaskSpec

__all__ = ["Fault", "Folder", "LocalPool"]

_IDENTITY = uuid.UUID("5b0e6a1e-6a55-4f2b-9a56-0d1f8f8ea7a3")
_DEFAULT_REPLICAS = 1
_DEFAULT_SLOTS = 16


class Fault(msgspec.Struct, frozen=True):
    """Why a document of the folder is not taken."""

    file: str
    path: str
    """Field path, or empty for the whole document."""
    message: str


class LocalPool(msgspec.Struct, frozen=True):
    """How many local worker processes a pool has."""

    namespace: str
    name: str
    replicas: int
    slots: int


class _Known(msgspec.Struct):
    """What is remembered of an object."""

    created_ms: int
    generation: int
    digest: str


class Folder:
    """Reads the manifests and says what changed, as commands."""

    def __init__(self, directory: Path, memory: Path) -> None:
        self.directory = directory
        self._memory = memory
        self._known: dict[str, _Known] = {}
        if memory.exists():
            self._known = msgspec.json.decode(memory.read_bytes(), type=dict[str, _Known])
        self.tasks: dict[str, TaskSpec] = {}
        self.pools: dict[tuple[str, str], LocalPool] = {}
        self._pool_commands: list[Command] = []
        self.faults: list[Fault] = []
        self._stamps: dict[Path, tuple[int, int]] = {}

    def changed(self) -> bool:
        """Whether a file has come, gone or changed since it was last read."""
        return self._stamp() != self._stamps

    def read(self, now_ms: int) -> list[Command]:
        """Read all files again. Returns what a leading engine must be told; a file with a fault keeps its tasks
        as they were last valid."""
        self._stamps = self._stamp()
        before = self.tasks
        self.tasks, self.pools, self.faults, self._pool_commands = {}, {}, [], []
        present: set[str] = set()
        for path in sorted(self._stamps):
            for document in self._documents(path):
                uid = self._uid(document)
                present.add(uid)
                try:
                    self._take(document, uid, now_ms)
                except InvalidManifest as invalid:
                    self.faults.extend(Fault(path.name, f.path, f.message) for f in invalid.faults)
                    if uid in before:
                        self.tasks[uid] = before[uid]
        for spec in self.tasks.values():
            self.pools.setdefault(
                (spec.namespace, spec.pool), LocalPool(spec.namespace, spec.pool, _DEFAULT_REPLICAS, _DEFAULT_SLOTS)
            )
        commands = list(self._pool_commands)
        commands += [TaskApplied(spec=spec) for uid, spec in self.tasks.items() if before.get(uid) != spec]
        commands += [TaskRemoved(uid=uid, forget=uid not in present) for uid in before if uid not in self.tasks]
        self._remember()
        return commands

    def snapshot(self) -> Iterator[Command]:
        """Everything, for a new engine."""
        yield from self._pool_commands
        for spec in self.tasks.values():
            yield TaskApplied(spec=spec)

    def _take(self, document: dict[str, Any], uid: str, now_ms: int) -> None:
        known = self._identify(document, uid, now_ms)
        metadata = {
            "namespace": "default",
            **document.get("metadata", {}),
            "uid": uid,
            "generation": known.generation,
            "creationTimestamp": datetime.fromtimestamp(known.created_ms / 1000, tz=UTC).isoformat(),
        }
        manifest = parse({**document, "metadata": metadata})
        if faults := unsupported(manifest):
            raise InvalidManifest(faults)
        if isinstance(manifest, ScheduledTask):
            self.tasks[uid] = compile_task(manifest)
        elif isinstance(manifest, WorkerPool):
            spec = compile_pool(manifest)
            self._pool_commands.append(PoolApplied(spec=spec))
            self.pools[spec.namespace, spec.name] = LocalPool(
                spec.namespace, spec.name, manifest.spec.replicas, manifest.spec.slots
            )

    def _identify(self, document: dict[str, Any], uid: str, now_ms: int) -> _Known:
        digest = hashlib.sha256(msgspec.json.encode(document.get("spec"), order="sorted")).hexdigest()[:16]
        known = self._known.get(uid)
        if known is None:
            known = self._known[uid] = _Known(now_ms, 1, digest)
        elif known.digest != digest:
            known.generation += 1
            known.digest = digest
        return known

    def _documents(self, path: Path) -> Iterable[dict[str, Any]]:
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            self.faults.append(Fault(path.name, "", f"is not YAML: {' '.join(str(error).split())}"))
            return
        for document in documents:
            if isinstance(document, dict) and str(document.get("apiVersion", "")).startswith("tickwheel.io/"):
                yield document

    def _uid(self, document: dict[str, Any]) -> str:
        metadata = document.get("metadata") or {}
        name = f"{document.get('kind')}/{metadata.get('namespace', 'default')}/{metadata.get('name')}"
        return str(uuid.uuid5(_IDENTITY, name))

    def _stamp(self) -> dict[Path, tuple[int, int]]:
        stamps = {}
        for path in (*self.directory.glob("*.yaml"), *self.directory.glob("*.yml")):
            stat = path.stat()
            stamps[path] = (stat.st_mtime_ns, stat.st_size)
        return stamps

    def _remember(self) -> None:
        replacement = self._memory.with_suffix(".new")
        replacement.write_bytes(msgspec.json.encode(self._known))
        replacement.replace(self._memory)
