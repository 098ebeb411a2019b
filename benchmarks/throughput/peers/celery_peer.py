"""The Celery side: the application that the workers load, and the producer (`python -m ...celery_peer`).

Started by `drive.py` in the peers' environment. Tuned as a Celery operator would for small tasks that must not be lost:
acknowledged late and on the loss of a worker requeued (at least once), results kept, events, gossip, mingle and
heartbeats off, rate limits off, a producer that does not subscribe to results that it does not read. Broker and results
are two databases of one Redis, so that the size of the second is exactly the number of durable results.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count as counter

from benchmarks.throughput.peers.load import (
    StartRecorder,
    Submit,
    due_instants,
    producer_arguments,
    report,
    wait_for_go,
)
from celery import Celery, Task  # type: ignore[import-untyped]

PORT = os.environ["BENCH_REDIS_PORT"]
PREFETCH = int(os.environ.get("BENCH_CELERY_PREFETCH", "64"))

application = Celery("bench", broker=f"redis://127.0.0.1:{PORT}/0", backend=f"redis://127.0.0.1:{PORT}/1")
application.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_track_started=False,
    worker_prefetch_multiplier=PREFETCH,
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_pool_limit=64,
    result_expires=3600,
)
_record_start = StartRecorder()


@application.task(name="noop", bind=True)  # type: ignore[untyped-decorator]
def noop(self: Task) -> None:
    """Do nothing; in the latency stage, write down when."""
    _record_start(self.request.id)


def _producer() -> None:
    arguments = producer_arguments("celery_peer")
    # Without a result backend of its own the producer does not subscribe to a channel per submitted task.
    client = Celery("bench", broker=application.conf.broker_url, backend="disabled://")
    client.conf.update(broker_pool_limit=arguments.concurrency)

    def send(task_id: str) -> None:
        client.send_task("noop", task_id=task_id, retry=False)

    def closed_loop(prefix: str, count: int) -> None:
        indices = counter()
        lock = threading.Lock()

        def submit_next() -> None:
            while True:
                with lock:
                    index = next(indices)
                if index >= count:
                    return
                send(f"{prefix}-{index}")

        with ThreadPoolExecutor(arguments.concurrency) as pool:
            for future in [pool.submit(submit_next) for _ in range(arguments.concurrency)]:
                future.result()

    def open_loop(begin_ns: int) -> list[Submit]:
        submits: list[Submit] = []

        def submit_one(task_id: str, due_ns: int) -> None:
            submits.append(Submit(id=task_id, due_ns=due_ns, submit_ns=time.monotonic_ns()))
            send(task_id)

        with ThreadPoolExecutor(arguments.concurrency) as pool:
            futures = []
            dues = due_instants(count=arguments.count, rate=arguments.rate, begin_ns=begin_ns)
            for index, due_ns in enumerate(dues):
                time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
                futures.append(pool.submit(submit_one, f"{arguments.prefix}-{index}", due_ns))
            wait(futures)
            for future in futures:
                future.result()
        return submits

    closed_loop(f"{arguments.prefix}-warm", arguments.warm_up)
    wait_for_go()
    first_ns = time.monotonic_ns()
    submits: list[Submit] = []
    if arguments.rate:
        submits = open_loop(first_ns)
    else:
        closed_loop(arguments.prefix, arguments.count)
    report(submitted=arguments.count, first_ns=first_ns, last_ns=time.monotonic_ns(), submits=submits)


if __name__ == "__main__":
    _producer()
