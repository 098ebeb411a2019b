"""A kind as the operator deals with it: what is read of an object, and what its status says of the manifest.

The watch calls `observe` in its own thread, so that parsing never delays the engine; the value that it returns is all
that goes on. Invariants: the raw object is not kept; a fault names its field; one object that cannot be read hides no
other, nor itself (`unreadable`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from tickwheel_operator import reasons
from tickwheel_operator.api import InvalidManifest, Resource, parse, sentence, unsupported
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.kinds.conditions import SETTLED, Status, Words, conditions, faulty
from tickwheel_operator.kinds.seen import Fault, RawObject, Seen
from tickwheel_operator.kinds.stored import CONDITIONS_ONLY, NOTHING, Sections, Stored, digests, read_status
from tickwheel_operator.kinds.world import World

__all__ = ["AnyKind", "Kind", "Later"]

M = TypeVar("M", bound=Resource)
S = TypeVar("S", bound=Seen)


class Later(msgspec.Struct, frozen=True):
    """The status is not known well enough yet: it is asked for again."""

    again_s: float


class Kind(Generic[M, S]):
    """One kind. A kind whose objects only exist needs `compile`; what a subclass sets or overrides is what differs."""

    sections: Sections = CONDITIONS_ONLY
    """Its status, divided so that what did not change is not written."""
    selector: str = ""
    """Label selector of the objects that are watched."""
    interval_s: float = 0.0
    """Figures are written at most once in so many seconds; conditions at once."""
    accepted: Words = ("True", reasons.ACCEPTED, "")
    """The Ready condition of an object without a fault."""
    kept: tuple[str, ...] = ()
    """Fields that `compile` sets, which are good for as long as the object has the same generation. Empty: the manifest
    is read each time, since its metadata counts too."""

    def __init__(self, model: type[M], shape: type[S]) -> None:
        self.model = model
        self.name = model.kind_name()
        self.plural = model.presentation.plural
        self.shape = shape
        self.is_run = self.name.endswith("Run")
        """Its objects end: Running and Succeeded say how, in place of Ready and Reconciling."""

    # --- what a kind may override ---

    def compile(self, seen: S, manifest: M) -> S:
        """With what the operator needs of the manifest. Raises `InvalidManifest`."""
        return seen

    def look(self, seen: S, raw: RawObject) -> S | None:
        """With what it needs of the raw object's metadata and status; None: this object is not for the operator."""
        return seen

    def is_settled(self, seen: S) -> bool:
        """Whether nothing more comes of the object, so that its spec is not read."""
        return False

    def refusal(self, error: InvalidManifest) -> Fault:
        """What the conditions say of a manifest that is not valid."""
        return Fault(reasons.INVALID_SPEC, sentence(error.faults))

    def named_by(self, task: TaskSpec) -> Iterable[str]:
        """The names of the objects of this kind that a task needs: it is judged again when one of them changes."""
        return ()

    def concerns(self, before: S | None, after: S | None) -> bool:
        """Whether a change of the object, which may come or go, is one for the tasks that name it."""
        return False

    def status(self, seen: S, world: World, stored: Stored) -> Status | Later | None:
        """What the status is to say; None: nothing but what it says. `stored` is what it says now. The default is for
        kinds of which the manifest alone decides it."""
        return self.judged(seen)

    def judged(self, seen: S) -> Status:
        """The status of an object that is good if its manifest is."""
        if seen.fault is not None:
            return {"observedGeneration": seen.generation, "conditions": self.stalled(seen.fault, seen.generation)}
        words = conditions(seen.generation, Ready=self.accepted, Reconciling=SETTLED, Stalled=SETTLED)
        return {"observedGeneration": seen.generation, "conditions": words}

    # --- what all kinds do ---

    def stalled(self, fault: Fault, generation: int) -> list[dict[str, Any]]:
        """The conditions of an object of which nothing comes until somebody acts."""
        never, stalled = faulty(fault)
        if self.is_run:
            return conditions(generation, Running=("False", fault.reason, ""), Succeeded=never, Stalled=stalled)
        return conditions(generation, Ready=never, Reconciling=SETTLED, Stalled=stalled)

    def bare(self, raw: RawObject) -> S:
        """The object without its spec and status."""
        metadata = raw["metadata"]
        return self.shape(
            kind=self.name,
            uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            generation=metadata.get("generation", 0),
        )

    def observe(self, raw: RawObject, known: S | None = None) -> S | None:
        """`known` is what was observed last under this uid, or name. None: the object is not for the operator."""
        seen = self.look(replace(self.bare(raw), stored=self.stored(raw.get("status") or {})), raw)
        if seen is None or self.is_settled(seen):
            return seen
        if known is not None and self.kept and (known.uid, known.generation) == (seen.uid, seen.generation):
            return replace(seen, fault=known.fault, **{field: getattr(known, field) for field in self.kept})
        return self.read(seen, raw)

    def read(self, seen: S, raw: RawObject) -> S:
        """With its spec, or with what is wrong with it."""
        try:
            manifest = parse(raw)
            if gaps := unsupported(manifest):
                return replace(seen, fault=Fault(reasons.NOT_SUPPORTED, sentence(gaps)))
            if not isinstance(manifest, self.model):
                raise TypeError(f"a watch of {self.name} gave a {manifest.kind}")
            return self.compile(seen, manifest)
        except InvalidManifest as error:
            return replace(seen, fault=self.refusal(error))

    def unreadable(self, raw: RawObject, message: str) -> S:
        """An object that the operator itself fails at."""
        seen = replace(self.bare(raw), fault=Fault(reasons.INTERNAL_ERROR, message))
        try:
            # So that a status that says so already is not written again.
            return replace(seen, stored=self.stored(raw.get("status") or {}))
        except Exception:
            return replace(seen, stored=NOTHING)  # the status is what cannot be read

    def stored(self, status: Mapping[str, Any]) -> Stored:
        """Of a status as the API server has it."""
        return read_status(self.sections, status)

    def digests(self, status: Mapping[str, Any]) -> tuple[int, ...]:
        """One number for each section of a status."""
        return digests(self.sections, status)


AnyKind: TypeAlias = Kind[Any, Any]
