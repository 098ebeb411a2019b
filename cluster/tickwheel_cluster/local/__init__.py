"""A whole Kubernetes cluster on this machine without Docker: a control plane and two nodes, from Go tools."""

from tickwheel_cluster.local.cluster import LocalCluster
from tickwheel_cluster.local.requirements import ClusterImpossible, missing_packages, require

__all__ = ["ClusterImpossible", "LocalCluster", "missing_packages", "require"]
