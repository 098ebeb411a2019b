"""The gateway's connections leave file descriptors for the rest: tried in a process with limits of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from tickwheel_operator.runtime.descriptors import connections_with_descriptors
print(connections_with_descriptors(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "connections", "after"),
    [
        (256, 900, 400, 400, 800),
        (850, 900, 400, 400, 850),
        (256, 900, 10_000, 500, 900),
        (256, 256, 10_000, 128, 256),
    ],
    ids=["raised", "enough already", "raised as far as it may be", "very few"],
)
def test_descriptors_are_raised_and_some_are_kept_back(soft, hard, wanted, connections, after) -> None:
    arguments = map(str, (soft, hard, wanted))
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(connections), str(after)]
    assert ("the gateway takes" in done.stderr) == (connections < wanted)
