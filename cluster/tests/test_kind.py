"""What kind and Docker are asked to do. The two programs here only write down how they are called."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tickwheel_cluster import binaries
from tickwheel_cluster.kind import CONFIG, KindCluster

KUBECONFIG = """
current-context: kind
clusters: [{name: kind, cluster: {server: "https://127.0.0.1:1", certificate-authority-data: ""}}]
users: [{name: kind, user: {}}]
contexts: [{name: kind, context: {cluster: kind, user: kind}}]
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with both programs; the file that has their calls."""
    programs, log = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    for name in ("kind", "docker"):
        (programs / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >> {log}\n'
            f'case "$*" in "get clusters") cat {tmp_path}/existing 2>/dev/null;;'
            f' "get kubeconfig"*) cat {tmp_path}/kubeconfig;; esac\nexit 0\n'
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return log


def test_a_cluster_is_made_used_and_deleted(calls: Path, tmp_path: Path) -> None:
    with KindCluster(tmp_path / "state") as cluster:
        cluster.load_image(tmp_path / "image.tar")
        cluster.cut("tickwheel-worker")
        cluster.heal("tickwheel-worker")
        assert cluster.url == "https://127.0.0.1:1"

    assert calls.read_text().splitlines() == [
        "kind get clusters",
        f"kind create cluster --name tickwheel --config {CONFIG} --wait 120s",
        "kind get kubeconfig --name tickwheel",
        f"kind load image-archive {tmp_path / 'image.tar'} --name tickwheel",
        "docker network disconnect kind tickwheel-worker",
        "docker network connect kind tickwheel-worker",
        "kind delete cluster --name tickwheel",
    ]


def test_a_cluster_that_was_there_is_left_alone(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "existing").write_text("tickwheel\n")

    with KindCluster(tmp_path / "state"):
        pass

    assert "create" not in calls.read_text()
    assert "delete" not in calls.read_text()


def test_without_the_two_programs_it_is_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert not KindCluster.possible()


def test_both_nodes_have_the_version_that_the_local_cluster_builds() -> None:
    versions = re.findall(r"image: kindest/node:v(\S+)", CONFIG.read_text())

    pinned = re.search(r"k8s.io/kubernetes v(\S+)", (binaries._SOURCES / "kubernetes" / "go.mod").read_text())
    assert pinned is not None
    assert versions == [pinned[1]] * 2
