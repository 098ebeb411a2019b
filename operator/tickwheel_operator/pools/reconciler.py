"""Makes the cluster as the WorkerPools have it: a Deployment for each pool with a template, none for the others.

On the leader only, level-triggered: a pool, its Deployment or the wish for another number of workers changes, and the
pool is looked at as it is now. Invariants: nothing is written that is as it should be, so there is no loop with others
that write the same object; a Deployment that belongs to somebody else is never touched; a pool whose manifest or
template is refused keeps the pods that it has.

What we own is known from the object itself: the API server takes a field out of our entry in `managedFields` when
somebody else changes or removes it. So drift is a change of that entry, whatever the server's defaults make of values.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import msgspec

from tickwheel_operator import reasons
from tickwheel_operator.api import WorkerPool, sentence
from tickwheel_operator.kube.errors import ApiError, ApiRefused, ApiUnanswered
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.pools.cluster import PoolCluster
from tickwheel_operator.pools.constraints import faults
from tickwheel_operator.pools.deployments import Deployments, ObservedDeployment, PoolProblem
from tickwheel_operator.pools.pod_problems import Refusal
from tickwheel_operator.pools.progress import Connected, Progress
from tickwheel_operator.pools.template import Surroundings, deployment, deployment_name
from tickwheel_operator.workqueue import WorkQueue

__all__ = ["PoolConfig", "PoolReconciler"]

_log = logging.getLogger(__name__)

_HOOK_S = 10.0
"""The longest that the hook before a scale-down may take."""
PoolKey = tuple[str, str]


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How pools become Deployments."""

    endpoint: str
    """URL of the gateway, as pods reach it."""
    service_accounts: tuple[str, ...] = ()
    """Patterns of the ServiceAccounts that templates may use; empty: any."""
    resync_s: float = 300.0
    """Every pool is looked at anew so often, in seconds, whatever the watch says."""
    refused_s: float = 5.0
    """A template that the API server refuses is tried again after so long, then twice as long each time up to
    `resync_s`: a quota or a policy may have changed."""
    unready_s: float = 10.0
    """Pods that take longer than this to become ready are asked why, and again after twice as long each time, up to
    `unready_most_s`."""
    unready_most_s: float = 60.0
    """The longest pause between two such questions, in seconds."""
    drift_s: float = 1.0
    """A field that others changed is set back at once; each further time within `resync_s` waits twice as long, from
    this up to a minute."""


class _Applied(msgspec.Struct):
    """What was last applied, and what became of it."""

    manifest: str
    """Digest."""
    uid: str
    ours: str
    """Digest of the fields that we owned then."""
    generation: int
    """Of the Deployment: another one says that somebody changed a value, a leader before us with our own name even."""


class _Refusal(msgspec.Struct):
    """The API server's no to a manifest."""

    manifest: str
    problem: PoolProblem
    tries: int
    again: float
    """When to ask again, on the loop's clock."""


class _TermOver(Exception):
    """Another replica leads: what was on its way is not written."""


class _Drift(msgspec.Struct):
    """How often others changed our fields of late."""

    times: int
    last: float
    next: float


