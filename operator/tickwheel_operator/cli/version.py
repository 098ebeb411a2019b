"""`tickwheel version`: what decides the answers of this program, for a bug report and for comparing two machines."""

from __future__ import annotations

import platform
import zoneinfo
from importlib import import_module
from pathlib import Path

import click
import msgspec

from tickwheel_operator import __version__
from tickwheel_operator.cli.options import Output, output_option, structured

__all__ = ["ZoneData", "version", "zone_data"]

_UNKNOWN = "unknown"
_A_ZONE = "Etc/UTC"


class ZoneData(msgspec.Struct, frozen=True):
    """Where time zones come from."""

    source: str
    """A folder of the system, or the package `tzdata`."""
    version: str
    """Of the IANA data, such as `2026a`; `unknown` where the source does not say."""


class _Versions(msgspec.Struct, frozen=True, rename="camel"):
    tickwheel: str
    python: str
    zone_data: ZoneData


@click.command(short_help="Show the versions of program, Python and zone data.")
@output_option
def version(output: Output) -> None:
    """Show the versions of the program, of Python, and of the time zone data that schedules are computed with."""
    found = _Versions(__version__, platform.python_version(), zone_data())
    if output is not Output.TABLE:
        click.echo(structured(found, output))
        return
    click.echo(f"tickwheel  {found.tickwheel}")
    click.echo(f"Python     {found.python}")
    click.echo(f"zone data  {found.zone_data.version} ({found.zone_data.source})")


def zone_data() -> ZoneData:
    """The zone data that `zoneinfo` takes: the first folder of its search path that has any, else the package."""
    for folder in map(Path, zoneinfo.TZPATH):
        if (folder / _A_ZONE).is_file():
            return ZoneData(str(folder), _version_of(folder))
    try:
        package = import_module("tzdata")
    except ImportError:
        return ZoneData("none", _UNKNOWN)
    return ZoneData("the package tzdata", str(package.IANA_VERSION))


def _version_of(folder: Path) -> str:
    """As the distributions write it: the head of `tzdata.zi` (Debian, Alpine, Fedora), or a file (FreeBSD, macOS)."""
    try:
        with (folder / "tzdata.zi").open(encoding="utf-8") as data:
            head = data.readline()
        if head.startswith("# version "):
            return head.removeprefix("# version ").strip()
    except (OSError, UnicodeDecodeError):
        pass
    for name in ("+VERSION", "VERSION"):
        try:
            return (folder / name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
    return _UNKNOWN
