"""`python -m tickwheel MODULE_OR_FILE...`: imports what registers handlers, and runs a worker with all of them.

`tickwheel dev` starts workers this way; images whose handlers are plain modules can too. `python -m tickwheel drain` is
the preStop hook of worker pods instead (a module of that name is named `drain.py`).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import signal
import sys
from pathlib import Path

from ._drain import drain
from .errors import ConfigurationError, TickwheelError
from .worker import Worker

__all__ = ["load", "main"]


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit status: 0 after a drain, 2 when the worker cannot start as it is configured."""
    parser = argparse.ArgumentParser(
        prog="python -m tickwheel",
        description="Run a Tickwheel worker with the handlers of the given modules and files. "
        "Settings come from TICKWHEEL_ENDPOINT, TICKWHEEL_POOL, TICKWHEEL_SLOTS and so on. "
        "`python -m tickwheel drain`, as a preStop hook, tells the worker in this container to finish and leave.",
    )
    parser.add_argument("handlers", nargs="+", metavar="MODULE_OR_FILE", help="for example handlers.py or shop.tasks")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["drain"]:
        if "TICKWHEEL_POOL" not in os.environ:
            print("tickwheel: drain tells a worker to leave, only in the container of a worker", file=sys.stderr)
            return 2
        drain()
        return 0
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.path.insert(0, "")  # as a script has it: modules of the working directory can be named
    try:
        for name in options.handlers:
            load(name)
        Worker().run()
    except TickwheelError as error:
        print(f"tickwheel: {error}", file=sys.stderr)
        return 2
    return 0


def load(name: str) -> None:
    """Import a module, or a Python file with what lies beside it, so that its `@task` functions are registered.

    Raises `ConfigurationError` where there is none of this name, and whatever the import raises.
    """
    path = Path(name)
    if path.suffix != ".py":
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Only if it is the named module that is missing: an import that fails inside it must show where.
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise
            raise ConfigurationError(
                f"there is no module {name!r}: name a module (shop.tasks) or a file (handlers.py)"
            ) from error
        return
    if not path.is_file():
        raise ConfigurationError(f"there is no file {name}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # so that the file can import its neighbours
    stem = path.stem
    if (known := sys.modules.get(stem)) is not None:
        if getattr(known, "__file__", None) == str(path.resolve()):
            return
        stem = f"{stem}_{abs(hash(folder)):x}"  # two files of one name, in different folders, are two modules
    spec = importlib.util.spec_from_file_location(stem, path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{name} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    # The first process of a container ignores SIGTERM until it says otherwise: a pod that is deleted while its handlers
    # are being imported would wait for its whole grace period. The worker's own handling follows.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.exit(main())
