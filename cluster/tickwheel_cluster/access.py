"""Speaking to an API server as its admin, and giving out the tokens of service accounts. Standard library only."""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any

__all__ = ["Access", "GivenCluster"]


class Access:
    """What a cluster offers to tests. Subclasses say where it is and how the admin is known."""

    directory: Path
    """For the kubeconfigs that are written."""
    admin_kubeconfig: Path

    @property
    def url(self) -> str:
        raise TypeError("a subclass says where the API server is")

    @property
    def ca_file(self) -> Path:
        raise TypeError("a subclass says whom to trust")

    def _admin(self) -> tuple[ssl.SSLContext, dict[str, str]]:
        """TLS and headers of the admin."""
        raise TypeError("a subclass says who the admin is")

    def request(self, method: str, path: str, body: object = None, *, timeout_s: float = 60) -> Any:
        """One request as admin; the JSON answer, or text. Raises `urllib.error.HTTPError`."""
        context, headers = self._admin()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json", **headers}
        )
        with urllib.request.urlopen(request, context=context, timeout=timeout_s) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else text

    def service_account_kubeconfig(
        self, namespace: str, name: str, *, audience: str | None = None, ttl_seconds: int = 3600
    ) -> Path:
        """A kubeconfig with a token of the service account, which must exist, and nothing else."""
        path = self.directory / f"{namespace}-{name}.kubeconfig"
        token = self.service_account_token(namespace, name, audience=audience, ttl_seconds=ttl_seconds)
        self._write_kubeconfig(path, {"token": token})
        return path

    def service_account_token(
        self, namespace: str, name: str, *, audience: str | None = None, ttl_seconds: int = 3600
    ) -> str:
        """A token of the service account, by TokenRequest."""
        spec: dict[str, object] = {"expirationSeconds": ttl_seconds}
        if audience is not None:
            spec["audiences"] = [audience]
        answer = self.request(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        token: str = answer["status"]["token"]
        return token

    def _write_kubeconfig(self, path: Path, user: dict[str, str]) -> None:
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(config, file)


class GivenCluster(Access):
    """A cluster that exists, as the admin of a kubeconfig's current context."""

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        import yaml

        self.admin_kubeconfig = kubeconfig
        self.directory = directory
        config = yaml.safe_load(kubeconfig.read_text())
        context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        self._cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
        self._user = next(u["user"] for u in config["users"] if u["name"] == context["user"])

    @property
    def url(self) -> str:
        return str(self._cluster["server"]).rstrip("/")

    @property
    def ca_file(self) -> Path:
        return self._file(self._cluster, "certificate-authority")

    def _admin(self) -> tuple[ssl.SSLContext, dict[str, str]]:
        tls = ssl.create_default_context(cafile=str(self.ca_file))
        if "token" in self._user:
            return tls, {"Authorization": f"Bearer {self._user['token']}"}
        tls.load_cert_chain(self._file(self._user, "client-certificate"), self._file(self._user, "client-key"))
        return tls, {}

    @property
    def nodes(self) -> list[str]:
        """Names of its nodes."""
        return [node["metadata"]["name"] for node in self.request("GET", "/api/v1/nodes")["items"]]

    def load_image(self, archive: Path) -> None:
        """Nothing: how images come into somebody's cluster is known to its owner. They have to be there."""

    def _file(self, section: dict[str, str], name: str) -> Path:
        """The file that the kubeconfig names, or one with the data that it holds."""
        if f"{name}-data" not in section:
            if name not in section:
                raise ValueError(
                    f"{self.admin_kubeconfig} has neither {name} nor {name}-data: what is needed is a certificate"
                    " authority, and a token or a client certificate of an admin (no exec plugin)"
                )
            return self.admin_kubeconfig.parent / section[name]
        path = self.directory / f"given-{name}"
        path.write_bytes(base64.b64decode(section[f"{name}-data"]))
        path.chmod(0o600)
        return path
