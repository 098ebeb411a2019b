"""One measurement in a process of its own: started, bounded in time, and ended whatever happens.

Used by all sections of `run.py`. A case prints one JSON object as a line of its own; whatever else it says is shown
when it fails.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput.processes import running

__all__ = ["CaseFailed", "figures_of"]


class CaseFailed(RuntimeError):
    """A case has no figures; the message has its own last words."""


def figures_of(
    command: Sequence[str], *, what: str, timeout_s: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run the command and return what it printed.

    Raises
    ------
    CaseFailed
        It failed, or took longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="tickwheel-case-") as folder:
        log = Path(folder) / "log"
        with running(command, log=log, environment=environment) as process:
            try:
                process.wait(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise CaseFailed(f"{what} took more than {timeout_s:.0f} s:\n{_tail(log)}") from None
        if process.returncode != 0:
            raise CaseFailed(f"{what} failed:\n{_tail(log)}")
        printed = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("{")]
        if not printed:
            raise CaseFailed(f"{what} printed no figures:\n{_tail(log)}")
        figures: dict[str, Any] = json.loads(printed[-1])
        return figures


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:])
