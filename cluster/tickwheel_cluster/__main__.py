"""`python -m tickwheel_cluster binaries | packages | run [DIR] | up --dir D | down --dir D | nodes-up | nodes-down`.

The last two are a cluster with nodes, the three before them a control plane alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tickwheel_cluster import BinariesError, ControlPlane, ControlPlaneError, find_binaries, kept
from tickwheel_cluster.binaries import build_all
from tickwheel_cluster.local import ClusterImpossible
from tickwheel_cluster.local.requirements import install_packages
from tickwheel_cluster.occupancy import holder
from tickwheel_cluster.programs import link_programs, path_line

_DEFAULT = Path(".tickwheel-cluster")
_RUNNER = "run.pid"
"""Says which process `up` and `run` keep the control plane in: `down` ends that one, and never a test's."""
_DOWN_S = 45


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        match options.command:
            case "binaries":
                build_all()
                link_programs()
                print(f"etcd, kube-apiserver and kubectl are in {find_binaries()}, the others in folders beside it")
                print("for your shell (tickwheel, and kubectl and helm where it has none):")
                print(path_line())
            case "run":
                _run((options.dir or options.folder or _DEFAULT).resolve())
            case "up":
                _up(options.dir.resolve())
            case "nodes-up":
                kept.up()
            case "nodes-load":
                kept.load(options.archives)
            case "nodes-down":
                kept.down()
            case "packages":
                install_packages()
            case _:
                _down(options.dir.resolve())
    except (BinariesError, ControlPlaneError, ClusterImpossible, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tickwheel_cluster", description="A control plane on loopback.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("binaries", help="build all programs, Helm too, into the user's cache (4 to 31 minutes, once)")
    commands.add_parser("nodes-up", help="start a cluster whose nodes run pods, and leave it running")
    commands.add_parser("nodes-down", help="remove it")
    load = commands.add_parser("nodes-load", help="give it images")
    load.add_argument("archives", nargs="+", type=Path, help="as `docker save` or `make image` writes them")
    commands.add_parser("packages", help="install the Debian packages that the local cluster needs and are missing")
    run = commands.add_parser("run", help="run a control plane until Ctrl-C; the folder keeps its data")
    run.add_argument("folder", nargs="?", type=Path, help=f"where its state is (default: {_DEFAULT})")
    run.add_argument("--dir", type=Path, help="the same")
    for name, text in (("up", "start a control plane in the background"), ("down", "stop it; the data stays")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--dir", type=Path, default=_DEFAULT, help="where its state is (default: %(default)s)")
    return parser


def _run(directory: Path) -> None:
    """A control plane in this process, until Ctrl-C or SIGTERM, which also end it while it starts."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ControlPlane(directory) as cluster:
            (directory / _RUNNER).write_text(str(os.getpid()))
            _print_kubeconfig(cluster.admin_kubeconfig)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break the stop
    raise KeyboardInterrupt


def _up(directory: Path) -> None:
    """Start `run` in a session of its own and wait until it says that it is ready."""
    find_binaries()  # here, where its progress is seen
    if holder(directory) is not None:
        raise ControlPlaneError(f"a control plane runs in {directory} already; stop it with `down --dir {directory}`")
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    log = directory / "logs" / "run.log"
    with log.open("wb") as errors:
        runner = subprocess.Popen(
            [sys.executable, "-m", "tickwheel_cluster", "run", "--dir", str(directory)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert runner.stdout is not None
    if not runner.stdout.readline():
        raise ControlPlaneError(f"the control plane did not start:\n{log.read_text(errors='replace')}")
    _print_kubeconfig(directory / "admin.kubeconfig")


def _print_kubeconfig(path: Path) -> None:
    print(f"export KUBECONFIG={path}", flush=True)


def _down(directory: Path) -> None:
    """End the process that `up` or `run` keeps the control plane in, and wait until all is gone."""
    pid = holder(directory)
    if pid is None:
        print(f"no control plane runs in {directory}")
        return
    runner = directory / _RUNNER
    if not runner.exists() or runner.read_text() != str(pid):
        raise ControlPlaneError(
            f"the control plane in {directory} was not started by `up` or `run` but belongs to process {pid}: end that"
        )
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_S
    while holder(directory) == pid:
        if time.monotonic() > deadline:
            raise ControlPlaneError(f"process {pid} did not end within {_DOWN_S} s; see {directory / 'logs'}")
        time.sleep(0.05)
    print(f"stopped; the data stays in {directory}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
