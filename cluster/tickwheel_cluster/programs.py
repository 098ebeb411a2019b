"""kubectl and Helm for people: beside `tickwheel` in the environment's own folder, so that one line of PATH has all.

Links to the cache of `binaries`, made where the machine has no program of the name. Invariant: what somebody else has
put into the folder stays.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tickwheel_cluster.binaries import find_binaries, find_tool

__all__ = ["link_programs", "path_line"]

_FOLDER = Path(sys.executable).parent
"""Not resolved: in a virtual environment Python itself is a link."""
_WANTED: dict[str, Callable[[], Path]] = {
    "kubectl": lambda: find_binaries() / "kubectl",
    "helm": lambda: find_tool("helm"),
}


def link_programs(folder: Path = _FOLDER) -> None:
    """Link those that are not there, which are built first where they have to be. Raises `BinariesError`, OSError."""
    others = os.pathsep.join(
        part for part in os.environ.get("PATH", "").split(os.pathsep) if part and Path(part) != folder
    )
    for name, found in _WANTED.items():
        link = folder / name
        if shutil.which(name, path=others) is not None or (link.exists() and not link.is_symlink()):
            continue
        program = found()
        link.unlink(missing_ok=True)  # of an older build, perhaps
        link.symlink_to(program)


def path_line(folder: Path = _FOLDER) -> str:
    """What a shell needs to find `tickwheel`, and kubectl and Helm where it had none."""
    return f'export PATH="{folder}:$PATH"'
