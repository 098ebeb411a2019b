"""`make cluster-up` and `cluster-down`: a cluster with nodes that goes on, for people and e2e tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tickwheel_cluster.kind import KindCluster
from tickwheel_cluster.local import LocalCluster
from tickwheel_cluster.programs import link_programs, path_line
from tickwheel_cluster.provider import GIVEN, choose_nodes

__all__ = ["FOLDER", "down", "load", "up"]

FOLDER = Path(".tickwheel-cluster") / "nodes"
"""The state of one that these commands start; relative to the checkout, where make runs them."""


def up() -> None:
    """Start one unless one runs, and say how to use it. Raises `local.ClusterImpossible` or OSError."""
    given = os.environ.get(GIVEN)
    if given:
        print(f"{GIVEN} names a cluster, which is used as it is")
        _tell(Path(given))
        return
    if KindCluster.possible():
        kind = KindCluster(FOLDER.resolve())
        kind.up()
        _tell(kind.admin_kubeconfig)
        return
    local = LocalCluster.kept() or LocalCluster(FOLDER, keep=True)
    try:
        local.up()
    except BaseException:
        local.down()  # does nothing to a cluster of another folder
        raise
    _tell(local.admin_kubeconfig)


def load(archives: list[Path]) -> None:
    """Give images, as `make image` packs them, to the nodes of the cluster that runs."""
    with choose_nodes(FOLDER.resolve()) as cluster:
        for archive in archives:
            cluster.load_image(archive)
            print(f"loaded {archive.name} into {', '.join(cluster.nodes)}")


def down() -> None:
    """Remove it with its data, wherever it was started; data in a folder that somebody else chose stays."""
    if KindCluster.possible():
        KindCluster(FOLDER.resolve()).down()
    local = LocalCluster.kept() or LocalCluster(FOLDER, keep=True)
    local.down()
    if local.directory != FOLDER.resolve():
        print(f"stopped; the data stays in {local.directory}")
        return
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    if any(mount.startswith(f"{local.directory}/") for mount in mounts):
        raise OSError(f"something is still mounted in {local.directory}: nothing in it was removed; run this again")
    shutil.rmtree(local.directory, ignore_errors=True)
    print("removed")


def _tell(kubeconfig: Path) -> None:
    link_programs()
    print("for your shell (tickwheel, and kubectl and helm where it has none):")
    print(path_line())
    print(f"export KUBECONFIG={kubeconfig}")
    print("next: `kubectl get nodes`; `make cluster-down` removes the cluster", flush=True)
