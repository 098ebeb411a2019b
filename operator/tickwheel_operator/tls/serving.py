"""What the gateway and the pools need of a certificate, whoever makes it; and a context that takes a new one.

`own.OwnCertificates` makes certificates, `files.CertificateFiles` reads them. Invariant: connections that exist keep
the certificate that they began with, new handshakes get the new one.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Certificates", "load", "server_context"]


class Certificates(Protocol):
    """The certificates of one process."""

    on_change: list[Callable[[], None]]
    """Each is called when `ca_bundle` answers otherwise than before."""

    async def start(self) -> ssl.SSLContext:
        """Have a certificate; the context, which takes each later one. Raises ValueError with what is to mend."""
        ...

    async def run(self) -> None:
        """Renew until cancelled."""
        ...

    def ca_bundle(self) -> str:
        """What a worker must trust to verify the gateway, PEM. Empty: what every system trusts is enough."""
        ...

    def expiries(self) -> Mapping[str, float]:
        """When what is in use expires, seconds since the epoch, by kind: `ca`, `leaf`."""
        ...


def server_context() -> ssl.SSLContext:
    """A context without a certificate yet."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Serve this pair from now on. Raises ssl.SSLError if they do not belong together; the old pair stays then."""
    fresh = server_context()
    with _as_file(certificate + b"\n" + key) as path:
        # A pair that does not match raises here, before the context that is in use has lost its own.
        fresh.load_cert_chain(path)
        context.load_cert_chain(path)

    # A context keeps one pair of each kind of key and prefers one kind: after a change from EC to RSA it would show the
    # old certificate until it expires. Whoever names the host, as all workers do, is served from the fresh one.
    def choose(connection: ssl.SSLObject, name: str | None, serving: ssl.SSLContext) -> None:
        connection.context = fresh

    context.sni_callback = choose


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path to the content for OpenSSL, which reads certificates from files only: in memory, where there is that."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("tickwheel-tls", os.MFD_CLOEXEC)
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{number}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
