"""The catalog at 20,000 ScheduledTasks on a real API server: `python benchmarks/catalog/run.py [--tasks 20000]`.

Two lives of an operator, each in a process of its own: the first writes every status once, the second finds all of
them right and must write nothing. Prints one JSON object: seconds until listed, armed and shown, resident memory,
requests to the API server, and the longest that the event loop was held up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "cluster"), str(Path(__file__).parent)]

from kubernetes.aio.config import new_client_from_config  # noqa: E402
from objects import create_all  # noqa: E402
from tests.integration.installation import install  # noqa: E402

from tickwheel_cluster import ControlPlane  # noqa: E402


async def prepare(kubeconfig: Path, tasks: int) -> float:
    """Create the tasks; seconds that it took."""
    client = await new_client_from_config(config_file=str(kubeconfig))
    started = time.monotonic()
    await create_all(client, tasks)
    await client.close()
    return round(time.monotonic() - started, 1)


def life(kubeconfig: Path, ledger: Path) -> dict[str, object]:
    """One life of an operator."""
    program = [sys.executable, str(Path(__file__).parent / "replica.py"), str(kubeconfig), str(ledger)]
    answer = subprocess.run(program, check=True, stdout=subprocess.PIPE)
    figures: dict[str, object] = json.loads(answer.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tickwheel-catalog-") as folder,
        ControlPlane(Path(folder) / "cluster") as cluster,
    ):
        install(cluster)
        kubeconfig = cluster.admin_kubeconfig
        result = {"tasks": options.tasks, "created_s": asyncio.run(prepare(kubeconfig, options.tasks))}
        ledger = Path(folder) / "ledger.sqlite"
        result |= {"first_life": life(kubeconfig, ledger), "second_life": life(kubeconfig, ledger)}
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
