"""The operator's clients of the API server, one for each purpose, so that none waits for the connections of another.

A pool of connections that all share is a queue that strangers can fill: each caller of the gateway may cost a review,
and with slow reviews the renewal of the Lease would wait behind them until the term ends. `runtime.operator` opens
them once.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.request import getproxies

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config

from tickwheel_operator.kube.client import KubeClient

__all__ = ["ApiClients", "CredentialsUnreadable", "open_clients"]

_LEASE = 8
"""A renewal, the watch of the Lease and that of the other replicas' pods, and what a broken one leaves behind."""
_LEDGER = 32
"""An append, a deletion, and the segments that a replay reads ahead."""
_REVIEWS = 64
"""Those of tokens, permissions and pods' owners that may be asked at once: 16 each."""
_OBJECTS = 64
"""The census, and what the projection, the pools and the certificates read and write."""


@dataclass(frozen=True)
class ApiClients:
    """Each has its own connections, bounded in number."""

    lease: KubeClient
    """The election."""
    ledger: KubeClient
    reviews: KubeClient
    """What the gateway asks for callers: the only one that strangers can cause work for."""
    objects: KubeClient
    """All else."""


@asynccontextmanager
async def open_clients(kubeconfig: str) -> AsyncIterator[ApiClients]:
    """`kubeconfig` is a path; empty: the pod's service account, else the user's kubeconfig."""
    async with AsyncExitStack() as stack:
        opened = [
            KubeClient(await stack.enter_async_context(ApiClient(await _configuration(kubeconfig, connections))))
            for connections in (_LEASE, _LEDGER, _REVIEWS, _OBJECTS)
        ]
        yield ApiClients(*opened)


async def _configuration(kubeconfig: str, connections: int) -> Configuration:
    configuration = Configuration()
    configuration.connection_pool_maxsize = connections
    # Asked to trust the environment, aiohttp looks for a .netrc in another thread before each request: with the
    # interpreter's lock in between that doubled the time of an append (7.7 ms, of which the server took 3.1).
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    if kubeconfig:
        await load_kube_config(kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
    elif "KUBERNETES_SERVICE_HOST" in os.environ:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    _name_failures(configuration)
    return configuration


class CredentialsUnreadable(OSError):
    """The operator's own token cannot be had now: its file is gone, empty or not to be read, or a program failed."""


def _name_failures(configuration: Configuration) -> None:
    """Let the hook that refreshes the token, before each request, raise one error that callers know as one of I/O."""
    hook = configuration.refresh_api_key_hook
    if hook is None:
        return

    async def refresh(of: Configuration) -> None:
        try:
            result = hook(of)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            raise CredentialsUnreadable(f"the operator's own credentials cannot be read: {error!r}") from error
        finally:
            of.refresh_api_key_hook = refresh  # the hook of a pod puts itself back

    configuration.refresh_api_key_hook = refresh
