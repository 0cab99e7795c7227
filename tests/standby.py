"""A real standby of a PostgreSQL of the tests, which follows it and takes no writes."""

from __future__ import annotations

from databases import (
    ADMIN,
    PASSWORD,
    Postgres,
    Server,
    postgres_programs,
    run_as,
)
from proxy import HOST


class Standby(Postgres):
    """Of a primary that runs. name: what the primary knows it by."""

    def __init__(self, primary: Postgres, name: str = "standby") -> None:
        Server.__init__(self)
        self.data = self.folder / "data"
        self._program = postgres_programs() / "postgres"
        self._settings = {**primary._settings, "port": str(self.port), "cluster_name": name}
        source = f"postgresql://{ADMIN}:{PASSWORD}@{HOST}:{primary.port}/?application_name={name}"
        run_as(
            self.account,
            *(postgres_programs() / "pg_basebackup", "-d", source, "-D", self.data),
            *("-R", "-X", "stream", "-c", "fast", "--no-sync"),
        )
