"""`tickwheel ledger status|verify`: what is in the log, and whether it can be trusted.

Both only read, beside a running leader too, and need no Lease. `verify` exits with 1 when it finds anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickwheel_operator.cli.options import Cluster, Output, cluster_options, output_option, structured
from tickwheel_operator.cli.serving import OPERATOR_NAMESPACE, warn_unless_served
from tickwheel_operator.dev.session import LEDGER_FILE, STATE_FOLDER
from tickwheel_operator.engine.triggers.instants import by_clock_of
from tickwheel_operator.ledger import inspect
from tickwheel_operator.ledger.kubernetes import KubernetesSegmentStore
from tickwheel_operator.ledger.protocol import LedgerError, SegmentKind, SegmentStore
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore

__all__ = ["ledger"]

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])
_EPOCHS_SHOWN = 5


@click.group(short_help="Look at the durable log of a partition.")
def ledger() -> None:
    """Look at the durable log of a partition, in a cluster or in a folder of dev mode."""


def _source_options(function: _Function) -> _Function:
    """Which log."""
    decorated: Any = function
    for option in (
        output_option,
        cluster_options(namespace=OPERATOR_NAMESPACE, about="The operator's namespace, where the log is."),
        click.option("--partition", type=click.IntRange(0), default=0, show_default=True, help="The partition."),
        click.option(
            "--dev",
            "folder",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="A folder that `tickwheel dev` runs; without it, the cluster's log.",
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@ledger.command()
@_source_options
def status(folder: Path | None, partition: int, cluster: Cluster, output: Output) -> None:
    """Show the log's size, epochs and newest checkpoint."""
    found = _ask(folder, cluster, lambda store: inspect.status(store, partition))
    if output is Output.TABLE:
        Console().print(_status_table(found))
    else:
        click.echo(structured(found, output))


@ledger.command()
@_source_options
def verify(folder: Path | None, partition: int, cluster: Cluster, output: Output) -> None:
    """Read the whole log and check it. Exits with 1 when anything is wrong."""
    findings = _ask(folder, cluster, lambda store: inspect.verify(store, partition))
    if output is not Output.TABLE:
        click.echo(structured(findings, output))
    elif findings:
        for finding in findings:
            where = f"{finding.segment}: " if finding.segment else ""
            click.echo(f"{finding.severity}: {where}{finding.message}")
    else:
        click.echo(f"the log of partition {partition} is whole: every segment that counts can be read and follows")
    if findings:
        sys.exit(1)


def _ask(folder: Path | None, cluster: Cluster, question: Callable[[SegmentStore], Awaitable[_T]]) -> _T:
    async def answer() -> _T:
        async with _store(folder, cluster) as store:
            return await question(store)

    try:
        return asyncio.run(answer())
    except LedgerError as error:
        raise click.ClickException(str(error)) from error


@contextlib.asynccontextmanager
async def _store(folder: Path | None, cluster: Cluster) -> AsyncIterator[SegmentStore]:
    store: SegmentStore
    if folder is None:
        async with cluster.client() as client:
            namespace = cluster.namespace or OPERATOR_NAMESPACE
            await warn_unless_served(client, namespace)
            store = KubernetesSegmentStore(client, namespace=namespace)
            yield store
        return
    path = folder / STATE_FOLDER / LEDGER_FILE
    if not path.exists():
        # The store would make an empty one, and report that all is well with it.
        raise click.ClickException(f"{folder} has no ledger yet ({path}): run `tickwheel dev {folder}` first")
    store = SqliteSegmentStore(path)
    try:
        yield store
    finally:
        await store.close()


def _status_table(found: inspect.LedgerStatus) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    counts = ", ".join(f"{found.segments[kind]} {kind.value}" for kind in SegmentKind)
    table.add_row("PARTITION", str(found.partition))
    table.add_row("SEGMENTS", f"{counts}; {_size(found.size_bytes)}; the last one is {found.last_sequence}")
    if found.checkpoint_sequence:
        chunks = "1 chunk" if found.checkpoint_chunks == 1 else f"{found.checkpoint_chunks} chunks"
        table.add_row(
            "CHECKPOINT",
            f"{found.checkpoint_sequence}, {chunks}, {_size(found.checkpoint_bytes)}, {_time(found.checkpoint_ms)}",
        )
    else:
        table.add_row("CHECKPOINT", "none yet")
    table.add_row("TAIL", f"{found.tail_segments} segments, {_size(found.tail_bytes)}: what a takeover replays")
    if found.leftovers:
        table.add_row("LEFTOVERS", f"{found.leftovers} segments that the next checkpoint deletes")
    for place, epoch in enumerate(reversed(found.epochs[-_EPOCHS_SHOWN:])):
        table.add_row(
            "EPOCHS" if place == 0 else "",
            Text(f"{epoch.epoch} since {_time(epoch.at_ms)} by {epoch.leader}", style="" if place == 0 else "dim"),
        )
    if len(found.epochs) > _EPOCHS_SHOWN:
        table.add_row("", Text(f"and {len(found.epochs) - _EPOCHS_SHOWN} before", style="dim"))
    return table


def _size(size_bytes: int) -> str:
    if size_bytes < 10 * 1024:
        return f"{size_bytes} B"
    if size_bytes < 10 * 1024 * 1024:
        return f"{size_bytes / 1024:.0f} KiB"
    return f"{size_bytes / 1024 / 1024:.0f} MiB"


def _time(instant_ms: int) -> str:
    return by_clock_of(None, instant_ms).replace(tzinfo=None).isoformat(" ", timespec="seconds")
