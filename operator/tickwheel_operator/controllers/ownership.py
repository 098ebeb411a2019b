"""Which namespaces this release serves: two releases that see the same namespace must not both fire its tasks.

Each namespace with objects has a ConfigMap `tickwheel-owner` that names the release which serves it by the release's
own namespace, where its Lease and ledger are: a release that is upgraded or installed again there is the same one. Who
applies the mark first has it (server-side apply without force: the second one's is a conflict). The other release
leaves the namespace alone, and looks again at each round. An owner whose Lease has not changed for `abandoned_s` is
gone, and whoever sees that takes the namespace over. Invariants: nothing of a namespace is served before its mark names
this release; a mark is replaced only as it was read; followers look, and only the leader claims.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection

import msgspec

from tickwheel_operator import reasons
from tickwheel_operator.clock import Clock
from tickwheel_operator.controllers.ownermarks import Mark, MarkTaken, OwnerMarks
from tickwheel_operator.kinds.seen import Fault
from tickwheel_operator.kube.errors import ApiError

__all__ = ["Ownership", "OwnershipConfig"]

_log = logging.getLogger(__name__)

_NOT_CLAIMED = Fault(reasons.NAMESPACE_NOT_CLAIMED, "the operator is about to mark the namespace as its own")
_AT_ONCE = 16


class OwnershipConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How often it looks, and when it gives an owner up."""

    round_s: float = 15.0
    """Marks are read so often, in seconds."""
    abandoned_s: float = 300.0
    """An owner whose Lease has not changed for so long is gone: it was uninstalled, or stands still."""


class Ownership:
    """The marks of all namespaces that have objects. For the event loop only."""

    def __init__(self, marks: OwnerMarks, clock: Clock, *, own: str, config: OwnershipConfig | None = None) -> None:
        """`own` is the namespace of this release."""
        self._marks = marks
        self._clock = clock
        self._own = own
        self._config = config or OwnershipConfig()
        self._found: dict[str, Mark] = {}
        self._needed: dict[str, None] = {}
        """Namespaces that have objects."""
        self._leases: dict[str, tuple[str, int]] = {}
        """Of other owners: the version of the Lease, and since when it is that one (boot clock)."""
        self._told: dict[str, str] = {}
        self._leading = False
        self._listed = asyncio.Event()
        self._wake = asyncio.Event()
        self.namespaces: Callable[[], Collection[str]] = tuple
        """All that have objects now."""
        self.on_change: Callable[[Collection[str]], None] = lambda namespaces: None
        """Called with the namespaces that this release serves from now on, or no longer."""
        self.on_foreign: Callable[[str, str], None] = lambda namespace, message: None
        """Called, with what to tell people, when a namespace that has objects turns out to be another release's."""

    # --- reading ---

    def fault(self, namespace: str) -> Fault | None:
        """Why nothing of the namespace is served here; None: it is."""
        mark = self._found.get(namespace)
        if mark is None:
            self.need(namespace)
            return _NOT_CLAIMED
        return None if mark.owner == self._own else Fault(reasons.SERVED_BY_ANOTHER, _words(namespace, mark.owner))

    def serves(self, namespace: str) -> bool:
        mark = self._found.get(namespace)
        return mark is not None and mark.owner == self._own

    def counts(self) -> dict[str, int]:
        """Namespaces with objects, by who serves them: own, another, nobody yet."""
        found = Counter("own" if self.serves(n) else "another" if n in self._found else "none" for n in self._needed)
        return {state: found[state] for state in ("own", "another", "none")}

    # --- the operator's side ---

    def need(self, namespace: str) -> None:
        """There is an object in the namespace."""
        if namespace not in self._needed:
            self._needed[namespace] = None
            if namespace not in self._found:
                self._wake.set()

    def lead(self) -> None:
        """This replica leads now: it claims what nobody has."""
        self._leading = True
        self._wake.set()

    def follow(self) -> None:
        """Another replica claims."""
        self._leading = False

    async def wait_listed(self) -> None:
        """Until the marks that exist are known."""
        await self._listed.wait()

    async def run(self) -> None:
        """Look, claim and take over, until cancelled."""
        while True:
            try:
                await self._look()
                if self._leading:
                    await self._claim_all()
            except ApiError as error:
                _log.warning("who serves which namespace is not known now; next try in a moment: %s", error)
                await asyncio.sleep(min(1.0, self._config.round_s))
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._config.round_s)

    # --- inside ---

    async def _look(self) -> None:
        self._wake.clear()
        found = await self._marks.read()
        self._needed = dict.fromkeys(self.namespaces())
        before, self._found = self._found, found
        if not self._listed.is_set():
            self._listed.set()
            return  # the catalog is read with them
        self._tell(
            [
                n
                for n in self._needed
                if _owner(before.get(n)) != _owner(found.get(n)) and self._own_in(n, before, found)
            ]
        )
        for namespace in self._needed:
            mark = found.get(namespace)
            if mark is not None and mark.owner != self._own and self._told.get(namespace) != mark.owner:
                self._told[namespace] = mark.owner
                _log.warning("%s", message := _words(namespace, mark.owner))
                self.on_foreign(namespace, message)

    def _own_in(self, namespace: str, *states: dict[str, Mark]) -> bool:
        return any(_owner(state.get(namespace)) == self._own for state in states)

    def _tell(self, namespaces: Collection[str]) -> None:
        for namespace in namespaces:
            self._told.pop(namespace, None)
        if namespaces:
            self.on_change(namespaces)

    async def _claim_all(self) -> None:
        gone = await self._abandoned()
        wanted = [n for n in self._needed if n not in self._found or self._found[n].owner in gone]
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            claimed = await asyncio.gather(*(self._claim(namespace) for namespace in some))
            self._tell([namespace for namespace, ours in zip(some, claimed, strict=True) if ours])

    async def _claim(self, namespace: str) -> bool:
        before = self._found.get(namespace)
        try:
            self._found[namespace] = await self._marks.claim(namespace, self._own, replaces=before)
        except MarkTaken:
            self._wake.set()  # another release was faster: the next look says which
            return False
        except ApiError as error:
            _log.warning("namespace %s cannot be marked as served by this release: %s", namespace, error)
            return False
        if before is not None:
            _log.warning("took namespace %s over from release %s, which is gone", namespace, before.owner)
        return True

    async def _abandoned(self) -> set[str]:
        """The other owners of namespaces that have objects whose Lease has not changed for long."""
        others = {mark.owner for n in self._needed if (mark := self._found.get(n)) and mark.owner != self._own}
        gone = set()
        for owner in others:
            version = await self._marks.lease_version(owner)
            if version is None:
                continue  # it may not be read: whoever may not look does not judge
            known = self._leases.get(owner)
            now_ms = self._clock.boot_ms()
            if known is None or known[0] != version:
                self._leases[owner] = (version, now_ms)
            elif now_ms - known[1] >= self._config.abandoned_s * 1_000:
                gone.add(owner)
        for owner in self._leases.keys() - others:
            del self._leases[owner]
        return gone


def _owner(mark: Mark | None) -> str:
    return "" if mark is None else mark.owner


def _words(namespace: str, owner: str) -> str:
    return (
        f"namespace {namespace} is served by the Tickwheel release in namespace {owner}, so this one leaves it alone: "
        f"let one of them serve other namespaces (watchNamespaces), or uninstall one. To hand it over at once: "
        f"kubectl delete configmap tickwheel-owner -n {namespace}"
    )
