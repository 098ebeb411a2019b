"""The operator's own certificates: each replica keeps the shared authorities going and signs its own leaf.

Started before the gateway. Every replica looks at the Secret each `check_s` and does what `rotation` says is due; who
writes first wins, the others read. A replica that cannot reach the API server goes on with the authorities that it
knows: it renews its leaf from memory, and only a new authority has to wait.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence

from tickwheel_operator.clock import Clock
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.tls.authority import Leaf, issue, make_authority
from tickwheel_operator.tls.rotation import Authorities, Terms, advance, bundle, leaf_due
from tickwheel_operator.tls.serving import load, server_context
from tickwheel_operator.tls.store import AuthorityStore, BadSecret, Stored

__all__ = ["Contended", "OwnCertificates"]

_log = logging.getLogger(__name__)
_TRIES = 5
"""Replicas that start together lose the race for the Secret so often, at most."""
_START_S = 120.0
_AGAIN_S = 2.0


class Contended(Exception):
    """Other replicas were always faster. Try again."""


class OwnCertificates:
    """Implements `serving.Certificates`."""

    def __init__(
        self,
        store: AuthorityStore,
        clock: Clock,
        *,
        names: Sequence[str],
        terms: Terms | None = None,
        check_s: float = 60.0,
    ) -> None:
        """`names` are the DNS names and addresses that workers call the gateway by."""
        self._store = store
        self._clock = clock
        self._names = names
        self._terms = terms or Terms()
        self._check_s = check_s
        self._context = server_context()
        self._stored: Stored | None = None
        self._known: Authorities | None = None
        self._leaf: Leaf | None = None
        self._bundle = ""
        self._problem = ""
        self.on_change: list[Callable[[], None]] = []

    async def start(self) -> ssl.SSLContext:
        """Waits for the API server for two minutes. Raises ValueError where there is no certificate to be had."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _START_S
        while True:
            try:
                await self.renew()
                return self._context
            except BadSecret as error:
                raise ValueError(str(error)) from error
            except (ApiError, Contended) as error:
                if loop.time() > until:
                    raise ValueError(f"the gateway has no certificate: {error}") from error
                if str(error) != self._problem:
                    _log.warning("the gateway waits for its certificate: %s", error)
                self._problem = str(error)
            await asyncio.sleep(_AGAIN_S)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            try:
                await self.renew()
                self._problem = ""
            except (ApiError, BadSecret, Contended) as error:
                if str(error) != self._problem:
                    _log.warning("the gateway goes on with the certificates that it has: %s", error)
                self._problem = str(error)

    def ca_bundle(self) -> str:
        return self._bundle

    def expiries(self) -> Mapping[str, float]:
        if self._known is None or self._leaf is None:
            return {}
        return {"ca": self._known.current.expires_ms / 1000, "leaf": self._leaf.expires_ms / 1000}

    async def renew(self) -> None:
        """Do what is due. Raises `ApiError`, `BadSecret`, `Contended`, after what can be done without the Secret."""
        try:
            self._take(await self._agree())
        finally:
            self._renew_leaf()

    async def _agree(self) -> Stored:
        """What the Secret holds when nothing more is due."""
        for _ in range(_TRIES):
            stored = await self._store.read()
            known = stored.authorities if stored is not None else None
            wanted = advance(known, self._clock.now_ms(), self._terms, make_authority)
            if stored is not None and wanted is known:
                return stored
            written = await self._store.write(wanted, stored)
            if written is not None:
                _log.info("%s", _what_changed(known, wanted))
                return written
        raise Contended(f"other replicas changed the authorities {_TRIES} times while this one tried to")

    def _take(self, stored: Stored) -> None:
        if self._stored is not None and self._stored.version == stored.version:
            return
        self._stored, self._known = stored, stored.authorities
        found = bundle(stored.authorities)
        if found != self._bundle:
            self._bundle = found
            for listener in self.on_change:
                listener()

    def _renew_leaf(self) -> None:
        known, now_ms = self._known, self._clock.now_ms()
        if known is None or not leaf_due(self._leaf, known, now_ms):
            return
        leaf = issue(known.current, names=self._names, now_ms=now_ms, lifetime_ms=self._terms.leaf_ms)
        load(self._context, leaf.certificate_pem, leaf.key_pem)
        _log.info("the gateway has %s certificate, for %s", "its" if self._leaf is None else "a new", self._names[0])
        self._leaf = leaf


def _what_changed(before: Authorities | None, after: Authorities) -> str:
    if before is None:
        return "made the authority of the gateway's certificates"
    if after.current is before.next:
        return "the next authority signs the gateway's certificates from now on"
    if after.current is not before.current:
        return "the authority of the gateway's certificates had expired; made a new one, workers fetch it in minutes"
    if after.next is not before.next:
        return "made the next authority of the gateway's certificates; workers are told to trust it"
    return "an old authority of the gateway's certificates has expired and is trusted no longer"
