"""Certificates to play with, as somebody else would make them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tickwheel_operator.tls.authority import Authority, issue, make_authority, pem

HOUR_MS = 3_600_000


@pytest.fixture
def write_pair(tmp_path: Path) -> Callable[[Authority | None], Authority]:
    """Writes tls.crt, tls.key and ca.crt for 127.0.0.1 into the test's folder; the authority."""

    def write(authority: Authority | None = None) -> Authority:
        now_ms = time.time_ns() // 1_000_000
        authority = authority or make_authority(now_ms, 24 * HOUR_MS)
        leaf = issue(authority, names=["127.0.0.1", "localhost"], now_ms=now_ms, lifetime_ms=HOUR_MS)
        (tmp_path / "tls.crt").write_bytes(leaf.certificate_pem)
        (tmp_path / "tls.key").write_bytes(leaf.key_pem)
        (tmp_path / "ca.crt").write_bytes(pem([authority.certificate]))
        return authority

    return write
