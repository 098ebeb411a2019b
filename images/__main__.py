"""`python -m images [--tag TAG] [--output DIR] [--pack] [operator] [worker]`: `make image`.

With a Docker that answers it runs `docker build`; else, or with `--pack`, it packs archives for containerd.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from images.build import build
from images.errors import ImageError
from images.recipe import IMAGES, ROOT, version


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m images", description="Make the operator's and worker's images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{' or '.join(IMAGES)} (default: both)")
    parser.add_argument("--tag", help="instead of this checkout's version")
    parser.add_argument("--output", type=Path, help="where archives are written (default: dist/images)")
    parser.add_argument("--pack", action="store_true", help="pack archives even where Docker is there")
    options = parser.parse_args(arguments)
    names = options.names or list(IMAGES)
    for name in names:
        if name not in IMAGES:
            parser.error(f"there is no image {name!r}: the images are {', '.join(IMAGES)}")
    try:
        if not options.pack and options.output is None and _has_docker():
            _build_with_docker(names, options.tag or version())
        else:
            for image in build(names, tag=options.tag, output=options.output).values():
                size = image.tar.stat().st_size / 1e6
                print(f"{image.reference}  {size:.0f} MB  {image.digest}\n  {image.tar}")
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _has_docker() -> bool:
    """Whether a Docker daemon answers: its client alone is of no use."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0  # noqa: S607


def _build_with_docker(names: list[str], tag: str) -> None:
    for name in names:
        reference = IMAGES[name].reference(tag)
        command = ["docker", "build", "--file", f"images/{name}/Dockerfile", "--build-arg", f"VERSION={tag}"]
        if subprocess.run([*command, "--tag", reference, "."], cwd=ROOT).returncode:  # noqa: S603
            raise ImageError(f"docker cannot build {reference}: what it said is above")
        subprocess.run(["docker", "image", "ls", reference])  # noqa: S603, S607


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
