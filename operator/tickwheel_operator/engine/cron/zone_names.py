"""Names of time zones that the IANA data does not have, and which of its zones people mean by them.

`zones` asks for the hint of an error; nothing here is ever accepted as a zone. The names of Windows and their zones are
those of the Unicode CLDR (windowsZones, territory 001; Copyright Unicode, Inc., Unicode License V3).
"""

from __future__ import annotations

from typing import Final

__all__ = ["meant_by"]

# "~" is " Standard Time".
_WINDOWS_TEXT: Final = (
    "AUS Central~=Australia/Darwin|AUS Eastern~=Australia/Sydney|Afghanistan~=Asia/Kabul|"
    "Alaskan~=America/Anchorage|Alberta~=America/Edmonton|Aleutian~=America/Adak|Altai~=Asia/Barnaul|"
    "Arab~=Asia/Riyadh|Arabian~=Asia/Dubai|Arabic~=Asia/Baghdad|Argentina~=America/Buenos_Aires|"
    "Astrakhan~=Europe/Astrakhan|Atlantic~=America/Halifax|Aus Central W.~=Australia/Eucla|Azerbaijan~=Asia/Baku|"
    "Azores~=Atlantic/Azores|Bahia~=America/Bahia|Bangladesh~=Asia/Dhaka|Belarus~=Europe/Minsk|"
    "Bougainville~=Pacific/Bougainville|British Columbia~=America/Vancouver|Canada Central~=America/Regina|"
    "Cape Verde~=Atlantic/Cape_Verde|Caucasus~=Asia/Yerevan|Cen. Australia~=Australia/Adelaide|"
    "Central America~=America/Guatemala|Central Asia~=Asia/Bishkek|Central Brazilian~=America/Cuiaba|"
    "Central Europe~=Europe/Budapest|Central European~=Europe/Warsaw|Central Pacific~=Pacific/Guadalcanal|"
    "Central~=America/Chicago|Central~ (Mexico)=America/Mexico_City|Chatham Islands~=Pacific/Chatham|"
    "China~=Asia/Shanghai|Cuba~=America/Havana|Dateline~=Etc/GMT+12|E. Africa~=Africa/Nairobi|"
    "E. Australia~=Australia/Brisbane|E. Europe~=Europe/Chisinau|E. South America~=America/Sao_Paulo|"
    "Easter Island~=Pacific/Easter|Eastern~=America/New_York|Eastern~ (Mexico)=America/Cancun|"
    "Egypt~=Africa/Cairo|Ekaterinburg~=Asia/Yekaterinburg|FLE~=Europe/Kiev|Fiji~=Pacific/Fiji|GMT~=Europe/London|"
    "GTB~=Europe/Bucharest|Georgian~=Asia/Tbilisi|Greenland~=America/Godthab|Greenwich~=Atlantic/Reykjavik|"
    "Haiti~=America/Port-au-Prince|Hawaiian~=Pacific/Honolulu|India~=Asia/Calcutta|Iran~=Asia/Tehran|"
    "Israel~=Asia/Jerusalem|Jordan~=Asia/Amman|Kaliningrad~=Europe/Kaliningrad|Korea~=Asia/Seoul|"
    "Libya~=Africa/Tripoli|Line Islands~=Pacific/Kiritimati|Lord Howe~=Australia/Lord_Howe|Magadan~=Asia/Magadan|"
    "Magallanes~=America/Punta_Arenas|Manitoba~=America/Winnipeg|Marquesas~=Pacific/Marquesas|"
    "Mauritius~=Indian/Mauritius|Middle East~=Asia/Beirut|Montevideo~=America/Montevideo|"
    "Morocco~=Africa/Casablanca|Mountain~=America/Denver|Mountain~ (Mexico)=America/Mazatlan|"
    "Myanmar~=Asia/Rangoon|N. Central Asia~=Asia/Novosibirsk|Namibia~=Africa/Windhoek|Nepal~=Asia/Katmandu|"
    "New Zealand~=Pacific/Auckland|Newfoundland~=America/St_Johns|Norfolk~=Pacific/Norfolk|"
    "North Asia East~=Asia/Irkutsk|North Asia~=Asia/Krasnoyarsk|North Korea~=Asia/Pyongyang|Omsk~=Asia/Omsk|"
    "Pacific SA~=America/Santiago|Pacific~=America/Los_Angeles|Pacific~ (Mexico)=America/Tijuana|"
    "Pakistan~=Asia/Karachi|Paraguay~=America/Asuncion|Qyzylorda~=Asia/Qyzylorda|Romance~=Europe/Paris|"
    "Russia Time Zone 10=Asia/Srednekolymsk|Russia Time Zone 11=Asia/Kamchatka|Russia Time Zone 3=Europe/Samara|"
    "Russian~=Europe/Moscow|SA Eastern~=America/Cayenne|SA Pacific~=America/Bogota|SA Western~=America/La_Paz|"
    "SE Asia~=Asia/Bangkok|Saint Pierre~=America/Miquelon|Sakhalin~=Asia/Sakhalin|Samoa~=Pacific/Apia|"
    "Sao Tome~=Africa/Sao_Tome|Saratov~=Europe/Saratov|Singapore~=Asia/Singapore|"
    "South Africa~=Africa/Johannesburg|South Sudan~=Africa/Juba|Sri Lanka~=Asia/Colombo|Sudan~=Africa/Khartoum|"
    "Syria~=Asia/Damascus|Taipei~=Asia/Taipei|Tasmania~=Australia/Hobart|Tocantins~=America/Araguaina|"
    "Tokyo~=Asia/Tokyo|Tomsk~=Asia/Tomsk|Tonga~=Pacific/Tongatapu|Transbaikal~=Asia/Chita|"
    "Turkey~=Europe/Istanbul|Turks And Caicos~=America/Grand_Turk|US Eastern~=America/Indianapolis|"
    "US Mountain~=America/Phoenix|UTC=Etc/UTC|UTC+12=Etc/GMT-12|UTC+13=Etc/GMT-13|UTC-02=Etc/GMT+2|"
    "UTC-08=Etc/GMT+8|UTC-09=Etc/GMT+9|UTC-11=Etc/GMT+11|Ulaanbaatar~=Asia/Ulaanbaatar|"
    "Venezuela~=America/Caracas|Vladivostok~=Asia/Vladivostok|Volgograd~=Europe/Volgograd|"
    "W. Australia~=Australia/Perth|W. Central Africa~=Africa/Lagos|W. Europe~=Europe/Berlin|"
    "W. Mongolia~=Asia/Hovd|West Asia~=Asia/Tashkent|West Bank~=Asia/Hebron|West Pacific~=Pacific/Port_Moresby|"
    "Yakutsk~=Asia/Yakutsk|Yukon~=America/Whitehorse"
)
_WINDOWS: Final = {
    name.replace("~", " Standard Time").casefold(): zone
    for name, _, zone in (entry.partition("=") for entry in _WINDOWS_TEXT.split("|"))
}
_ABBREVIATIONS: Final = {
    "PST": "America/Los_Angeles", "PDT": "America/Los_Angeles", "PT": "America/Los_Angeles", "MDT": "America/Denver",
    "CST": "America/Chicago or Asia/Shanghai", "CDT": "America/Chicago", "CT": "America/Chicago",
    "EDT": "America/New_York", "ET": "America/New_York", "AST": "America/Halifax or Asia/Riyadh",
    "ADT": "America/Halifax", "NST": "America/St_Johns", "NDT": "America/St_Johns", "AKST": "America/Anchorage",
    "AKDT": "America/Anchorage", "HDT": "America/Adak", "BRT": "America/Sao_Paulo",
    "ART": "America/Argentina/Buenos_Aires",
    "BST": "Europe/London or Asia/Dhaka", "IST": "Asia/Kolkata, Europe/Dublin or Asia/Jerusalem",
    "IDT": "Asia/Jerusalem", "CEST": "Europe/Berlin", "MEZ": "Europe/Berlin", "MESZ": "Europe/Berlin",
    "EEST": "Europe/Helsinki", "WEST": "Europe/Lisbon", "MSK": "Europe/Moscow", "TRT": "Europe/Istanbul",
    "SAST": "Africa/Johannesburg", "CAT": "Africa/Maputo", "EAT": "Africa/Nairobi", "WAT": "Africa/Lagos",
    "GST": "Asia/Dubai", "PKT": "Asia/Karachi", "ICT": "Asia/Bangkok", "WIB": "Asia/Jakarta", "SGT": "Asia/Singapore",
    "MYT": "Asia/Kuala_Lumpur", "HKT": "Asia/Hong_Kong", "PHT": "Asia/Manila", "JST": "Asia/Tokyo", "KST": "Asia/Seoul",
    "AWST": "Australia/Perth", "ACST": "Australia/Adelaide", "ACDT": "Australia/Adelaide", "AEST": "Australia/Sydney",
    "AEDT": "Australia/Sydney", "NZST": "Pacific/Auckland", "NZDT": "Pacific/Auckland",
}  # fmt: skip
_OF_THE_MACHINE: Final = frozenset(("local", "localtime", "system", "default"))


def meant_by(name: str) -> str:
    """A sentence about a name that Windows, clocks or programs use; empty: it is none that is known."""
    folded = " ".join(name.split()).casefold()
    if folded == "z":
        return "did you mean UTC?"
    if folded in _OF_THE_MACHINE:
        return "the operator's pods have no local time; name the zone of a city, for example Europe/Berlin, or UTC"
    standard = folded.replace(" daylight time", " standard time").replace(" summer time", " standard time")
    if not standard.endswith(" standard time") and standard.endswith(" time"):
        standard = standard.removesuffix(" time") + " standard time"
    if zone := _WINDOWS.get(folded) or _WINDOWS.get(standard):
        return f"it is a name of Windows; did you mean {zone}?"
    if zone := _ABBREVIATIONS.get(folded.upper()):
        return f"it is an abbreviation, which stands for several zones or for half a year; did you mean {zone}?"
    return ""
