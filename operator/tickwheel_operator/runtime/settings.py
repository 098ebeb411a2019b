"""The operator's settings: flags of `tickwheel-operator`, each also an environment variable `TICKWHEEL_<NAME>`."""

from __future__ import annotations

import socket

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that one operator process is told. The docstring under a field is its help text."""

    namespace: str = "tickwheel-system"
    """The operator's own namespace: its Lease and its ledger live there."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose objects are served; empty: all."""
    identity: str = socket.gethostname()
    """This replica's name in the Lease: the pod's name."""
    advertise_url: str = ""
    """Where workers reach this replica's gateway. Default: http://<identity's address>:<gateway port>."""
    gateway_host: str = "0.0.0.0"  # noqa: S104  (a pod's gateway is there for other pods)
    """Address that the gateway listens on."""
    gateway_port: int = 8443
    """Port of the gateway; 0 draws a free one."""
    metrics_host: str = "0.0.0.0"  # noqa: S104
    """Address of /metrics."""
    metrics_port: int = 9090
    """Port of /metrics; 0 draws a free one."""
    tls_cert_file: str = ""
    """The gateway's certificate, PEM. Without one it speaks plain HTTP: for development only."""
    tls_key_file: str = ""
    """The certificate's key, PEM."""
    token_file: str = ""
    """A file with a static bearer token for workers and API users. Without it TokenReview decides, as in a cluster."""
    kubeconfig: str = ""
    """Path of a kubeconfig. Default: the pod's service account, else the user's kubeconfig."""
    partitions: int = 1
    """Slices of all tasks, each with a leader of its own. This release has one."""
    lease_duration_ms: int = 15_000
    """How long a replica waits before it takes the Lease of a leader that does not renew."""
    renew_deadline_ms: int = 10_000
    """How long a leader tries to renew before it stops. Less than the lease duration."""
    retry_period_ms: int = 2_000
    """Pause between tries to acquire or renew. Less than the renew deadline."""
    replica_selector: str = ""
    """Label selector of the operator's own pods, such as app.kubernetes.io/instance=tickwheel: a leader whose container
    (called operator) ended is then replaced at once. Without it its Lease has to expire."""
    attempt_lease_ms: int = 15_000
    """How long a worker may run an attempt without renewing it, 1,000 to 600,000."""
    commit_interval_ms: int = 10
    """Under load, ledger appends begin at least so far apart."""
    max_backlog: int = 100_000
    """Dispatches that may wait in one pool."""
    checkpoint_segments: int = 1_000
    """Ledger segments after which a checkpoint is written and older ones are deleted."""
    status_writes_per_second: float = 20.0
    """Writes of status, TaskRun objects and Events per second, in all."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    def faults(self) -> list[str]:
        """What cannot be right, one sentence each."""
        found = []
        if self.partitions != 1:
            found.append(f"partitions is {self.partitions}; this release has one partition: leave it at 1")
        if not self.retry_period_ms * 1.2 < self.renew_deadline_ms < self.lease_duration_ms:
            found.append(
                "retry_period_ms, renew_deadline_ms and lease_duration_ms must grow in this order, and the deadline be"
                f" above 1.2 retry periods; they are {self.retry_period_ms}, {self.renew_deadline_ms} and"
                f" {self.lease_duration_ms}, for example 2000, 10000 and 15000"
            )
        if not 1_000 <= self.attempt_lease_ms <= 600_000:
            found.append(f"attempt_lease_ms is {self.attempt_lease_ms}; allowed are 1000 to 600000")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            found.append("tls_cert_file and tls_key_file go together: give both or none")
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            found.append(f"log_level is {self.log_level!r}; allowed are DEBUG, INFO, WARNING and ERROR")
        return found
