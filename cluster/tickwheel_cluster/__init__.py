"""A real Kubernetes control plane for tests and development, from binaries that Go builds. No Docker, no root."""

from tickwheel_cluster.access import Access, GivenCluster
from tickwheel_cluster.binaries import BinariesError, find_binaries
from tickwheel_cluster.control_plane import ControlPlane, ControlPlaneError
from tickwheel_cluster.provider import choose

__all__ = ["Access", "BinariesError", "ControlPlane", "ControlPlaneError", "GivenCluster", "choose", "find_binaries"]
