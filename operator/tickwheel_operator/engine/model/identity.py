"""Deterministic names: the same firing has the same run id, whoever makes it and however often."""

from __future__ import annotations

import hashlib
import zlib

__all__ = [
    "backfill_run_id",
    "completion_run_id",
    "jitter_ms",
    "keyed_run_id",
    "run_name",
    "scheduled_run_id",
    "uid_of",
    "unit_interval",
]


def scheduled_run_id(uid: str, scheduled_ms: int) -> str:
    """The id of the run that the schedule makes: the task's uid and the scheduled instant."""
    return f"{uid}.{scheduled_ms}"


def keyed_run_id(uid: str, key: str) -> str:
    """The id of a run that was asked for: the task's uid and a digest of the idempotency key."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{uid}.k{digest[:20]}"


def completion_run_id(uid: str, ended_run_id: str) -> str:
    """The id of the run that follows another task's: the task's uid and a digest of the other run's id."""
    digest = hashlib.sha256(ended_run_id.encode()).hexdigest()
    return f"{uid}.c{digest[:20]}"


def backfill_run_id(uid: str, scheduled_ms: int, key: str) -> str:
    """The id of the run that makes up for an instant: the task's uid, the instant, a digest of the backfill's key."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{uid}.b{scheduled_ms}-{digest[:8]}"


def jitter_ms(uid: str, scheduled_ms: int, most_ms: int) -> int:
    """By how much the run of an instant starts later, 0 to `most_ms`: the same on every leader and in every tool."""
    return round(unit_interval(scheduled_run_id(uid, scheduled_ms), 0) * most_ms)


def uid_of(run_id: str) -> str:
    """The task's uid in a run id."""
    return run_id.partition(".")[0]


def run_name(task_name: str, run_id: str) -> str:
    """The name of the TaskRun object that shows the run."""
    return f"{task_name}-{run_id.partition('.')[2]}"


def unit_interval(run_id: str, attempt: int) -> float:
    """A number from 0 to 1 that looks random and is the same on every leader: jitter without a random source."""
    return zlib.crc32(f"{run_id}/{attempt}".encode()) / 0xFFFFFFFF
