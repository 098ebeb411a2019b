"""Which caller may speak for which worker of which pool: docs/decisions/009-a-token-speaks-for-its-pod.md in code.

`token_review` asks it for each pull and report. A pool with a template takes the pods that the operator made for it,
each for itself; a pool without one takes the ServiceAccounts that it admits. Invariant: labels and a worker's own words
decide nothing, uids do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tickwheel_operator.identity.callers import PoolAccess, Principal, PrincipalKind
from tickwheel_operator.identity.pod_owners import OwnerUnknown, PoolOwner
from tickwheel_operator.identity.refusal import Reason, Refused

__all__ = ["Owners", "PoolRules", "Pools"]

Pools = Callable[[str, str], PoolAccess | None]
"""Namespace and pool to who may speak for it; None: there is no such pool."""


class Owners(Protocol):
    """Whose pod it is: `identity.pod_owners.PodOwners`."""

    async def owner(self, namespace: str, pod: str, pod_uid: str) -> PoolOwner | None:
        """The pool that the pod belongs to; None: it belongs to none. What is known costs no I/O. Raises
        `OwnerUnknown`."""
        ...


class PoolRules:
    """The rules, with what has to be looked up for them."""

    def __init__(self, pools: Pools, owners: Owners) -> None:
        self._pools = pools
        self._owners = owners

    async def check(self, principal: Principal, namespace: str, pool: str, worker: str) -> None:
        """Raises `Refused` unless the principal may speak for this worker."""
        who = f"{principal.username}/{principal.pod}"
        if principal.kind is not PrincipalKind.SERVICE_ACCOUNT:
            raise Refused(
                Reason.NOT_A_SERVICE_ACCOUNT,
                f"{principal.username} is not a ServiceAccount: only those may speak for the workers of a pool",
                who=who,
            )
        # The namespace first: whoever is of another one does not even learn which pools there are.
        if principal.namespace != namespace:
            raise Refused(
                Reason.OTHER_NAMESPACE,
                f"worker.namespace: {_holder(principal)} may only speak for pools of its own namespace "
                f"{principal.namespace!r}, not {namespace!r}",
                who=who,
            )
        access = self._pools(namespace, pool)
        if access is None:
            raise Refused(
                Reason.NO_SUCH_POOL,
                f"{_holder(principal)}: there is no WorkerPool {pool!r} in namespace {namespace!r}: apply one, or fix "
                f"the worker's namespace and pool; `kubectl get workerpools.tickwheel.io -n {namespace}` lists what "
                "there is",
                who=who,
            )
        if access.accounts and principal.account not in access.accounts:
            where = f" (pod {namespace}/{principal.pod})" if principal.pod else ""
            raise Refused(
                Reason.ACCOUNT_NOT_ADMITTED,
                f"worker.pool: ServiceAccount {principal.account!r} may not speak for WorkerPool {pool!r} in namespace "
                f"{namespace!r}{where}; its access.serviceAccounts admits "
                f"{', '.join(sorted(access.accounts))}",
                who=who,
            )
        owner = await self._owner(principal) if principal.pod_uid else None
        if access.has_template:
            _check_own_pod(principal, owner, access, namespace, pool, worker)
        elif owner is not None and owner.uid != access.uid:
            raise Refused(
                Reason.POD_OF_ANOTHER_POOL,
                f"worker.pool: pod {principal.pod} in namespace {namespace!r} belongs to WorkerPool {owner.name!r}, "
                f"and may not speak for {pool!r}; set TICKWHEEL_POOL as the operator did",
                who=who,
            )

    async def _owner(self, principal: Principal) -> PoolOwner | None:
        try:
            return await self._owners.owner(principal.namespace, principal.pod, principal.pod_uid)
        except OwnerUnknown as error:
            raise Refused(
                Reason.CANNOT_BE_CHECKED, f"the pod's pool cannot be looked up now: {error}", who=principal.pod
            ) from None


def _check_own_pod(
    principal: Principal, owner: PoolOwner | None, access: PoolAccess, namespace: str, pool: str, worker: str
) -> None:
    """The rules of a pool with a template: the pool's own pods, each for itself."""
    who = f"{principal.username}/{principal.pod}"
    allowed = f"WorkerPool {pool!r} in namespace {namespace!r} has a template and takes only the pods that it makes"
    if not principal.pod_uid:
        raise Refused(
            Reason.NOT_BOUND_TO_A_POD,
            f"worker.pool: the token of {_holder(principal)} is bound to no pod; {allowed}, with the token that is "
            "mounted there. For workers elsewhere, make a WorkerPool without a template",
            who=who,
        )
    if owner is None:
        raise Refused(
            Reason.POD_OF_NO_POOL,
            f"worker.pool: {_holder(principal)} belongs to no WorkerPool; {allowed}. For workers that you deploy "
            "yourself, make a WorkerPool without a template",
            who=who,
        )
    if owner.uid != access.uid:
        whose = f"WorkerPool {owner.name!r}" if owner.name != pool else f"an earlier WorkerPool {pool!r}"
        raise Refused(
            Reason.POD_OF_ANOTHER_POOL, f"worker.pool: {_holder(principal)} belongs to {whose}; {allowed}", who=who
        )
    if worker != principal.pod:
        raise Refused(
            Reason.NAME_IS_NOT_THE_PODS,
            f"worker.name: {_holder(principal)} calls itself {worker[:80]!r}; a worker of WorkerPool {pool!r} in "
            f"namespace {namespace!r} has the name of its pod: leave TICKWHEEL_WORKER_NAME as the operator set it",
            who=who,
        )


def _holder(principal: Principal) -> str:
    """Who it is, for people."""
    return f"{principal.username}{_of_pod(principal)}"


def _of_pod(principal: Principal) -> str:
    return f" of pod {principal.namespace}/{principal.pod}" if principal.pod else ""
