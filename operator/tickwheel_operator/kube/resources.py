"""The kinds of objects that the operator asks for, and the paths of each: the only place that knows plurals and groups.

PODS.path("shops", "worker-1")        /api/v1/namespaces/shops/pods/worker-1
DEPLOYMENTS.path()                    /apis/apps/v1/deployments       in all namespaces
OURS["TaskRun"].path("shops", "r", "status")
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from tickwheel_operator.api import GROUP, KINDS, VERSION

__all__ = [
    "CONFIG_MAPS",
    "DEPLOYMENTS",
    "EVENTS",
    "LEASES",
    "OURS",
    "PODS",
    "POD_METRICS",
    "REPLICA_SETS",
    "SECRETS",
    "SUBJECT_ACCESS_REVIEWS",
    "TOKEN_REVIEWS",
    "ApiResource",
]


class ApiResource(msgspec.Struct, frozen=True):
    """One kind of one version of one group."""

    api_version: str
    """As an object has it: `v1`, `apps/v1`."""
    kind: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Of the collection, of one object, or of a part of it. Without a namespace: all of them, or of a kind that
        has none."""
        root = "/apis" if "/" in self.api_version else "/api"
        parts = [root, self.api_version, *(("namespaces", quote(namespace, safe="")) if namespace else ()), self.plural]
        return "/".join([*parts, *(quote(part, safe="") for part in (name, subresource) if part)])


CONFIG_MAPS = ApiResource("v1", "ConfigMap", "configmaps")
EVENTS = ApiResource("v1", "Event", "events")
PODS = ApiResource("v1", "Pod", "pods")
SECRETS = ApiResource("v1", "Secret", "secrets")
DEPLOYMENTS = ApiResource("apps/v1", "Deployment", "deployments")
REPLICA_SETS = ApiResource("apps/v1", "ReplicaSet", "replicasets")
LEASES = ApiResource("coordination.k8s.io/v1", "Lease", "leases")
TOKEN_REVIEWS = ApiResource("authentication.k8s.io/v1", "TokenReview", "tokenreviews")
SUBJECT_ACCESS_REVIEWS = ApiResource("authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews")
POD_METRICS = ApiResource("metrics.k8s.io/v1beta1", "PodMetrics", "pods")
OURS: Mapping[str, ApiResource] = {
    kind.kind_name(): ApiResource(f"{GROUP}/{VERSION}", kind.kind_name(), kind.presentation.plural) for kind in KINDS
}
"""Those of Tickwheel, by kind."""
