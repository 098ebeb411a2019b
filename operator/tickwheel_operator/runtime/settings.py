"""The operator's settings: flags of `tickwheel-operator`, each also an environment variable `TICKWHEEL_<NAME>`."""

from __future__ import annotations

import socket

import msgspec

from tickwheel_operator.tls.rotation import Terms

__all__ = ["Settings"]


_LEAST = {"retry_period_ms": 1, "commit_interval_ms": 1, "max_backlog": 1, "checkpoint_segments": 10}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that one operator process is told. The docstring under a field is its help text."""

    namespace: str = "tickwheel-system"
    """The operator's own namespace: its Lease and its ledger live there."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose objects are served; empty: all."""
    identity: str = socket.gethostname()
    """This replica's name in the Lease: the pod's name."""
    advertise_url: str = ""
    """Where workers reach this replica's gateway. Default: https://<identity>:<gateway port>, http without TLS."""
    gateway_host: str = "0.0.0.0"  # noqa: S104  (a pod's gateway is there for other pods)
    """Address that the gateway listens on."""
    gateway_port: int = 8443
    """Port of the gateway; 0 draws a free one."""
    max_connections: int = 10_000
    """Connections that the gateway holds at once, 100 and more. A worker has two, and each takes about 51 KiB of memory
    with TLS. Fewer where the process may not open as many files."""
    metrics_host: str = "0.0.0.0"  # noqa: S104
    """Address of /metrics."""
    metrics_port: int = 9090
    """Port of /metrics; 0 draws a free one."""
    tls_mode: str = "Auto"
    """The gateway's certificate. Own: the operator makes an authority, in the Secret tickwheel-ca, and renews both.
    Off: plain HTTP, for development only. Auto: Own in a cluster, else Off. Certificate files go before all of them."""
    tls_cert_file: str = ""
    """A certificate that somebody else makes, such as cert-manager: PEM, with its chain. Read again when it changes."""
    tls_key_file: str = ""
    """The certificate's key, PEM."""
    tls_ca_file: str = ""
    """The authority of the certificate file, PEM, which the workers of pools are given to trust. Default: they trust it
    anyway, as every system does."""
    tls_names: tuple[str, ...] = ()
    """More DNS names and IP addresses that workers call the gateway by, for a certificate of the operator's own."""
    tls_ca_days: float = 365.0
    """Life of an authority of the operator's own, in days. The next one is made when two thirds are over."""
    tls_leaf_days: float = 30.0
    """Life of a certificate of the operator's own, in days; renewed when two thirds are over."""
    tls_publish_minutes: float = 60.0
    """How long workers are given to learn of a new authority before it signs, in minutes; pods have it after two."""
    token_file: str = ""
    """A file with a static bearer token for workers and API users. Without it TokenReview decides, as in a cluster."""
    kubeconfig: str = ""
    """Path of a kubeconfig. Default: the pod's service account, else the user's kubeconfig."""
    gateway_service_url: str = ""
    """Where the workers of a pool's template reach the gateway: the URL of its Service. Default:
    https://tickwheel.<namespace>.svc:<gateway port>, or http where the gateway has no certificate."""
    worker_service_accounts: tuple[str, ...] = ()
    """ServiceAccounts that the template of a WorkerPool may use: patterns such as *-worker, or shops/* for all of one
    namespace; empty: any. Workers without one of their own run as `default`."""
    lease_duration_ms: int = 15_000
    """How long a replica waits before it takes the Lease of a leader that does not renew."""
    renew_deadline_ms: int = 10_000
    """How long a leader tries to renew before it stops. Less than the lease duration."""
    retry_period_ms: int = 2_000
    """Pause between tries to acquire or renew. Less than the renew deadline."""
    replica_selector: str = ""
    """Label selector of the operator's own pods, such as app.kubernetes.io/instance=tickwheel: a leader whose container
    (called operator) ended is then replaced at once. Without it its Lease has to expire."""
    abandoned_seconds: float = 300.0
    """How long the Lease of another release that serves a namespace must stand still before this one takes over the
    namespace: the other was uninstalled, or is away. At least 60."""
    attempt_lease_ms: int = 15_000
    """How long a worker may run an attempt without renewing it, 1,000 to 600,000."""
    commit_interval_ms: int = 10
    """Under load, ledger appends begin at least so far apart."""
    early_leases: bool = True
    """Commit and lease runs that are sure to start a few milliseconds ahead of their instant, so that they start at it
    and not when their durable write is done. A suspend or an edit in these milliseconds comes too late."""
    max_backlog: int = 100_000
    """Runs of one pool that may wait: for a worker, for their instant, or for other runs."""
    checkpoint_segments: int = 1_000
    """Ledger segments after which a checkpoint is written and older ones are deleted."""
    ledger_max_bytes: int = 256 * 1024 * 1024
    """Bytes of data that the ledger may retain in the API server before new runs have to wait; at least 64 MiB. etcd
    takes a third more for them, keeps what was deleted until it compacts, and has 2 GiB by default for all objects."""
    status_writes_per_second: float = 20.0
    """Writes of status, TaskRun objects and Events per second, in all."""
    metrics_max_pools: int = 200
    """Pools that metrics tell apart, 1 to 10,000: about 25 series each. The others are counted as one, `_other`."""
    metrics_max_tasks: int = 100
    """Tasks with spec.taskMetrics that have metrics of their own, 0 to 10,000: about 5 series each."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    def tls_terms(self) -> Terms:
        """How long certificates of the operator's own last."""
        day_ms = 86_400_000
        return Terms(
            authority_ms=int(self.tls_ca_days * day_ms),
            leaf_ms=int(self.tls_leaf_days * day_ms),
            publish_ms=int(self.tls_publish_minutes * 60_000),
        )

    def faults(self) -> list[str]:
        """What cannot be right, one sentence each."""
        found = []
        if not self.retry_period_ms * 1.2 < self.renew_deadline_ms < self.lease_duration_ms:
            found.append(
                "retry_period_ms, renew_deadline_ms and lease_duration_ms must grow in this order, and the deadline be"
                f" above 1.2 retry periods; they are {self.retry_period_ms}, {self.renew_deadline_ms} and"
                f" {self.lease_duration_ms}, for example 2000, 10000 and 15000"
            )
        if self.lease_duration_ms % 1_000:
            found.append(f"lease_duration_ms is {self.lease_duration_ms}; a Lease has whole seconds, for example 15000")
        for name, least in _LEAST.items():
            if (value := getattr(self, name)) < least:
                found.append(f"{name} is {value}; allowed are {least} and more")
        for name in ("gateway_port", "metrics_port"):
            if not 0 <= (port := getattr(self, name)) <= 65_535:
                found.append(f"{name} is {port}; allowed are 1 to 65535, and 0 for a free one")
        if self.gateway_port == self.metrics_port != 0:
            found.append(f"gateway_port and metrics_port are both {self.gateway_port}; give two, such as 8443 and 9090")
        if not self.status_writes_per_second > 0:
            found.append(f"status_writes_per_second is {self.status_writes_per_second}; give more than 0, such as 20")
        if not (1 <= self.metrics_max_pools <= 10_000 and 0 <= self.metrics_max_tasks <= 10_000):
            found.append(
                f"metrics_max_pools is {self.metrics_max_pools} and metrics_max_tasks {self.metrics_max_tasks}; "
                "allowed are 1 to 10000 and 0 to 10000, for example 200 and 100"
            )
        if not self.abandoned_seconds >= 60:
            found.append(f"abandoned_seconds is {self.abandoned_seconds:g}; allowed are 60 and more, for example 300")
        if not 1_000 <= self.attempt_lease_ms <= 600_000:
            found.append(f"attempt_lease_ms is {self.attempt_lease_ms}; allowed are 1000 to 600000")
        if self.max_connections < 100:
            found.append(f"max_connections is {self.max_connections}; allowed are 100 and more")
        if self.ledger_max_bytes < 64 * 1024 * 1024:
            found.append(f"ledger_max_bytes is {self.ledger_max_bytes}; allowed are 67108864 (64 MiB) and more")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            found.append("tls_cert_file and tls_key_file go together: give both or none")
        if self.tls_mode not in ("Auto", "Own", "Off"):
            found.append(f"tls_mode is {self.tls_mode!r}; allowed are Auto, Own and Off")
        if self.tls_ca_file and not self.tls_cert_file:
            found.append("tls_ca_file is the authority of tls_cert_file, which is not set: give both or none")
        found += self.tls_terms().faults()
        for pattern in self.worker_service_accounts:
            if "," in pattern:
                found.append(
                    f"worker_service_accounts has {pattern!r}: give the option once for each pattern; in"
                    " TICKWHEEL_WORKER_SERVICE_ACCOUNTS separate them by spaces, for example 'default *-worker'"
                )
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            found.append(f"log_level is {self.log_level!r}; allowed are DEBUG, INFO, WARNING and ERROR")
        return found
