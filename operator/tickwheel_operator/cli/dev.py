"""`tickwheel dev DIR`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
from rich.console import Console

from tickwheel_operator.cli.options import DURATION
from tickwheel_operator.dev.errors import DevError
from tickwheel_operator.dev.session import DevSession
from tickwheel_operator.ledger.protocol import LedgerError

__all__ = ["dev"]

_CUT_SHORT = 130
"""The exit status after a second Ctrl-C, as shells know it."""


@click.command(short_help="Run a folder of manifests and handlers here.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--for", "seconds", type=DURATION, help="End by itself after so long (60s, 5m), with a summary.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    help="The gateway's port on the loopback address.",
)
def dev(directory: Path, seconds: float | None, port: int) -> None:
    """Run the manifests and handlers of DIRECTORY here, without a cluster.

    Manifests (*.yaml) and handlers (*.py) are read again when they change. Ctrl-C drains: what runs may finish; a
    second Ctrl-C ends at once. The state is kept in DIRECTORY/.tickwheel, and a second start continues from it.
    """
    import uvloop

    session = DevSession(directory, Console(), port=port)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            drained = runner.run(session.run(seconds))
    except (DevError, LedgerError) as error:
        raise click.ClickException(str(error)) from error
    if not drained:
        sys.exit(_CUT_SHORT)
