"""Real Kubernetes for tests and development, from binaries that Go builds: a control plane, or all of it with nodes."""

from tickwheel_cluster.access import Access, GivenCluster
from tickwheel_cluster.binaries import BinariesError, find_binaries, find_tool
from tickwheel_cluster.control_plane import ControlPlane, ControlPlaneError
from tickwheel_cluster.provider import NodeCluster, choose, choose_nodes

__all__ = [
    "Access",
    "BinariesError",
    "ControlPlane",
    "ControlPlaneError",
    "GivenCluster",
    "NodeCluster",
    "choose",
    "choose_nodes",
    "find_binaries",
    "find_tool",
]
