"""Where the authorities live: one Secret in the operator's own namespace, shared by all replicas.

    tls.crt, tls.key    the authority that signs
    next.crt, next.key  the one that is about to, if there is one
    previous.crt        those that are only trusted, if there are any
    ca.crt              all of them, for people and for clients that are no workers

Invariant: what is written replaces exactly what was read (the Secret's resourceVersion says so), so of two replicas
that renew at once the second finds what the first one made. Deleting the Secret makes a new authority at once, and no
old one is trusted: the way out when a key is known to somebody.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiRefused
from tickwheel_operator.kube.resources import SECRETS
from tickwheel_operator.tls.authority import Authority, BadCertificate, certificates, pem
from tickwheel_operator.tls.rotation import Authorities, bundle

__all__ = ["AuthorityStore", "BadSecret", "Stored"]


_HINT = "; grant the operator get, create and update on it, as the chart does"


class BadSecret(Exception):
    """The Secret is there, and is not what the operator writes. A person must look. Nothing of it is in the message."""


class Stored(msgspec.Struct, frozen=True):
    """What the Secret holds, and its version."""

    authorities: Authorities
    version: str


class AuthorityStore:
    """The Secret."""

    def __init__(self, client: KubeClient, *, namespace: str, name: str = "tickwheel-ca") -> None:
        self._client = client
        self._namespace = namespace
        self._name = name

    async def read(self) -> Stored | None:
        """None: there is no such Secret. Raises `ApiError`, `BadSecret`."""
        try:
            return self._stored(await self._call("GET", self._name, "read"))
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    async def write(self, authorities: Authorities, replaces: Stored | None) -> Stored | None:
        """Put it in the place of what was read. None: somebody else was first, read again. Raises `ApiError`."""
        body = self._secret(authorities, replaces)
        try:
            if replaces is None:
                return self._stored(await self._call("POST", "", "create", body))
            return self._stored(await self._call("PUT", self._name, "update", body))
        except ApiRefused as error:
            if error.status in (404, 409):
                # Not ours to read as a missing namespace: a namespace that is gone takes this process with it.
                return None
            raise

    async def _call(self, method: str, name: str, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        path = SECRETS.path(self._namespace, name)
        return await self._client.call(method, path, what=f"{verb} {self._place}", body=body, hint=_HINT)

    @property
    def _place(self) -> str:
        return f"Secret {self._namespace}/{self._name}"

    def _secret(self, authorities: Authorities, replaces: Stored | None) -> dict[str, Any]:
        following = authorities.next
        files = {
            "tls.crt": pem([authorities.current.certificate]),
            "tls.key": authorities.current.key_pem,
            "next.crt": b"" if following is None else pem([following.certificate]),
            "next.key": b"" if following is None else following.key_pem,
            "previous.crt": pem(authorities.previous),
            "ca.crt": bundle(authorities).encode(),
        }
        metadata: dict[str, Any] = {
            "name": self._name,
            "namespace": self._namespace,
            "labels": {"app.kubernetes.io/name": "tickwheel", "app.kubernetes.io/managed-by": "tickwheel"},
        }
        if replaces is not None:
            metadata["resourceVersion"] = replaces.version
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "kubernetes.io/tls",
            "data": {name: base64.b64encode(content).decode() for name, content in files.items() if content},
        }

    def _stored(self, secret: Mapping[str, Any]) -> Stored:
        data = secret.get("data") or {}
        try:
            current = self._authority(data, "tls")
            following = self._authority(data, "next") if data.get("next.crt") else None
            previous = tuple(certificates(_file(data, "previous.crt")))
        except (BadCertificate, binascii.Error) as error:
            raise BadSecret(
                f"{self._place} is not what the operator wrote: {error}. Delete it (kubectl delete secret -n "
                f"{self._namespace} {self._name}): a new authority is made, and workers learn of it within minutes"
            ) from error
        return Stored(Authorities(current, following, previous), secret["metadata"]["resourceVersion"])

    @staticmethod
    def _authority(data: Mapping[str, str], name: str) -> Authority:
        try:
            return Authority.from_pem(_file(data, f"{name}.crt"), _file(data, f"{name}.key"))
        except BadCertificate as error:
            raise BadCertificate(f"{name}.crt and {name}.key: {error}") from None


def _file(data: Mapping[str, str], name: str) -> bytes:
    return base64.b64decode(data.get(name) or "")
