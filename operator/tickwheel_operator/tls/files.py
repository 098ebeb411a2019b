"""Certificates that somebody else makes, such as cert-manager: files that are mounted and change while we run.

Where the authority changes together with the certificate, workers are told to trust the new one first, and the old
certificate is shown until they had the time to learn of it. Invariant: a pair that is half-written or does not belong
together is never served; the old one serves on.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509

from tickwheel_operator.clock import Clock
from tickwheel_operator.tls.authority import BadCertificate, certificates, pem
from tickwheel_operator.tls.serving import load, server_context

__all__ = ["CertificateFiles"]

_log = logging.getLogger(__name__)


class CertificateFiles:
    """Implements `serving.Certificates`."""

    def __init__(
        self,
        cert_file: Path,
        key_file: Path,
        ca_file: Path | None,
        clock: Clock,
        *,
        publish_ms: int = 3_600_000,
        check_s: float = 10.0,
    ) -> None:
        """`ca_file` is what workers are given to trust; None: they trust the certificate's authority anyway.
        `publish_ms` is the time that they are given to learn of a new one."""
        self._clock = clock
        self._publish_ms = publish_ms
        self._trusted: list[x509.Certificate] = []
        """Those of the file first, then those that it held before and that have not expired."""
        self._hold_until_ms = 0
        """Until then the certificate that is served stays."""
        self._cert_file = cert_file
        self._key_file = key_file
        self._ca_file = ca_file
        self._check_s = check_s
        self._context = server_context()
        self._loaded: tuple[bytes, bytes] | None = None
        self._bundle = ""
        self._expiries: dict[str, float] = {}
        self._problem = ""
        self.on_change: list[Callable[[], None]] = []

    async def start(self) -> ssl.SSLContext:
        """Raises ValueError if the files are no certificate and its key."""
        try:
            self.reload()
        except (OSError, ssl.SSLError, BadCertificate) as error:
            files = " and ".join(str(file) for file in (self._cert_file, self._key_file, self._ca_file) if file)
            raise ValueError(
                f"no TLS certificate from {files}: {error}; all must be PEM files: the certificate with its chain, its "
                "unencrypted key, and the authorities that workers are to trust"
            ) from error
        return self._context

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            try:
                self.reload()
                self._problem = ""
            except (OSError, ssl.SSLError, BadCertificate) as error:
                # Half-written or being replaced: the next look tries again.
                if str(error) != self._problem:
                    _log.warning("the gateway keeps its certificate, %s is of no use: %s", self._cert_file, error)
                self._problem = str(error)

    def ca_bundle(self) -> str:
        return self._bundle

    def expiries(self) -> Mapping[str, float]:
        return self._expiries

    def reload(self) -> None:
        """Take what the files hold now. Raises OSError, ssl.SSLError or `BadCertificate`, and changes nothing then."""
        pair = (self._cert_file.read_bytes(), self._key_file.read_bytes())
        authorities = b"" if self._ca_file is None else self._ca_file.read_bytes()
        leaf, trusted = certificates(pair[0]), certificates(authorities)
        if not leaf or (self._ca_file is not None and not trusted):
            raise BadCertificate(f"{self._ca_file if leaf else self._cert_file} holds no certificate")
        now_ms = self._clock.now_ms()
        if self._loaded is not None and any(authority not in self._trusted for authority in trusted):
            self._hold_until_ms = now_ms + self._publish_ms
        if pair != self._loaded and (now_ms >= self._hold_until_ms or self._ends_within(now_ms + self._publish_ms)):
            load(self._context, *pair)
            if self._loaded is not None:
                _log.info("the gateway has a new certificate from %s", self._cert_file)
            self._loaded = pair
            self._expiries["leaf"] = _end_ms(leaf[0]) / 1000
        self._trust(trusted, now_ms)

    def _ends_within(self, until_ms: int) -> bool:
        """Whether the certificate that is served ends so soon that the new one cannot wait."""
        return self._expiries["leaf"] * 1000 <= until_ms

    def _trust(self, trusted: list[x509.Certificate], now_ms: int) -> None:
        kept = [before for before in self._trusted if before not in trusted and _end_ms(before) > now_ms]
        if [*trusted, *kept] == self._trusted:
            return
        self._trusted = [*trusted, *kept]
        self._expiries["ca"] = max(map(_end_ms, trusted)) / 1000
        self._bundle = pem(self._trusted).decode()
        for listener in self.on_change:
            listener()


def _end_ms(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp()) * 1000
