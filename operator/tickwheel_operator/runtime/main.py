"""`tickwheel-operator`: the process that runs in the operator's pod."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import signal
import sys
from typing import Any, get_type_hints

import click
import msgspec

from tickwheel_operator.runtime.operator import Operator
from tickwheel_operator.runtime.settings import Settings

__all__ = ["main"]

_log = logging.getLogger("tickwheel")


def main() -> None:
    """Entry point."""
    _command().main(auto_envvar_prefix="TICKWHEEL")


def _command() -> click.Command:
    """The command line, made from the settings: one text for flags, environment and documentation."""
    helps, hints = _field_texts(), get_type_hints(Settings)
    options: list[click.Parameter] = []
    for field in msgspec.structs.fields(Settings):
        many = hints[field.name] == tuple[str, ...]
        options.append(
            click.Option(
                [f"--{field.name.replace('_', '-')}"],
                type=str if many else hints[field.name],
                multiple=many,
                default=field.default,
                show_default=True,
                help=helps[field.name],
            )
        )
    return click.Command("tickwheel-operator", params=options, callback=_run, help="Run the Tickwheel operator.")


def _field_texts() -> dict[str, str]:
    """The docstring under each field of `Settings`."""
    body = ast.parse(inspect.getsource(Settings)).body[0]
    texts: dict[str, str] = {}
    name = ""
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            texts[name] = " ".join(str(node.value.value).split())
    return texts


def _run(**values: Any) -> None:
    settings = Settings(**values)
    faults = settings.faults()
    if faults:
        raise click.UsageError("; ".join(faults))
    logging.basicConfig(
        level=settings.log_level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_serve(settings)))


async def _serve(settings: Settings) -> int:
    operator = Operator(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, operator.stop)
    try:
        await operator.run()
    except Exception:
        _log.exception("the operator ended with an error")
        return 1
    return 0
