"""Where people find kubectl and Helm after `make cluster-up`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tickwheel_cluster.programs import link_programs, path_line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for `.venv/bin`, on a machine that has neither program."""
    made, system = tmp_path / "venv-bin", tmp_path / "system"
    made.mkdir()
    system.mkdir()
    monkeypatch.setenv("PATH", str(system))
    return made


def test_one_line_of_path_has_kubectl_and_helm(folder: Path) -> None:
    link_programs(folder)
    link_programs(folder)  # again, as each start of a cluster does
    script = f"{path_line(folder)}; kubectl version --client && helm version --short"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "Client Version: v1." in done.stdout
    assert "\nv4." in done.stdout


def test_programs_that_the_machine_or_the_folder_has_are_left_alone(folder: Path) -> None:
    own = folder.parent / "system" / "helm"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    (folder / "kubectl").write_text("mine")
    link_programs(folder)
    assert (folder / "kubectl").read_text() == "mine"
    assert not (folder / "helm").exists()