class PoolReconciler:
    """Looks after the Deployments of all pools while this replica leads."""

    def __init__(
        self,
        cluster: PoolCluster,
        deployments: Deployments,
        config: PoolConfig,
        *,
        pool: Callable[[str, str], WorkerPool | None],
        pools: Callable[[], Collection[PoolKey]],
        ca_bundle: Callable[[], str],
        desired_replicas: Callable[[str, str], int | None] = lambda namespace, name: None,
        before_scale_down: Callable[[str, str, int], Awaitable[None]] | None = None,
        faults: ObjectFaults | None = None,
        connected: Connected = lambda namespace, name: None,
        refused: Refusal = lambda addresses: None,
    ) -> None:
        """`pool` gives a pool whose manifest is valid and that is not being deleted; `pools` names all that exist,
        the invalid and the deleted ones too. `ca_bundle` is PEM, or empty where workers need none.
        `desired_replicas` is None for a pool that is not autoscaled; `before_scale_down` is awaited with the number of
        pods that will go, before they do. `connected` names a pool's workers that take work, and `refused` says what
        the gateway answered to a pod that it did not let in."""
        self._faults = faults or ObjectFaults()
        self._cluster = cluster
        self._deployments = deployments
        self._config = config
        self._pool = pool
        self._pools = pools
        self._ca_bundle = ca_bundle
        self._desired_replicas = desired_replicas
        self._before_scale_down = before_scale_down
        self._queue: WorkQueue[PoolKey] = WorkQueue(self._work, name="pools", workers=4, group=lambda key: key[0])
        self._leading = False
        self._progress = Progress(
            cluster,
            first_s=config.unready_s,
            most_s=config.unready_most_s,
            connected=connected,
            refused=refused,
            # They may wait for it: somebody may have deleted the ConfigMap. It is written again with the next look.
            asking=lambda key: self._ca_written.pop(key[0], None),
        )
        self._applied: dict[PoolKey, _Applied] = {}
        self._refused: dict[PoolKey, _Refusal] = {}
        self._drift: dict[PoolKey, _Drift] = {}
        self._ca_written: dict[str, str] = {}
        """By namespace."""
        deployments.on_change.append(self.changed)

    # --- the operator's side ---

    def lead(self) -> None:
        """This replica leads now: look at everything."""
        self._leading = True
        self._resync()

    def follow(self) -> None:
        """The term is over. What is in flight is idempotent."""
        self._leading = False
        self._queue.clear()
        self._progress.clear()
        for memory in (self._applied, self._refused, self._drift, self._ca_written):
            memory.clear()

    def changed(self, namespace: str, name: str) -> None:
        """Something about the pool changed: its spec, its Deployment, how many workers it should have."""
        if self._leading:
            self._queue.add((namespace, name))

    def ca_changed(self) -> None:
        """The bundle is another: write it wherever it is mounted."""
        if self._leading:
            self._resync()

    def trust_seen(self, found: Mapping[str, str]) -> None:
        """What the ConfigMaps of the authority hold now, by namespace: where others changed or deleted one that was
        written here, it is written again."""
        changed = {namespace for namespace, bundle in self._ca_written.items() if found.get(namespace) != bundle}
        for namespace in changed:
            del self._ca_written[namespace]
        for key in {*self._pools(), *self._deployments.pools()}:
            if key[0] in changed:
                self._queue.add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(), name="pools-queue")
            while True:
                await asyncio.sleep(self._config.resync_s)
                if self._leading:
                    # Applying what is so already changes nothing; what vanished while the watch was broken shows.
                    self._ca_written.clear()
                    self._applied.clear()
                    self._resync()

    def _resync(self) -> None:
        for key in {*self._pools(), *self._deployments.pools()}:
            self._queue.add(key)

    # --- one pool ---

    async def _work(self, key: PoolKey) -> float | None:
        """Make it so; seconds after which to look again, or None: when something changes."""
        try:
            again_s = await self._look(key)
        except _TermOver:
            return None
        except ApiError:
            raise
        except Exception as error:
            self._faults.stand(Layer.POOLS, "WorkerPool", *key, error)
            raise
        self._faults.mended(Layer.POOLS, "WorkerPool", *key)
        return again_s

    async def _look(self, key: PoolKey) -> float | None:
        if not self._leading:
            return None
        pool = self._pool(*key)
        if pool is None:
            if key not in self._pools():
                # Gone: the garbage collector takes the Deployment.
                self._forget(key)
            else:
                await self._keep_trust(key)
            return None  # invalid or being deleted: its pods stay as they are
        if pool.spec.template is None:
            await self._remove(key, pool)
            return None
        desired = self._desired(key, pool)
        found = faults(pool, self._config.service_accounts)
        if found:
            self._deployments.expect(*key, desired, PoolProblem(reasons.TEMPLATE_NOT_ALLOWED, sentence(found), True))
            await self._keep_trust(key)
            return None
        try:
            return await self._ensure(key, pool, desired)
        except ApiUnanswered as error:
            self._deployments.expect(*key, desired, PoolProblem(reasons.API_SERVER_UNAVAILABLE, str(error), False))
            raise

    async def _ensure(self, key: PoolKey, pool: WorkerPool, desired: int) -> float | None:
        bundle = self._ca_bundle()
        manifest = deployment(pool, Surroundings(endpoint=self._config.endpoint, has_ca=bool(bundle)), desired)
        digest = _digest(manifest)
        refusal = self._refused.get(key)
        if refusal is not None and refusal.manifest == digest and (wait := refusal.again - _now()) > 0:
            self._deployments.expect(*key, desired, refusal.problem)
            return wait
        live = self._deployments.live(*key)
        if self._needs(key, pool, live, digest):
            drift = self._drifted(key, digest)
            if drift is not None and (wait := drift.next - _now()) > 0:
                return wait
            try:
                live = await self._write(key, pool, live, manifest, bundle)
            except ApiRefused as error:
                if error.status == 409:
                    await self._read_anew(key)
                return self._note_refusal(key, desired, digest, error)
            if live is None:  # what is there belongs to somebody else
                return self._config.refused_s
            if drift is not None:
                self._note_drift(key, drift)
            self._refused.pop(key, None)
            self._applied[key] = _Applied(digest, live.uid, live.ours, live.generation)
            self._deployments.seen(live)
        elif bundle and self._ca_written.get(key[0]) != bundle:
            await self._write_ca(key, bundle)
        return await self._watch_progress(key, pool, desired, live)

    def _needs(self, key: PoolKey, pool: WorkerPool, live: ObservedDeployment | None, digest: str) -> bool:
        applied = self._applied.get(key)
        return (
            applied is None
            or live is None
            or live.owner != pool.metadata.uid
            or applied != _Applied(digest, live.uid, live.ours, live.generation)
        )

    async def _write(
        self,
        key: PoolKey,
        pool: WorkerPool,
        live: ObservedDeployment | None,
        manifest: dict[str, Any],
        bundle: str,
    ) -> ObservedDeployment | None:
        """Apply; None: the name is taken, which is told."""
        namespace, name = key
        if live is None or live.owner != pool.metadata.uid or live.deleting:
            raw = await self._cluster.read(namespace, deployment_name(name))
            live = None if raw is None else self._deployments.read(raw)
            if live is not None and not self._ours_to_take(live, pool):
                return None
            if live is not None and pool.spec.autoscaling is not None and self._desired_replicas(*key) is None:
                # Nobody has decided yet under this leader: leave what there is.
                manifest["spec"]["replicas"] = live.desired
        if bundle:
            await self._write_ca(key, bundle)
        desired = manifest["spec"]["replicas"]
        if live is not None:
            # Only that object: one that took its name meanwhile is somebody else's.
            manifest["metadata"]["uid"] = live.uid
            if live.desired > desired:
                await self._prepare_scale_down(key, live.desired - desired)
        self._check_term()
        after = self._deployments.read(await self._cluster.apply(manifest))
        if live is None or (live.uid, live.generation) != (after.uid, after.generation):
            _log.info("WorkerPool %s/%s: applied Deployment %s, %d workers", namespace, name, after.name, desired)
        return after

    def _check_term(self) -> None:
        """Before each write: what came before it took its time."""
        if not self._leading:
            raise _TermOver

    async def _read_anew(self, key: PoolKey) -> None:
        """The Deployment is not the one that was seen last: the watch does not tell of what vanished while it was
        broken."""
        live = self._deployments.live(*key)
        raw = await self._cluster.read(key[0], deployment_name(key[1]))
        if raw is not None:
            self._deployments.seen(self._deployments.read(raw))
        elif live is not None:
            self._deployments.gone(live.namespace, live.name, live.uid)

    def _ours_to_take(self, live: ObservedDeployment, pool: WorkerPool) -> bool:
        """Whether the Deployment is the pool's, or was left behind by `kubectl delete --cascade=orphan`."""
        namespace, name = pool.metadata.namespace, pool.metadata.name
        if live.deleting:
            problem = PoolProblem(
                reasons.REPLACING, f"the Deployment {live.name} of an earlier pool is being deleted", False
            )
        elif live.owner == pool.metadata.uid or (not live.owner and live.ours and live.pool == name):
            return True
        elif (applied := self._applied.get((namespace, name))) is not None and applied.uid == live.uid:
            return True  # somebody took its label and its owner
        elif live.owner and live.pool == name and live.ours:
            message = (
                f"the Deployment {live.name} belongs to an earlier pool of this name; the garbage collector takes it"
            )
            problem = PoolProblem(reasons.REPLACING, message, False)
        else:
            message = (
                f"there is a Deployment {live.name} in namespace {namespace} already that is not this pool's: "
                f"delete it (kubectl delete deployment -n {namespace} {live.name}), or give the pool another name"
            )
            problem = PoolProblem(reasons.NAME_TAKEN, message, True)
        self._deployments.expect(namespace, name, self._desired((namespace, name), pool), problem)
        return False

    async def _write_ca(self, key: PoolKey, bundle: str) -> None:
        if self._ca_written.get(key[0]) != bundle:
            self._check_term()
            await self._cluster.apply_ca(key[0], bundle)
            self._ca_written[key[0]] = bundle

    async def _keep_trust(self, key: PoolKey) -> None:
        """Pods that stay as they are must still learn of a new authority, or they lose the gateway."""
        bundle, live = self._ca_bundle(), self._deployments.live(*key)
        if bundle and live is not None and live.ours:
            await self._write_ca(key, bundle)

    async def _remove(self, key: PoolKey, pool: WorkerPool) -> None:
        """The pool has no template (any more): its workers run elsewhere."""
        live = self._deployments.live(*key)
        if live is not None and live.owner == pool.metadata.uid and not live.deleting:
            self._check_term()
            await self._cluster.delete(live.namespace, live.name, live.uid)
            _log.info("WorkerPool %s/%s has no template: deleted Deployment %s", *key, live.name)
        self._forget(key)

    def _forget(self, key: PoolKey) -> None:
        self._progress.forget(key)
        for memory in (self._applied, self._refused, self._drift):
            memory.pop(key, None)
        self._deployments.forget(*key)

    # --- how many ---

    def _desired(self, key: PoolKey, pool: WorkerPool) -> int:
        desired = self._desired_replicas(*key)
        if desired is not None:
            return desired
        if pool.spec.autoscaling is None:
            return pool.spec.replicas
        # Nobody knows yet: leave what there is.
        live = self._deployments.live(*key)
        return live.desired if live is not None else pool.spec.autoscaling.min_replicas

    async def _prepare_scale_down(self, key: PoolKey, pods: int) -> None:
        """Let idle pods go first. It is a courtesy: without it busy ones drain."""
        if self._before_scale_down is None:
            return
        try:
            async with asyncio.timeout(_HOOK_S):
                await self._before_scale_down(*key, pods)
        except Exception as error:
            _log.warning("WorkerPool %s/%s: the pods to remove could not be chosen: %r", *key, error)

    # --- what is in the way ---

    def _drifted(self, key: PoolKey, digest: str) -> _Drift | None:
        """How often others changed our fields of late; None: it is we who want something else now."""
        applied = self._applied.get(key)
        live = self._deployments.live(*key)
        if applied is None or applied.manifest != digest or (live is not None and live.ours == applied.ours):
            return None
        drift = self._drift.get(key)
        if drift is None or _now() - drift.last > self._config.resync_s:
            drift = self._drift[key] = _Drift(0, 0, 0)
        return drift

    def _note_drift(self, key: PoolKey, drift: _Drift) -> None:
        """Two who set back each other must not do so in a loop."""
        drift.last = _now()
        drift.next = drift.last + min(self._config.drift_s * 2 ** min(drift.times, 10), 60)
        drift.times += 1
        _log.warning(
            "WorkerPool %s/%s: somebody else changed or deleted its Deployment; set back (%d times of late)",
            *key,
            drift.times,
        )

    def _note_refusal(self, key: PoolKey, desired: int, digest: str, error: ApiRefused) -> float | None:
        if error.status == 409:
            return 0.5  # it was replaced under our hands: look again
        if error.status == 404 or "being terminated" in error.message:
            return self._config.refused_s  # the namespace is on its way out, and the pool with it
        before = self._refused.get(key)
        tries = before.tries + 1 if before is not None and before.manifest == digest else 1
        wait: float = min(self._config.refused_s * 2 ** min(tries - 1, 10), self._config.resync_s)
        message = f"the API server refuses the Deployment: {error.message}"
        problem = PoolProblem(error.reason or "Refused", message[:8_000], True)
        self._refused[key] = _Refusal(digest, problem, tries, _now() + wait)
        if tries == 1:
            _log.warning("WorkerPool %s/%s: %s", *key, message)
        self._deployments.expect(*key, desired, problem)
        return wait

    async def _watch_progress(
        self, key: PoolKey, pool: WorkerPool, desired: int, live: ObservedDeployment | None
    ) -> float | None:
        problem, again_s = await self._progress.look(key, pool, desired, live)
        self._deployments.expect(*key, desired, problem)
        return again_s


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(manifest, order="deterministic")).hexdigest()


def _now() -> float:
    return asyncio.get_running_loop().time()
