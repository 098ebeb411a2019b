"""Hypothesis minds no time in these tests: on a busy machine any example may take seconds."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("tickwheel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tickwheel")
