"""Shows from outside that the gateway has accepted the worker: a TCP port that refuses connections until then.

In worker pods kubelet's startup probe connects to it, so that a pod is ready once its worker takes work, and a version
whose handlers cannot be loaded never replaces one that works. `Worker` owns one; `_link` says when the first pull was
accepted. Invariant: once open it stays open while the process lives, also while the operator is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket

from .errors import ConfigurationError

__all__ = ["Readiness"]

_BACKLOG = 16


class Readiness:
    """Whether the worker is registered, and the port that shows it."""

    def __init__(self, port: int | None) -> None:
        """`port` is taken at once but does not listen yet; None: nobody asks. Raises `ConfigurationError`."""
        self.registered = False
        """A replica has accepted a pull of this worker."""
        self._socket = None if port is None else _bound(port)

    def accepted(self) -> None:
        """A replica accepted a pull. Call it in the event loop, as often as you like."""
        if self.registered:
            return
        self.registered = True
        if self._socket is not None:
            self._socket.listen(_BACKLOG)
            asyncio.get_running_loop().add_reader(self._socket, self._answer, self._socket)

    def close(self) -> None:
        """Give the port back."""
        if self._socket is not None:
            if self.registered:
                asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    @staticmethod
    def _answer(listener: socket.socket) -> None:
        """A probe wants no more than the connection."""
        with contextlib.suppress(OSError):
            listener.accept()[0].close()


def _bound(port: int) -> socket.socket:
    dual = socket.has_dualstack_ipv6()
    made = socket.socket(socket.AF_INET6 if dual else socket.AF_INET)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if dual:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("", port))
    except OSError as error:
        made.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        hint = "; another program of the pod has it: choose another port" if error.errno == errno.EADDRINUSE else ""
        raise ConfigurationError(
            f"ready_port= or TICKWHEEL_READY_PORT is {port}: the port cannot be opened: {why}{hint}, for example "
            "env: [{name: TICKWHEEL_READY_PORT, value: '18459'}] in the worker's container"
        ) from error
    return made
