"""How cost and memory grow with what a service has to hold, each curve drawn as a picture.

    python benchmarks/curves.py FOLDER                        all curves; about 10 min and 2 GB of disk
    python benchmarks/curves.py FOLDER --scale 0.1            a tenth of the times, and only the smaller sizes
    python benchmarks/curves.py FOLDER connections rows=10000,10000000

connections  users with one each, all together at the same rate; without --scale 100 to 15,000
rows         assessments in PostgreSQL; also the database's CPU time, and what single acts on the tables take
names        generated names on a list that every name is looked for in
tenants      each with a key of its own
workers      1 to as many as there are cores, flat out: the load generator shares the cores

Each size is a service of its own, started for it and asked by the load generator of `kyb loadtest` for assessments of
ever different businesses, recorded in SQLite except for `rows`. The cost of a request is the service's CPU time as its
/metrics tell it ÷ requests answered; memory is that of its processes at the end. In FOLDER each curve leaves a .json
and its pictures; --draw makes the pictures again from the .json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import growth
import msgspec
import uvloop
from growing import WORDS, Curve, Point, charts, each, merged, scaled
from machine import machine
from pictures import picture
from rich.console import Console
from rich.table import Table
from sizes import MEASURES, SIZES, Bench

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from databases import Postgres, database_name, drop_database

from app.loadtest.figures import number

SECONDS = 20
LEAST_SECONDS = 5


def chosen(told: Sequence[str], scale: float) -> dict[str, list[int]]:
    """The sizes of each curve that is named, as `connections` or `connections=100,1000`. Raises ValueError."""
    found = {}
    for text in told or MEASURES:
        name, _, sizes = text.partition("=")
        if name not in MEASURES:
            raise ValueError(f"there is no curve {name!r}; take {', '.join(MEASURES)}")
        found[name] = sorted({int(size) for size in sizes.split(",")}) if sizes else scaled(SIZES[name], scale)
    return found


def measured(name: str, sizes: Sequence[int], options: argparse.Namespace) -> Curve:
    about = machine(("granian", "uvloop", "msgspec"))
    seconds = max(LEAST_SECONDS, round(SECONDS * options.scale))
    with ExitStack() as servers:
        server = servers.enter_context(Postgres()) if name == "rows" else None
        bench = Bench(options.rate, seconds, max(sizes), server)
        taken: dict[int, list[Point]] = {size: [] for size in sizes}
        for _ in range(options.rounds):
            for size in sizes:
                taken[size].append(MEASURES[name](size, bench))
                Console(stderr=True, highlight=False).print(f"{name} {size:,}: {taken[size][-1]}")
        points = [merged(taken[size]) for size in sizes]
        if server is not None:
            tables = [bench.tables[size] for size in sizes]
            acts = uvloop.run(growth.measure(tables, rounds=3, turns=20))
            for place, one in enumerate(points):
                spent = {act: round(median(times[place] for times in rounds), 3) for act, rounds in acts.items()}
                points[place] = msgspec.structs.replace(one, acts_ms=spent)
            for table in tables:
                drop_database(server.admin_url(), database_name(table.url))
    return Curve(name, None if name == "workers" else options.rate, seconds, about, points)


def draw(curve: Curve, folder: Path) -> None:
    for chart in charts(curve):
        (folder / f"{chart.name}.svg").write_text(picture(chart, WORDS[curve.name].below), encoding="utf-8")


def show(curve: Curve) -> None:
    about = "\n".join(filter(None, (each(curve), curve.machine.line())))
    table = Table(title=curve.name, caption=about, title_justify="left", caption_justify="left")
    acts = list(curve.points[0].acts_ms)
    for heading in ("size", "requests/s", "µs a request", "database µs", "p50 ms", "p99 ms", "MB", *acts, "errors"):
        table.add_column(heading, justify="right")
    for one in curve.points:
        figures = (one.per_second, one.service_us, one.database_us, one.p50_ms, one.p99_ms)
        megabytes = None if one.memory is None else one.memory / 1e6
        shown = ["" if value is None else number(value) for value in (*figures, megabytes, *one.acts_ms.values())]
        table.add_row(f"{one.size:,}", *shown, f"{one.errors}{' invalid' if one.invalid else ''}")
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("curves", nargs="*", metavar="CURVE[=SIZE,SIZE]", help=", ".join(MEASURES))
    parser.add_argument("--scale", type=float, default=1.0, help="of times, and of the largest sizes")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second, of all users together")
    parser.add_argument("--rounds", type=int, default=1, help="of all sizes of a curve, in turns")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_intermixed_args()
    try:
        wanted = chosen(options.curves, options.scale)
    except ValueError as error:
        parser.error(str(error))
    options.folder.mkdir(parents=True, exist_ok=True)
    wrong = False
    for name, sizes in wanted.items():
        file = options.folder / f"{name}.json"
        if options.draw:
            if not file.exists():
                continue
            curve = msgspec.json.decode(file.read_bytes(), type=Curve)
        else:
            curve = measured(name, sizes, options)
            file.write_bytes(msgspec.json.format(msgspec.json.encode(curve)) + b"\n")
        draw(curve, options.folder)
        show(curve)
        wrong |= any(one.errors or one.invalid for one in curve.points)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
