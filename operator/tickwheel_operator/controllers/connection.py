"""kopf's credentials from those of the operator's own API client: one configuration for both.

Asked again by kopf when the server refuses its token, so that a projected token that was rotated is read anew.
"""

from __future__ import annotations

import kopf
from kubernetes.aio.client import Configuration

__all__ = ["connection_info"]


async def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """How to reach the API server, and as whom."""
    # Runs the hook that refreshes an expired token.
    settings = await configuration.auth_settings()
    bearer = str(settings.get("BearerToken", {}).get("value") or "")
    scheme, _, token = bearer.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert or None,
        ca_data=configuration.ca_cert_data or None,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file or None,
        private_key_path=configuration.key_file or None,
        scheme=scheme if token else None,
        token=token or None,
        username=configuration.username or None,
        password=configuration.password or None,
        proxy_url=configuration.proxy or None,
    )
