"""Scores the companies of a published file through the batch endpoint and reports how the answers rank the failed ones.

    python benchmarks/score_companies.py 5year.arff        starts a service of its own, records in a temporary folder
    python benchmarks/score_companies.py 5year.arff --url http://127.0.0.1:8080 [--dry-run] [--json FILE]

The file: Polish companies bankruptcy data, UCI 365, see companies.py for source and for how statements are rebuilt.
Higher scores mean more risk, so an AUC above .5 is a ranking that helps. Z'' alone is read from `distress` of a second
pass, a dry run with explain=full; where it cannot be computed a company stands at the median.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
from companies import Column, Labels, auc, failure_rates, gini, ks, load
from machine import Machine, machine
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from servers import started

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from service import KEY

from app import wire

BATCH = 1000
TENTHS = 10
PATH = "/v1/assessments/batch"
PACKAGES = ("granian", "msgspec", "numpy")
LEVELS = ("low", "medium", "high", "critical")


class Ranking(Struct, frozen=True):
    """How a number ranks the companies that failed. known: of how many companies it was known."""

    auc: float
    gini: float
    ks: float
    known: int


class Group(Struct, frozen=True):
    """Companies of one level or one tenth. least, most: the lowest and highest score in it."""

    name: str
    companies: int
    failed: int
    failure_rate: float
    least: float
    most: float


class Report(Struct, frozen=True):
    """What came of a file. seconds: of the first pass, answers decoded by the client."""

    machine: Machine
    file: str
    model: str
    companies: int
    failed: int
    scored: int
    refused: int
    first_problem: wire.Problem | None
    recorded: bool
    seconds: float
    per_second: float
    server_seconds: float
    rankings: dict[str, Ranking]
    levels: list[Group]
    financial_tenths: list[Group]
    score_tenths: list[Group]


class Service:
    """The batch endpoint of a running service. seconds: spent between the last byte sent and the last one received."""

    def __init__(self, url: str, key: str) -> None:
        place = urlsplit(url)
        if place.scheme != "http" or place.hostname is None:
            raise SystemExit(f"--url must be like http://127.0.0.1:8080, not {url}")
        self._connection = http.client.HTTPConnection(place.hostname, place.port or 80, timeout=60)
        self._headers = {"Content-Type": "application/json", "X-API-Key": key}
        self._decode = msgspec.json.Decoder(wire.BatchAnswer).decode
        self.seconds = 0.0

    def score(self, profiles: Sequence[dict[str, Any]], *, explain: str, dry_run: bool) -> list[wire.BatchItem]:
        """Every profile's answer, in order. Raises SystemExit for an answer that is not 200."""
        items: list[wire.BatchItem] = []
        for start in range(0, len(profiles), BATCH):
            body = msgspec.json.encode({"items": profiles[start : start + BATCH]})
            query = f"?explain={explain}&dry_run={'true' if dry_run else 'false'}"
            began = time.perf_counter()
            self._connection.request("POST", PATH + query, body, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
            self.seconds += time.perf_counter() - began
            if answer.status != 200:
                raise SystemExit(f"the service answered {answer.status}: {text[:500].decode(errors='replace')}")
            items += self._decode(text).items
        return items


def score_file(path: Path, url: str, key: str, dry_run: bool) -> Report:
    """Score all companies of a file at a running service."""
    about = machine(PACKAGES)
    profiles, failed = load(path)
    service = Service(url, key)
    began = time.perf_counter()
    items = service.score(profiles, explain="top", dry_run=dry_run)
    seconds, server_seconds = time.perf_counter() - began, service.seconds
    full = service.score(profiles, explain="full", dry_run=True)
    scored = [item.assessment for item in items if item.assessment is not None]
    problems = [item.problem for item in items if item.problem is not None]
    if not scored:
        raise SystemExit(f"not one company was scored; the first problem: {problems[0] if problems else None}")
    outcome = failed[np.array([item.assessment is not None for item in items])]
    financial = np.array([_points(assessment, "financial") for assessment in scored])
    total = np.array([assessment.score for assessment in scored])
    distress = np.array([_z_double_prime(item.assessment) for item in full if item.assessment is not None])
    return Report(
        about,
        path.name,
        f"{scored[0].model.id}@{scored[0].model.version}",
        len(profiles),
        int(failed.sum()),
        len(scored),
        len(problems),
        problems[0] if problems else None,
        not dry_run,
        round(seconds, 3),
        round(len(profiles) / seconds, 1),
        round(server_seconds, 3),
        {
            "financial points": _ranking(financial, outcome),
            "whole score": _ranking(total, outcome),
            "Z'' alone": _ranking(-distress, outcome),
        },
        _levels([assessment.level for assessment in scored], total, outcome),
        _tenths(financial, outcome),
        _tenths(total, outcome),
    )


def _points(assessment: wire.Assessment, category: str) -> float:
    return next(one.points for one in assessment.categories if one.name == category)


def _z_double_prime(assessment: wire.Assessment) -> float:
    value = next(one.value for one in assessment.distress if one.model == "altman_z_double_prime")
    return float("nan") if value is None else value


def _ranking(values: Column, failed: Labels) -> Ranking:
    known = ~np.isnan(values)
    filled = np.where(known, values, np.median(values[known]))
    area, coefficient, gap = auc(filled, failed), gini(filled, failed), ks(filled, failed)
    return Ranking(round(area, 4), round(coefficient, 4), round(gap, 4), int(known.sum()))


def _levels(levels: Sequence[str], score: Column, failed: Labels) -> list[Group]:
    named = np.asarray(levels)
    rates = failure_rates(levels, failed)
    return [_group(level, score[named == level], failed[named == level]) for level in LEVELS if level in rates]


def _tenths(values: Column, failed: Labels) -> list[Group]:
    """Ten groups of equal size from the lowest to the highest; a cut may part companies of equal value."""
    order = np.argsort(values, kind="stable")
    parts = np.array_split(order, TENTHS)
    return [_group(f"tenth {place}", values[part], failed[part]) for place, part in enumerate(parts, 1) if len(part)]


def _group(name: str, values: Column, failed: Labels) -> Group:
    least, most = round(float(values.min()), 2), round(float(values.max()), 2)
    return Group(name, len(failed), int(failed.sum()), round(float(failed.mean()), 4), least, most)


def show(report: Report) -> None:
    """The report as people read it."""
    out = Console()
    out.print(report.machine.line(), highlight=False)
    kept = "recorded" if report.recorded else "dry run"
    out.print(
        f"{report.file}: {report.companies} companies, {report.failed} failed; {report.scored} scored "
        f"under {report.model}, {report.refused} refused, {kept}; {report.seconds:.2f} s, "
        f"{report.per_second:,.0f} assessments/s ({report.server_seconds:.2f} s of it waiting for the service)",
        highlight=False,
    )
    if report.first_problem is not None:
        out.print(f"first problem: {report.first_problem}", markup=False)
    table = Table("", *(("AUC", "Gini", "KS", "known")), title="ranking", title_justify="left")
    for name, one in report.rankings.items():
        table.add_row(name, f"{one.auc:.4f}", f"{one.gini:.4f}", f"{one.ks:.4f}", str(one.known))
    out.print(table)
    for title, groups in (
        ("level, with the whole score", report.levels),
        ("tenths of the financial points", report.financial_tenths),
        ("tenths of the whole score", report.score_tenths),
    ):
        table = Table("", "companies", "failed", "failure rate", "least", "most", title=title, title_justify="left")
        for group in groups:
            counts = (str(group.companies), str(group.failed), f"{group.failure_rate:.2%}")
            table.add_row(group.name, *counts, f"{group.least:g}", f"{group.most:g}")
        out.print(table)


@contextlib.contextmanager
def own_service() -> Iterator[str]:
    """A service on a free port with its records in a temporary folder, gone with the block."""
    with tempfile.TemporaryDirectory(prefix="kyb-companies-") as folder, started("service", Path(folder)) as url:
        yield url


def main() -> None:
    parser = argparse.ArgumentParser(description="Score the companies of a file and measure the ranking.")
    parser.add_argument("arff", type=Path, help="a file of the Polish companies bankruptcy data (UCI 365)")
    parser.add_argument("--url", help="of a running service; without it one is started")
    parser.add_argument("--key", default=KEY, help="an API key of that service")
    parser.add_argument("--dry-run", action="store_true", help="record nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to a file")
    options = parser.parse_args()
    if not options.arff.is_file():
        parser.error(f"there is no file {options.arff}")
    with contextlib.nullcontext(options.url) if options.url else own_service() as url:
        report = score_file(options.arff, url, options.key, options.dry_run)
    show(report)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


if __name__ == "__main__":
    main()
