"""The chart before the present one: of the last commit, where the working tree differs from it, else of the commit
before the last one that changed the chart."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

from tests.chart.rendering import CHART

__all__ = ["previous_chart"]

_ROOT = CHART.parents[1]
_PATH = str(CHART.relative_to(_ROOT))


def previous_chart(folder: Path) -> Path | None:
    """Unpacked into the folder; None: there is none, or the history is not here (a shallow clone)."""
    commit = "HEAD" if _git("status", "--porcelain", "--", _PATH) else _changed_last() + "^"
    try:
        archive = _git("archive", commit, f"{_PATH}/")
    except subprocess.CalledProcessError:
        return None
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    chart = folder / _PATH
    return chart if (chart / "Chart.yaml").exists() else None


def _changed_last() -> str:
    return _git("log", "-1", "--format=%H", "--", _PATH).decode().strip()


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, check=True).stdout
