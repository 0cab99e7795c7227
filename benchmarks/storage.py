"""What an assessment takes in PostgreSQL: of its tables, of the audit trail, and of the log that standbys get.

    python benchmarks/storage.py [--rate 1000] [--seconds 20]

A service on an empty database is asked for assessments of ever different businesses by the load generator of
`kyb loadtest`. Bytes are the growth of the tables with their indexes and TOAST, and of the write-ahead log, ÷ the rows
that were recorded; of the log with a checkpoint before, so that it holds each page once in full.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
from machine import machine
from sizes import Bench, asked, served

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from databases import Postgres, migrated

SIZES = """\
SELECT substring(relname from '^[a-z]+'),
       sum(pg_total_relation_size(oid))::bigint
FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname ~ '^(assessments|audit|idempotency)'
GROUP BY 1"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1000, help="assessments a second")
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    with Postgres() as server:
        url = migrated(server.create_database())

        def sizes() -> dict[str, int]:
            return {str(name): int(size) for name, size in server.query(url, SIZES)}

        def log_bytes() -> int:
            return int(server.query(url, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")[0][0])

        server.query("postgres", "CHECKPOINT")
        before, log_before = sizes(), log_bytes()
        with served(DATABASE_URL=url) as service:
            asked(service, Bench(options.rate, options.seconds, 0))
        after, log_after = sizes(), log_bytes()
        [(rows, input_bytes)] = server.query(url, "SELECT count(*), avg(length(input))::int FROM assessments")
    each = {name: round((after[name] - before.get(name, 0)) / rows) for name in after}
    found = {"rows": rows, "input_bytes": input_bytes, **each, "log": round((log_after - log_before) / rows)}
    print(msgspec.json.format(msgspec.json.encode({"machine": machine(()), **found})).decode())


if __name__ == "__main__":
    main()
