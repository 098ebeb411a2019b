"""`tickwheel`: the command for people and scripts."""

from __future__ import annotations

import click

from tickwheel_operator import __version__
from tickwheel_operator.cli.dev import dev
from tickwheel_operator.cli.ledger import ledger

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tickwheel")
def main() -> None:
    """Tickwheel: jobs as custom resources, on warm workers, durable and on time."""


main.add_command(dev)
main.add_command(ledger)
