"""The two upper layers: the dependencies of a lock file, and our own distributions over them."""

from __future__ import annotations

import configparser
import sys
import tempfile
import zipfile
from pathlib import Path

from images.interpreter import compile_bytecode, interpreter, packages_folder, run
from images.layers import Layer, cached, digest_of
from images.recipe import ROOT, Recipe

__all__ = ["code_layer", "dependencies_layer"]


def dependencies_layer(recipe: Recipe, base: Layer) -> Layer:
    """What the recipe's lock names, each file checked against the hashes in it. Raises `ImageError`."""
    lock = ROOT / recipe.lock
    packages = packages_folder(base.folder)

    def fill(root: Path) -> None:
        print(f"{recipe.name}: installing {recipe.lock}", flush=True)
        pip = [sys.executable, "-m", "pip", "--python", str(interpreter(base.folder)), "--disable-pip-version-check"]
        checked = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
        run(
            [*pip, "install", "--quiet", *checked, "--target", str(root / packages), "-r", str(lock)],
            f"pip cannot install {recipe.lock}",
        )
        _strip(root / packages)
        compile_bytecode(base.folder, root, packages)

    key = digest_of([base.digest, lock.read_bytes(), *_makers()])
    return cached(f"{recipe.name}-dependencies", key, fill)


def code_layer(recipe: Recipe, base: Layer) -> Layer:
    """Our distributions, as their wheels hold them, and their programs. Raises `ImageError`."""
    packages = packages_folder(base.folder)

    def fill(root: Path) -> None:
        print(f"{recipe.name}: packing our code", flush=True)
        with tempfile.TemporaryDirectory() as wheels:
            for project in recipe.projects:
                run(
                    [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels],
                    f"the wheel of {project} cannot be built",
                    cwd=ROOT / project,
                )
            for wheel in sorted(Path(wheels).glob("*.whl")):
                zipfile.ZipFile(wheel).extractall(root / packages)
        _write_programs(root, packages)
        for path in root.rglob("*"):
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        compile_bytecode(base.folder, root, packages)

    key = digest_of([base.digest, recipe.name, *_makers(), *_sources(recipe)])
    return cached(f"{recipe.name}-code", key, fill)


def _makers() -> list[bytes]:
    """The code that makes these layers decides them too."""
    return [Path(__file__).with_name(name).read_bytes() for name in ("packages.py", "interpreter.py", "layers.py")]


def _sources(recipe: Recipe) -> list[bytes | str]:
    """All that decides our wheels: each file's name and contents."""
    parts: list[bytes | str] = []
    for project in recipe.projects:
        folder = ROOT / project
        package = folder / ("operator/tickwheel_operator" if project == "." else "tickwheel")
        files = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        for path in (folder / "pyproject.toml", folder / "README.md", *files):
            parts += [str(path.relative_to(ROOT)), path.read_bytes()]
    return parts


def _write_programs(root: Path, packages: str) -> None:
    programs = root / "usr/local/bin"
    programs.mkdir(parents=True)
    for file in sorted((root / packages).glob("*.dist-info/entry_points.txt")):
        points = configparser.ConfigParser(delimiters="=")
        points.read(file)
        for name, target in points["console_scripts"].items():
            module, _, function = target.partition(":")
            text = f"#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            (programs / name).write_text(text)


def _strip(packages: Path) -> None:
    """Drop what only building and testing the dependencies needs."""
    import shutil

    for pattern in ("*/tests", "*/test", "bin"):  # programs too: they begin with a path of this machine
        for path in packages.glob(pattern):
            shutil.rmtree(path)
    for record in packages.glob("*.dist-info/RECORD"):  # and their hashes hold that path
        kept = [line for line in record.read_text().splitlines(keepends=True) if "/bin/" not in line.partition(",")[0]]
        record.write_text("".join(kept))
    for pattern in ("**/*.pyx", "**/*.pxd", "**/*.c", "**/*.h"):
        for path in packages.glob(pattern):
            path.unlink()
