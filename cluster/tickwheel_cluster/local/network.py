"""The network of the nodes: a namespace each, one bridge between them, and nothing of the host's own.

    host: bridge tickwheel0 10.213.77.254 --- veth --- [tickwheel-n1 10.213.77.1, pods 10.244.1.0/24]
                                          +-- veth --- [tickwheel-n2 10.213.77.2, pods 10.244.2.0/24]

Invariant: all names begin with `tickwheel`, so that what a killed run left behind is found and removed by name, and
nothing else is.
"""

from __future__ import annotations

import subprocess

__all__ = ["HOST_ADDRESS", "Network"]

_BRIDGE = "tickwheel0"
_PREFIX = "10.213.77"
HOST_ADDRESS = f"{_PREFIX}.254"


class Network:
    """The namespaces of `nodes` nodes, numbered from 1."""

    def __init__(self, nodes: int) -> None:
        self.numbers = range(1, nodes + 1)

    @staticmethod
    def namespace(number: int) -> str:
        """Name of the node's network namespace."""
        return f"tickwheel-n{number}"

    @staticmethod
    def address(number: int) -> str:
        """The node's address."""
        return f"{_PREFIX}.{number}"

    @staticmethod
    def pods(number: int) -> str:
        """The range of the node's pods."""
        return f"10.244.{number}.0/24"

    def up(self) -> None:
        """Make it all. What is there already is removed first."""
        self.down()
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{HOST_ADDRESS}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        for number in self.numbers:
            self._add(number)

    def down(self) -> None:
        """Remove it all, of any number of nodes. The processes in it must have ended before."""
        for name in self.present():
            _ip("netns", "del", name, check=False)
        for line in _ip("-o", "link", "show", "type", "veth", check=False).splitlines():
            if (name := line.split(": ")[1].partition("@")[0]).startswith("tickwheel-v"):
                _ip("link", "del", name, check=False)
        if _BRIDGE in _ip("-o", "link", "show", "type", "bridge", check=False):
            _ip("link", "del", _BRIDGE, check=False)

    @staticmethod
    def present() -> list[str]:
        """Namespaces of ours that exist."""
        names = (line.split()[0] for line in _ip("netns", "list", check=False).splitlines() if line)
        return [name for name in names if name.startswith("tickwheel-n")]

    @staticmethod
    def processes(namespace: str) -> list[int]:
        """Processes that live in the namespace."""
        return [int(word) for word in _ip("netns", "pids", namespace, check=False).split()]

    @staticmethod
    def cut(number: int) -> None:
        """No packet reaches the node, and none leaves it."""
        _ip("link", "set", f"tickwheel-v{number}", "down")

    @staticmethod
    def heal(number: int) -> None:
        """Connect it again."""
        _ip("link", "set", f"tickwheel-v{number}", "up")

    def _add(self, number: int) -> None:
        name, outer = self.namespace(number), f"tickwheel-v{number}"
        _ip("netns", "add", name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", outer, "master", _BRIDGE, "up")
        inside = ("-n", name)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "route", "add", "default", "via", HOST_ADDRESS)
        for other in self.numbers:
            if other != number:
                _ip(*inside, "route", "add", self.pods(other), "via", self.address(other))
        subprocess.run(
            ["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, capture_output=True
        )


def _ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout if done.returncode == 0 else ""
