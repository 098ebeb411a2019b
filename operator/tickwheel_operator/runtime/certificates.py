"""Who the gateway is for workers: its names, its URL and its certificate, from the settings. `runtime.replica` asks."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from tickwheel_operator.clock import Clock
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.runtime.settings import Settings
from tickwheel_operator.tls.files import CertificateFiles
from tickwheel_operator.tls.own import OwnCertificates
from tickwheel_operator.tls.serving import Certificates
from tickwheel_operator.tls.store import AuthorityStore

__all__ = ["certificates", "gateway_names", "scheme", "service_url"]

_CLUSTER_DOMAIN = "cluster.local"


def scheme(settings: Settings) -> str:
    """`https` or `http`: what the gateway speaks."""
    return "https" if settings.tls_cert_file or _makes_own(settings) else "http"


def service_url(settings: Settings) -> str:
    """Where workers reach the gateway."""
    default = f"{scheme(settings)}://tickwheel.{settings.namespace}.svc:{settings.gateway_port}"
    return settings.gateway_service_url or default


def certificates(settings: Settings, client: KubeClient, clock: Clock) -> Certificates | None:
    """Where the gateway's certificate comes from; None: it speaks plain HTTP."""
    if settings.tls_cert_file:
        authorities = Path(settings.tls_ca_file) if settings.tls_ca_file else None
        pair = Path(settings.tls_cert_file), Path(settings.tls_key_file)
        return CertificateFiles(*pair, authorities, clock, publish_ms=settings.tls_terms().publish_ms)
    if not _makes_own(settings):
        return None
    terms = settings.tls_terms()
    return OwnCertificates(
        AuthorityStore(client, namespace=settings.namespace),
        clock,
        names=gateway_names(settings),
        terms=terms,
        # A publish delay that is short, as in a test, is looked at as often.
        check_s=min(60.0, terms.publish_ms / 10_000),
    )


def _makes_own(settings: Settings) -> bool:
    if settings.tls_cert_file or settings.tls_mode == "Off":
        return False
    # Auto: in a cluster, unless everybody shares one token, which is for development.
    return settings.tls_mode == "Own" or ("KUBERNETES_SERVICE_HOST" in os.environ and not settings.token_file)


def gateway_names(settings: Settings) -> list[str]:
    """What workers may call the gateway by: the Service in all its forms, this replica's own address, and localhost
    for `kubectl port-forward`."""
    host = urlsplit(service_url(settings)).hostname or ""
    names = [host]
    parts = host.removesuffix(f".{_CLUSTER_DOMAIN}").split(".")
    if len(parts) == 3 and parts[2] == "svc":
        service, namespace, _ = parts
        stem = f"{service}.{namespace}"
        names += [service, stem, f"{stem}.svc", f"{stem}.svc.{_CLUSTER_DOMAIN}"]
    names += [urlsplit(settings.advertise_url).hostname or "", *settings.tls_names, "localhost", "127.0.0.1"]
    return [name for name in dict.fromkeys(names) if name]
