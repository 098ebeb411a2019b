"""`tickwheel dev DIR`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
from rich.console import Console

from tickwheel_operator.dev.session import DevSession
from tickwheel_operator.ledger.protocol import LedgerError

__all__ = ["dev"]

_UNITS = {"s": 1, "m": 60, "h": 3600}


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        number, unit = value[:-1], value[-1:]
        if unit not in _UNITS or not number.replace(".", "", 1).isdigit():
            self.fail(f"{value!r} is no duration; write for example 60s, 5m or 1h", param, ctx)
        return float(number) * _UNITS[unit]


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--for", "seconds", type=_Duration(), help="End by itself after so long (60s, 5m), with a summary.")
@click.option("--port", default=0, show_default="a free one", help="The gateway's port on the loopback address.")
def dev(directory: Path, seconds: float | None, port: int) -> None:
    """Run the manifests and handlers of DIRECTORY here, without a cluster.

    Manifests (*.yaml) are read again when they change; handler files (*.py) restart the workers. Ctrl-C drains. The
    state is kept in DIRECTORY/.tickwheel, and a second start continues from it.
    """
    console = Console()
    session = DevSession(directory, console, port=port)
    try:
        _run(session.run(seconds))
    except LedgerError as error:
        raise click.ClickException(str(error)) from error


def _run(main: object) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)  # type: ignore[arg-type]
