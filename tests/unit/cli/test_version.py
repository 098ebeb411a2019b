"""`tickwheel version`: above all, where the time zones come from."""

from __future__ import annotations

import json
import zoneinfo
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import Result

from tickwheel_operator import __version__
from tickwheel_operator.cli.version import zone_data


@pytest.fixture
def zones_in() -> Iterator[Callable[..., None]]:
    yield lambda *folders: zoneinfo.reset_tzpath([str(folder) for folder in folders])
    zoneinfo.reset_tzpath()


def system(folder: Path, **files: str) -> Path:
    (folder / "Etc").mkdir(parents=True)
    (folder / "Etc" / "UTC").write_bytes(b"TZif")
    for name, text in files.items():
        (folder / {"zi": "tzdata.zi", "plus": "+VERSION"}[name]).write_text(text)
    return folder


def test_it_tells_program_python_and_zone_data(tickwheel: Callable[..., Result]) -> None:
    shown = tickwheel("version").output
    assert __version__ in shown
    found = json.loads(tickwheel("version", "-o", "json").stdout)
    assert found["tickwheel"] == __version__
    assert found["zoneData"]["version"] in shown
    assert __version__ in tickwheel("--version").output


def test_the_systems_zone_data_comes_first_and_its_version_from_its_files(
    tmp_path: Path, zones_in: Callable[..., None]
) -> None:
    debian = system(tmp_path / "debian", zi="# version 2026b\n# This zic input file\n")
    mac = system(tmp_path / "mac", plus="2025c\n")
    bare = system(tmp_path / "bare")
    zones_in(tmp_path / "absent", debian, mac)
    assert zone_data().source == str(debian)
    assert zone_data().version == "2026b"
    zones_in(mac)
    assert zone_data().version == "2025c"
    zones_in(bare)
    assert (zone_data().source, zone_data().version) == (str(bare), "unknown")


def test_without_the_systems_it_is_the_packages(tmp_path: Path, zones_in: Callable[..., None]) -> None:
    zones_in(tmp_path)
    assert zone_data().source == "the package tzdata"
    year, number = version("tzdata").split(".")[:2]
    assert zone_data().version == f"{year}{'abcdefghij'[int(number) - 1]}"
