"""Who may call the gateway, put together from the settings. `runtime.replica` asks once, at the start."""

from __future__ import annotations

from pathlib import Path

from tickwheel_operator.clock import Clock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.identity.callers import (
    AllowAll,
    Authenticator,
    Authorizer,
    PoolAccess,
    StaticTokenAuthenticator,
)
from tickwheel_operator.identity.permission import SubjectAccessAuthorizer
from tickwheel_operator.identity.pod_owners import PodOwners
from tickwheel_operator.identity.reviewer import KubernetesReviewer
from tickwheel_operator.identity.token_review import TokenReviewAuthenticator
from tickwheel_operator.kinds.workerpool import WORKER_POOL
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.runtime.settings import Settings

__all__ = ["access"]


def access(
    settings: Settings, client: KubeClient, catalog: Catalog, owners: PodOwners, clock: Clock
) -> tuple[Authenticator, Authorizer]:
    """Who is let in, and who may submit runs."""
    if settings.token_file:
        token = Path(settings.token_file).read_text(encoding="utf-8").strip()
        return StaticTokenAuthenticator(token), AllowAll()
    reviewer = KubernetesReviewer(client)

    def pool_access(namespace: str, name: str) -> PoolAccess | None:
        seen = catalog.objects.named(WORKER_POOL, namespace, name)
        if seen is None or seen.resource is None:
            return None
        has_template = seen.resource.spec.template is not None
        return PoolAccess(uid=seen.uid, has_template=has_template, accounts=seen.accounts)

    return (
        TokenReviewAuthenticator(reviewer, pool_access, owners, clock=clock),
        SubjectAccessAuthorizer(reviewer, clock=clock),
    )
