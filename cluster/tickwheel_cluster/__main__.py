"""`python -m tickwheel_cluster binaries | run [DIR]`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tickwheel_cluster import BinariesError, ControlPlane, ControlPlaneError, find_binaries

_USAGE = "usage: python -m tickwheel_cluster binaries | run [DIR]"


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["binaries"]:
                print(f"etcd and kube-apiserver are in {find_binaries()}")
            case ["run", *rest] if len(rest) <= 1:
                _run(Path(rest[0] if rest else ".tickwheel-cluster"))
            case _:
                print(_USAGE, file=sys.stderr)
                return 2
    except (BinariesError, ControlPlaneError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(directory: Path) -> None:
    """A control plane in the foreground, until Ctrl-C."""
    with ControlPlane(directory.resolve()) as cluster:
        print(f"export KUBECONFIG={cluster.admin_kubeconfig}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
