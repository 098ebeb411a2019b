"""`python -m tests.integration.soak`: two minutes of load and kills on a real API server: exits with 1 if it broke.

200 tasks that fire every second and 50 cron tasks, two operators, three workers. The leader is killed twice with
SIGKILL, a worker twice, the API server once. Two cores are busy for about three minutes, on the loopback address only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

_ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(_ROOT / "cluster"))

from tests.integration.installation import install  # noqa: E402
from tests.integration.soak.scenario import Fault, Outcome, Plan, run  # noqa: E402

from tickwheel_cluster import ControlPlane  # noqa: E402

_SHARES = ((0.12, "leader"), (0.27, "worker"), (0.40, "api-server"), (0.65, "leader"), (0.80, "worker"))
"""When each fault strikes, as a share of the whole time."""
_SHIPPED_LEASE = (
    ("TICKWHEEL_LEASE_DURATION_MS", "15000"),
    ("TICKWHEEL_RENEW_DEADLINE_MS", "10000"),
    ("TICKWHEEL_RETRY_PERIOD_MS", "2000"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long the load runs (default: 120)")
    parser.add_argument("--rate-tasks", type=int, default=200, help="tasks with fixedRate 1s (default: 200)")
    parser.add_argument("--cron-tasks", type=int, default=50, help="cron tasks with seconds (default: 50)")
    parser.add_argument("--shipped-lease", action="store_true", help="the Lease of 15 s that ships, instead of 3 s")
    parser.add_argument("--keep", metavar="DIR", help="keep logs and records there, instead of deleting them")
    options = parser.parse_args()
    plan = Plan(
        rate_tasks=options.rate_tasks,
        cron_tasks=options.cron_tasks,
        seconds=options.seconds,
        faults=tuple(Fault(share * options.seconds, kind) for share, kind in _SHARES),
        operator_settings=_SHIPPED_LEASE if options.shipped_lease else (),
    )
    console = Console()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tickwheel-soak-") as temporary:
        folder = Path(options.keep or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with ControlPlane(folder / "control-plane") as cluster:
            install(cluster)
            try:
                outcome = run(cluster, folder, plan, name="soak", say=console.print)
            except AssertionError as error:
                console.print(f"[red]the soak stopped:[/red] {error}", highlight=False)
                return 1
    _print(console, outcome, time.monotonic() - began)
    return 1 if outcome.audit.faults else 0


def _print(console: Console, outcome: Outcome, seconds: float) -> None:
    book, audit = outcome.book, outcome.audit
    table = Table(title="Faults", title_justify="left")
    for heading in ("fault", "what happened", "epoch", "last fire to next, s"):
        table.add_column(heading)
    for struck in outcome.struck:
        before, after = struck.epochs
        epochs = str(before) if before == after else f"{before} -> {after}"
        table.add_row(struck.kind, struck.what, epochs, f"{struck.takeover_ms / 1000:.2f}")
    console.print(table)
    figures = Table(title=f"After {seconds:.0f} s", title_justify="left", show_header=False)
    failed = ", ".join(f"{count} {reason.lower()}" for reason, count in book.failed_attempts.items()) or "none"
    for label, value in (
        ("scheduled runs", f"{audit.runs:,}"),
        ("attempts leased", f"{audit.attempts:,}"),
        ("executions that workers wrote down", f"{audit.executions:,}"),
        ("runs executed more than once", f"{audit.double_executions:,}"),
        ("of these, by two attempts at once", f"{audit.overlapping:,}"),
        ("failed attempts", failed),
        ("epochs", f"{len(book.epochs)}"),
        ("ledger segments", f"{book.segments:,}, of these {book.checkpoints} of checkpoints"),
        ("broken invariants", f"[red]{len(audit.faults)}[/red]" if audit.faults else "[green]none[/green]"),
    ):
        figures.add_row(label, value)
    console.print(figures)
    for fault in audit.faults:
        console.print(f"[red]broken:[/red] {fault}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
