"""What the gateway tells of the operator's clock is of one clock, also when that is set while a request waits."""

from __future__ import annotations

import time

import pytest
from tests.unit.gateway.scripted import NOW_MS, PULL, WORKER, ScriptedBackend, empty_answers, serving


class SetBackend(ScriptedBackend):
    """Its clock runs, and is set by `step_s` while it answers."""

    def __init__(self, step_s: float) -> None:
        super().__init__(self._answer)
        self._step_s = step_s
        self.ahead_s = 0.0

    async def _answer(self, command):
        self.ahead_s += self._step_s
        return await empty_answers(command)

    def now_us(self) -> int:
        return NOW_MS * 1_000 + int((time.monotonic() + self.ahead_s) * 1e6)


@pytest.mark.parametrize("path", ["/v1/pull", "/v1/report"])
@pytest.mark.parametrize("step_s", [-3_600.0, -0.5, 3_600.0])
async def test_both_instants_of_an_answer_are_of_the_clock_as_it_is_then(path, step_s):
    backend = SetBackend(step_s)
    async with serving(backend) as (caller, _):
        status, answer, _ = await caller.post(path, PULL if path == "/v1/pull" else {"worker": WORKER})
    assert status == 200
    # A worker that knows the clock from before finds both beyond what it knew, and forgets that.
    assert 0 <= answer["answeredUs"] - answer["receivedUs"] < 20e6
    assert 0 <= backend.now_us() - answer["answeredUs"] < 20e6
