"""What bounds the ledger, and what it counts: set by the operator's configuration, read by its metrics."""

from __future__ import annotations

import msgspec

from tickwheel_operator.ledger.protocol import MAX_SEGMENT_BYTES

__all__ = ["LedgerLimits", "LedgerStats"]


class LedgerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How large segments become, when a checkpoint is due, how long the log tries."""

    max_segment_bytes: int = MAX_SEGMENT_BYTES * 3 // 4
    """Most bytes of one segment's data, from 256. Larger appends become several segments. The default leaves room for
    the base64 that Kubernetes needs."""
    max_chunk_bytes: int = 192 * 1024
    """Most bytes of one segment of a checkpoint: the facts of the moment wait for it."""
    checkpoint_pause_ms: int = 1
    """Pause after each slice of 16 KiB of a checkpoint, in milliseconds: who leads has better things to do, and nobody
    waits for a checkpoint. A million tasks take about a minute."""
    checkpoint_every_segments: int = 1_000
    """A checkpoint is due after so many segments, from 1. A takeover replays at most about so many: about 1 s."""
    checkpoint_every_bytes: int = 16 * 1024 * 1024
    """A checkpoint is due after so many bytes of data, or as many as the last checkpoint has, whichever is more. Bounds
    what the store retains: twice this, and two checkpoints."""
    max_bytes: int = 256 * 1024 * 1024
    """When the store retains so many bytes of data, new runs have to wait until it is a tenth less. In etcd they take a
    third more (base64), and what was deleted stays until etcd compacts, 5 minutes by default; etcd's own bound is 2
    GiB by default, for all objects of the cluster."""
    epoch_keep_ms: int = 3 * 24 * 3_600_000
    """How long an `Epoch` segment outlives compaction, in milliseconds; three days. Must be longer than any leader can
    sleep (a suspended machine, a paused VM) and still believe that it leads; the Lease guards beyond."""
    epochs_kept: int = 16
    """The newest `Epoch` segments are kept whatever their age, so that a jumping wall clock cannot free a name."""
    retry_initial_ms: int = 50
    """Wait before the first retry, in milliseconds; doubles with each."""
    retry_max_ms: int = 2_000
    """The longest wait between retries, in milliseconds."""
    append_deadline_ms: int = 60_000
    """How long one append, checkpoint or step of `open` tries against a store that fails, in milliseconds. Beyond it,
    the store's last error is raised. The Lease is lost long before when the API server is down."""

    forbidden_ms: int = 10_000
    """How long an operation that the store forbids is tried again, in milliseconds. An API server that has just started
    forbids everything until it has read its roles, which takes seconds; a role that is missing is told after this."""


class LedgerStats(msgspec.Struct, kw_only=True):
    """Counters since this object was made, and what the store retains. Exported as metrics."""

    appends: int = 0
    segments: int = 0
    """Segments created, of all kinds."""
    size_bytes: int = 0
    """Their data."""
    checkpoints: int = 0
    retries: int = 0
    """Waits after a failure of the store."""
    unknown_outcomes: int = 0
    """Creates whose answer was lost, resolved by reading the name."""
    failed_sweeps: int = 0
    """Compactions that could not delete everything; the next checkpoint tries again."""
    retained_segments: int = 0
    retained_bytes: int = 0
    limit_bytes: int = 0
    """`LedgerLimits.max_bytes`."""
