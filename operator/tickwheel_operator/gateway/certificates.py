"""The gateway's TLS certificate, taken anew when its files change.

cert-manager and kubelet replace a mounted certificate while the process runs; a server that reads it once would one
day serve an expired one. Connections that exist keep theirs, new handshakes get the new one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

__all__ = ["CertificateReloader"]

_log = logging.getLogger(__name__)


class CertificateReloader:
    """Owns one SSLContext and the task that renews it."""

    def __init__(self, cert_file: Path, key_file: Path, *, interval_s: float) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._interval_s = interval_s
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded: tuple[int, ...] = ()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> ssl.SSLContext:
        """Load and begin to watch. Raises ValueError if the files are no certificate and its key."""
        try:
            self.reload()
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"no TLS certificate from {self._cert_file} and {self._key_file}: {error}; both must be PEM files, "
                "the certificate (with its chain) and its unencrypted key"
            ) from error
        self._task = asyncio.create_task(self._watch(), name="gateway-certificate")
        return self._context

    async def stop(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def reload(self) -> bool:
        """Load the files if they are not those that were loaded last; True if they were loaded."""
        stamp = tuple(file.stat().st_mtime_ns for file in (self._cert_file, self._key_file))
        if stamp == self._loaded:
            return False
        # A pair that does not match raises here, and the context keeps the pair that it had.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self._cert_file, self._key_file)
        self._context.load_cert_chain(self._cert_file, self._key_file)
        self._loaded = stamp
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                if self.reload():
                    _log.info("gateway has a new TLS certificate from %s", self._cert_file)
            except (OSError, ssl.SSLError) as error:
                # Half-written or being replaced: the old pair serves on, and the next look tries again.
                _log.warning("gateway keeps its TLS certificate, %s is of no use: %s", self._cert_file, error)
