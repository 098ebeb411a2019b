"""All tests, as `make test` runs them: those on a real cluster beside the others, since they mostly wait for it.

One pytest process for the cluster with nodes (a machine has room for one); beside it first the tests that need no other
process, on all cores, and then those with API servers and operators, one after the other, since they mind the time. The
first one's output is kept and shown when it has ended. Arguments go to a single pytest instead.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

ON_NODES = ("cluster/tests/test_local_cluster.py", "tests/e2e")
ALONE = ("tests/unit", "tests/simulation")
_PYTEST = (sys.executable, "-m", "pytest", "-q")


def main(arguments: list[str]) -> int:
    if arguments:
        return subprocess.call([*_PYTEST, *arguments])
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        on_nodes = subprocess.Popen([*_PYTEST, *ON_NODES], stdout=output, stderr=subprocess.STDOUT)
        try:
            alone = subprocess.call([*_PYTEST, "-n", "auto", *ALONE])
            rest = subprocess.call([*_PYTEST, *(f"--ignore={path}" for path in (*ON_NODES, *ALONE))])
            if on_nodes.poll() is None:
                print("waiting for the tests on a cluster with nodes", flush=True)
            nodes = on_nodes.wait()
        finally:
            if on_nodes.poll() is None:  # Ctrl-C: it removes its cluster
                on_nodes.terminate()
                on_nodes.wait()
        output.seek(0)
        print(output.read())
    took_s = time.monotonic() - began
    print(f"tests: exit {alone}; with API servers: exit {rest}; on nodes: exit {nodes}; {took_s:.0f} s")
    return alone or rest or nodes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
