"""`tickwheel`: the command for people and scripts.

Invariant: output that cannot be written is an error in one line, exit status 1, and no traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

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


_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _Tickwheel(click.Group):
    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
            # What is still in the buffer would fail once more when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"Error: the output could not be written: {error.strerror}", err=True)
            sys.exit(1)


@click.group(cls=_Tickwheel, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tickwheel")
def main() -> None:
    """Tickwheel: jobs as custom resources, on warm workers, durable and on time."""


for command in (backfill, calendar, dev, ledger, lint, next_instants, version):
    main.add_command(command)
