"""`tickwheel calendar import`: a Calendar from the file that a public holiday calendar is published as."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tickwheel_operator.api import API_VERSION, InvalidManifest, parse
from tickwheel_operator.cli.manifests import STANDARD_INPUT, standard_input
from tickwheel_operator.cli.options import Output, structured
from tickwheel_operator.engine.cron import UnknownZoneError, zone_named

if TYPE_CHECKING:
    from tickwheel_operator.cli.ics import Days

__all__ = ["calendar"]

_YEARS_AHEAD = 3
_SHOWN = 5
_DATE = click.DateTime(["%Y-%m-%d"])
_NAMESPACE_OF_NONE = "default"
_NOBODYS_ZONES = ("UTC", "Etc/UTC", "GMT", "Etc/GMT")
"""Those that a file has where nobody chose one. A holiday of these would be one day in no country."""


@click.group()
def calendar() -> None:
    """Make Calendars from files of others."""


@calendar.command(name="import", short_help="Print a Calendar made from an iCalendar file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--name", required=True, help="The name of the Calendar.")
@click.option("-n", "--namespace", help="Its namespace.", show_default="none: that of kubectl apply")
@click.option(
    "--time-zone", "zone_name", help="The IANA zone that its days begin and end in.", show_default="the file's"
)
@click.option("--from", "first", type=_DATE, help="The first day.", show_default="1 January of this year")
@click.option("--to", "last", type=_DATE, help="The last day.", show_default=f"31 December, {_YEARS_AHEAD} years on")
@click.option(
    "--timed",
    type=click.Choice(["refuse", "skip", "days"]),
    default="refuse",
    show_default=True,
    help="What becomes of events with times of day: an error, nothing, or the whole days that they touch.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice([Output.YAML, Output.JSON], case_sensitive=False),
    default=Output.YAML,
    show_default="yaml",
    help="How to print.",
)
def import_(
    file: Path,
    name: str,
    namespace: str | None,
    zone_name: str | None,
    first: datetime | None,
    last: datetime | None,
    timed: str,
    output: Output,
) -> None:
    """Print a Calendar with the all-day events of FILE, an iCalendar file (.ics), or - for the standard input.

    Recurring events are expanded from --from to --to, both included; cancelled ones are left out. Days that follow on
    each other become ranges. Apply it with: tickwheel calendar import FILE --name NAME | kubectl apply -f -
    """
    # The library takes a tenth of a second to load, which no other command should pay.
    from tickwheel_operator.cli.ics import IcsError, days_of, joined

    today = datetime.now(UTC).date()
    begin = first.date() if first else date(today.year, 1, 1)
    end = last.date() if last else date(begin.year + _YEARS_AHEAD, 12, 31)
    if end < begin:
        raise click.BadParameter(f"{end} is before the first day, {begin}", param_hint="'--to'")
    if zone_name is not None:
        try:
            zone_named(zone_name)
        except UnknownZoneError as error:
            raise click.BadParameter(str(error), param_hint="'--time-zone'") from error
    try:
        raw = standard_input() if file == STANDARD_INPUT else file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from error
    try:
        # Titles alone can be other than ASCII, and nothing depends on them.
        found = days_of(raw.decode("utf-8-sig", errors="replace"), begin, end, zone_name)
    except IcsError as error:
        raise click.ClickException(f"{file}: {error}") from error
    if found.timed:
        _tell_timed(file, found.timed, timed)
        if timed == "days":
            found.days |= {day for days in found.timed.values() for day in days}
    if not found.days:
        raise click.ClickException(f"{file}: none of its {found.events} events has a day from {begin} to {end}")
    zone = zone_name or found.zone or "UTC"
    if zone_name is None and zone in _NOBODYS_ZONES:
        click.echo(
            f"warning: {file} {_why_utc(found)}: its days begin and end in {zone}; --time-zone says another", err=True
        )
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    spec = {"timeZone": zone, "dates": joined(found.days)}
    click.echo(structured(_checked({"metadata": metadata, "spec": spec}), output))


def _why_utc(found: Days) -> str:
    if found.zone:
        return f"is for {found.zone}, as publishers write it whatever the country"
    if found.zone_name:
        return f"is for {found.zone_name!r}, which is not the name of an IANA time zone"
    return "names no time zone"


def _tell_timed(file: Path, events: dict[str, set[date]], timed: str) -> None:
    titles = [f"'{title}'" for title in list(events)[:_SHOWN]]
    more = f" and {len(events) - _SHOWN} more" if len(events) > _SHOWN else ""
    told = f"{file}: {', '.join(titles)}{more} have times of day, and a Calendar has whole days"
    if timed == "refuse":
        raise click.ClickException(f"{told}; --timed=days takes the whole days, --timed=skip leaves these events out")
    click.echo(f"warning: {told}; {'taken as whole days' if timed == 'days' else 'left out'}", err=True)


def _checked(rest: dict[str, Any]) -> dict[str, Any]:
    """The manifest, as the operator will take it."""
    manifest = {"apiVersion": API_VERSION, "kind": "Calendar", **rest}
    try:
        parse({**manifest, "metadata": {"namespace": _NAMESPACE_OF_NONE, **rest["metadata"]}})
    except InvalidManifest as invalid:
        told = []
        for fault in invalid.faults:
            match fault.path:
                case "spec.dates":
                    told.append(
                        f"{fault} (days that follow on each other count once); shorten the span with --from and --to, "
                        "or make several Calendars: a trigger may name 16"
                    )
                case "metadata.name":
                    told.append(f"--name: {fault.message}")
                case _:
                    told.append(str(fault))
        raise click.ClickException("; ".join(told)) from invalid
    return manifest
