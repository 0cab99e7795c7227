"""What the load generator itself costs, against a server that does nothing (`tests/answering.py`, one process).

    python benchmarks/loadtest.py [--seconds 20] [--users 10000] [--json FILE] [--check]

paced: --users users with one assessment per 5 s each.  flat out: 64 connections, each sending as soon as it is
answered, assessments of ever different businesses, or always the same request.  cores: that the generator's process
took, measured by itself; per_core: requests per second of its CPU, which a busy neighbour hardly changes.  --check ends
with 1 where it takes more than 0.3 of a core at 2,000 requests/s, or makes fewer than 30,000 requests in a second of
its CPU flat out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from answering import HOST, answering

from app.loadtest import running
from app.loadtest.running import Setup
from app.loadtest.scenarios import Phase, Plan
from app.loadtest.service import found

MOST_CORES = 0.3
LEAST_PER_SECOND = 30_000
WARM_S = 3


def measured(users: int, seconds: int, kind: str, flat_out: bool) -> dict[str, Any]:
    """One run. Seconds in which it gets warm are left out."""
    with answering() as server:
        plan = Plan("cost", "", (Phase(seconds + WARM_S, users, users),), flat_out=flat_out)
        setup = Setup(found(f"http://{HOST}:{server.port}", ""), {kind: 1.0}, "bench")
        scenario = running.run(plan, setup, None, lambda glance: None)
    assert not scenario.errors, scenario.routes
    kept = scenario.seconds[WARM_S:]
    per_second, cores = (mean(getattr(second, name) for second in kept) for name in ("answered", "generator_cpu"))
    return {
        "users": users,
        "per_second": round(per_second),
        "cores": round(cores, 3),
        "per_core": round(per_second / cores),
        "p50_ms": scenario.latency.p50,
        "p99_ms": scenario.latency.p99,
        "late_p99_ms": round(mean(second.late_p99_ms for second in kept), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    figures = {
        "paced": measured(options.users, options.seconds, "assess", False),
        "flat out, different": measured(64, options.seconds, "assess", True),
        "flat out, the same": measured(64, options.seconds, "health", True),
    }
    for name, found_ in figures.items():
        print(f"{name:19}", "  ".join(f"{key} {value:,}" for key, value in found_.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    good = figures["paced"]["cores"] <= MOST_CORES and figures["flat out, different"]["per_core"] >= LEAST_PER_SECOND
    return int(options.check and not good)


if __name__ == "__main__":
    sys.exit(main())
