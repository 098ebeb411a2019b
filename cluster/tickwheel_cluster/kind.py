"""kind, where Docker runs: the same two nodes of the same Kubernetes version as the local provider makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Self

from tickwheel_cluster.access import GivenCluster

__all__ = ["KindCluster"]

CONFIG = Path(__file__).resolve().parent.parent / "kind.yaml"
_NAME = "tickwheel"
_UP_S = 600.0


class KindCluster(GivenCluster):
    """The kind cluster `tickwheel`. As a context manager it is gone at the end, unless it was there before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.admin_kubeconfig = directory / "admin.kubeconfig"
        self._made = False

    @staticmethod
    def possible() -> bool:
        """Docker answers, and kind is installed."""
        if shutil.which("kind") is None or shutil.which("docker") is None:
            return False
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode == 0

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        if self._made:
            self.down()

    @property
    def nodes(self) -> list[str]:
        return [f"{_NAME}-control-plane", f"{_NAME}-worker"]

    def up(self) -> None:
        """Create it unless it is there, and write its kubeconfig. Raises OSError with what kind said."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if _NAME not in self._kind("get", "clusters").split():
            self._kind("create", "cluster", "--name", _NAME, "--config", str(CONFIG), "--wait", "120s")
            self._made = True
        self.admin_kubeconfig.write_text(self._kind("get", "kubeconfig", "--name", _NAME))
        self.admin_kubeconfig.chmod(0o600)
        super().__init__(self.admin_kubeconfig, self.directory)

    def down(self) -> None:
        """Delete it."""
        self._kind("delete", "cluster", "--name", _NAME)

    def load_image(self, archive: Path) -> None:
        """`kind load image-archive`."""
        self._kind("load", "image-archive", str(archive), "--name", _NAME)

    def cut(self, node: str) -> None:
        """Take the node's container off its network."""
        self._docker("network", "disconnect", "kind", node)

    def heal(self, node: str) -> None:
        """Connect it again."""
        self._docker("network", "connect", "kind", node)

    @staticmethod
    def _kind(*arguments: str) -> str:
        return _run("kind", *arguments)

    @staticmethod
    def _docker(*arguments: str) -> str:
        return _run("docker", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_UP_S)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    return done.stdout
