"""`tickwheel`: the command for people and scripts."""

from __future__ import annotations

import click

from tickwheel_operator import __version__
from tickwheel_operator.cli.backfill import backfill
from tickwheel_operator.cli.calendar import calendar
from tickwheel_operator.cli.dev import dev
from tickwheel_operator.cli.ledger import ledger
from tickwheel_operator.cli.lint import lint
from tickwheel_operator.cli.next import next_instants
from tickwheel_operator.cli.version import version

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tickwheel")
def main() -> None:
    """Tickwheel: jobs as custom resources, on warm workers, durable and on time."""


for command in (backfill, calendar, dev, ledger, lint, next_instants, version):
    main.add_command(command)
