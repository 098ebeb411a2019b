"""Which cluster tests run against. One place decides, so that tests, benchmarks and people are told the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tickwheel_cluster.access import Access, GivenCluster
from tickwheel_cluster.control_plane import ControlPlane
from tickwheel_cluster.kind import KindCluster
from tickwheel_cluster.local import LocalCluster

__all__ = ["GIVEN", "NodeCluster", "choose", "choose_nodes"]

GIVEN = "TICKWHEEL_TEST_KUBECONFIG"
"""The environment variable that names the kubeconfig of a cluster that exists."""


@contextmanager
def choose(directory: Path, *, unsafe_no_fsync: bool = False) -> Iterator[Access]:
    """A cluster that is ready: the one that `TICKWHEEL_TEST_KUBECONFIG` names, else a `ControlPlane` in the folder.

    Only the latter can be killed and restarted, so a test that does that asks `isinstance(cluster, ControlPlane)`. Its
    programs come from `KUBEBUILDER_ASSETS`, else from the cache, and are built (minutes) where they are not there.
    """
    given = os.environ.get(GIVEN)
    if given:
        if not Path(given).is_file():
            raise FileNotFoundError(f"{GIVEN} is {given}, which is not a file: name an admin's kubeconfig, or unset it")
        yield GivenCluster(Path(given), directory)
        return
    with ControlPlane(directory, unsafe_no_fsync=unsafe_no_fsync) as control_plane:
        yield control_plane


class NodeCluster(Protocol):
    """A cluster whose nodes run pods."""

    admin_kubeconfig: Path

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes; the first one has the control plane where it is the run's own."""
        ...

    def load_image(self, archive: Path) -> None:
        """Make the image of a `docker save` archive known to every node."""
        ...


@contextmanager
def choose_nodes(directory: Path) -> Iterator[NodeCluster]:
    """A cluster with nodes: the given one, else kind where Docker runs, else the local one.

    One that `make cluster-up` has left running is used and left alone. Raises `local.ClusterImpossible` where nothing
    of it can be had.
    """
    given = os.environ.get(GIVEN)
    if given:
        yield GivenCluster(Path(given), directory)
        return
    kept = LocalCluster.kept()
    if kept is not None:
        yield kept
        return
    cluster = KindCluster(directory) if KindCluster.possible() else LocalCluster(directory)
    with cluster:
        yield cluster
