"""The image's own Python, run on this machine from the unpacked base layer, without a chroot and without root.

Dependencies must be chosen and bytecode compiled by the interpreter that will use them, whatever the version of the one
that runs this. Its dynamic loader is called by name and told where the libraries are.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from images.errors import ImageError

__all__ = ["compile_bytecode", "interpreter", "packages_folder", "run"]


def interpreter(base: Path) -> Path:
    """A program that is the Python of the base layer at `base`."""
    program = base.with_name("python3")
    if not program.exists():
        (loader,) = base.glob("usr/lib/*/ld-linux*.so.*")
        library = loader.parent.relative_to(base.parent)
        made = program.with_suffix(f".{os.getpid()}")
        made.write_text(  # with paths relative to itself: the folder is renamed once it is whole
            "#!/bin/sh\n"
            'here=$(dirname "$(readlink -f "$0")")\n'
            'export PYTHONHOME="$here/root/usr" PYTHONHASHSEED=0\n'
            f'exec "$here/{library}/{loader.name}" --argv0 "$0" --library-path "$here/{library}" '
            '"$here/root/usr/bin/python3" "$@"\n'
        )
        made.chmod(0o755)
        made.rename(program)
    return program


def packages_folder(base: Path) -> str:
    """Where Debian's Python looks for packages that are not Debian's, relative to the image's root."""
    (library,) = base.glob("usr/lib/python3.*")
    return f"usr/local/lib/{library.name}/dist-packages"


def compile_bytecode(base: Path, root: Path, folder: str) -> None:
    """Compile what is below `folder` of the layer at `root`.

    The bytecode is never checked against its source (an image does not change), which also keeps times out of it.
    """
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"]
    run(
        [str(interpreter(base)), "-m", "compileall", *options, str(root / folder)],
        "Python cannot compile what goes into the image",
    )


def run(command: list[str], fault: str, *, cwd: Path | None = None) -> str:
    """Run it and return what it printed; raises `ImageError` with `fault` and the end of what it said."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)  # noqa: S603 - our own command lines
    if done.returncode:
        raise ImageError(f"{fault}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
