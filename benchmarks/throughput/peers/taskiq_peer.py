"""The taskiq side: the broker that the workers load, and the producer (`python -m ...taskiq_peer`).

Started by `drive.py` in the peers' environment. The broker is the Redis stream one, since the list and pub/sub ones
do not acknowledge and so lose what a dead worker held; the workers acknowledge when the result is saved (at least
once). uvloop and hiredis are installed. Broker and results are two databases of one Redis, so that the size of
the second is exactly the number of durable results.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Annotated

from benchmarks.throughput.peers.load import (
    StartRecorder,
    Submit,
    due_instants,
    producer_arguments,
    report,
    wait_for_go,
)
from taskiq import Context, TaskiqDepends
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

PORT = os.environ["BENCH_REDIS_PORT"]
CONNECTIONS = int(os.environ.get("BENCH_TASKIQ_CONNECTIONS", "32"))

broker = RedisStreamBroker(
    url=f"redis://127.0.0.1:{PORT}/0",
    # From the first message on: the default would skip what was sent before the workers made their group.
    consumer_id="0",
    max_connection_pool_size=CONNECTIONS,
    unacknowledged_lock_timeout=10,
    xread_count=100,
).with_result_backend(
    RedisAsyncResultBackend(
        redis_url=f"redis://127.0.0.1:{PORT}/1",
        result_ex_time=3600,
        max_connection_pool_size=CONNECTIONS,
        serializer=JSONSerializer(),
    )
)
_record_start = StartRecorder()

if os.environ.get("BENCH_STARTS"):

    @broker.task(task_name="noop")
    async def noop(context: Annotated[Context, TaskiqDepends()]) -> None:
        """Write down the start."""
        _record_start(context.message.task_id)

else:

    @broker.task(task_name="noop")
    async def noop() -> None:
        """Do nothing; without a dependency to resolve, as that costs taskiq time."""


async def _produce() -> None:
    arguments = producer_arguments("taskiq_peer")
    await broker.startup()

    async def send(task_id: str) -> None:
        # The variant with a dependency has a parameter, which the worker fills, not the caller.
        await noop.kicker().with_task_id(task_id).kiq()  # type: ignore[call-overload]

    async def closed_loop(prefix: str, count: int) -> None:
        indices: Iterator[int] = iter(range(count))

        async def submit_rest() -> None:
            for index in indices:  # one iterator, shared: each index is taken once
                await send(f"{prefix}-{index}")

        async with asyncio.TaskGroup() as group:
            for _ in range(arguments.concurrency):
                group.create_task(submit_rest())

    async def open_loop(begin_ns: int) -> list[Submit]:
        submits: list[Submit] = []

        async def submit_one(task_id: str, due_ns: int) -> None:
            submits.append(Submit(id=task_id, due_ns=due_ns, submit_ns=time.monotonic_ns()))
            await send(task_id)

        async with asyncio.TaskGroup() as group:
            dues = due_instants(count=arguments.count, rate=arguments.rate, begin_ns=begin_ns)
            for index, due_ns in enumerate(dues):
                await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
                group.create_task(submit_one(f"{arguments.prefix}-{index}", due_ns))
        return submits

    await closed_loop(f"{arguments.prefix}-warm", arguments.warm_up)
    # The barrier blocks this thread; nothing else runs in this loop meanwhile.
    wait_for_go()
    first_ns = time.monotonic_ns()
    submits: list[Submit] = []
    if arguments.rate:
        submits = await open_loop(first_ns)
    else:
        await closed_loop(arguments.prefix, arguments.count)
    report(submitted=arguments.count, first_ns=first_ns, last_ns=time.monotonic_ns(), submits=submits)
    await broker.shutdown()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_produce())
