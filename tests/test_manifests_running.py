"""The manifests' own settings at work: PgBouncer and service are started with them, on real databases, and asked."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import asyncpg
import click
import pytest
import trustme
from databases import PASSWORD, USER, PgBouncer, Postgres, Valkey, database_name, query, write
from doctored import examined
from encrypted import Encrypted
from manifests import SERVICE, Document, manifests, ports, probes, with_components
from monitored import names_of
from proxy import HOST
from service import SECRETS, Service, Wire, environment, named, serving, unique

from app.cli.commands import kyb
from app.telemetry.catalogue import METRICS

TEN_K = "overlays/10k"
KYB = Path(sys.executable).parent / "kyb"
COMMAND_LIMIT_S = 60.0
PLACE = "/etc/pgbouncer"
NODE = {"User-Agent": "kube-probe/1.37", "Accept": "*/*", "Connection": "close"}
"""What a probe of a node sends."""

pytestmark = pytest.mark.skipif(not PgBouncer.available(), reason="pgbouncer is not installed")


class Pooler(PgBouncer):
    """PgBouncer as the manifests set it up, but for addresses of this machine."""

    def __init__(self, database_url: str, port: int, authority: trustme.CA) -> None:
        super().__init__(port)
        shipped = manifests(TEN_K).one("ConfigMap", "pgbouncer")["data"]["databases.ini"]
        assert re.search(r"^kyb = host=\S+ port=5432 dbname=kyb$", shipped, re.MULTILINE)
        for name, text in {
            "databases.ini": f"[databases]\nkyb = host=localhost port={port} dbname={database_name(database_url)}\n",
            "userlist.txt": f'"{USER}" "{PASSWORD}"\n',
            "ca.crt": authority.cert_pem.bytes().decode(),
        }.items():
            write(self.folder / name, text, self.account)

    def _configuration(self, upstream_port: int, pool_size: int) -> str:
        text: str = manifests(TEN_K).one("ConfigMap", "pgbouncer")["data"]["pgbouncer.ini"]
        said = ports(manifests(TEN_K).pod("Deployment", "pgbouncer"))["postgresql"]
        for old, new in (
            ("listen_addr = *", f"listen_addr = {HOST}"),
            (f"listen_port = {said}", f"listen_port = {self.port}"),
        ):
            assert text.count(old) == 1
            text = text.replace(old, new)
        assert text.count(PLACE) == 3
        return text.replace(PLACE, str(self.folder))


class Running(NamedTuple):
    """A pod's service. variables: what its container is started with."""

    service: Service
    variables: Mapping[str, str]
    postgres: Postgres
    encrypted: Encrypted


def command(variables: Mapping[str, str], *words: str) -> str:
    """What a `kyb` command says. Raises AssertionError when it fails."""
    done = subprocess.run(
        [KYB, *words],
        env=environment(variables),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("pod")
    (folder / "tmp").mkdir()
    authority = trustme.CA()
    with Postgres() as postgres, Encrypted(postgres.port, authority) as encrypted, Valkey() as valkey:
        url = postgres.create_database()
        migrate(url)
        with Pooler(url, encrypted.port, authority) as pooler:
            secret = {"DATABASE_URL": pooler.url("kyb"), "REDIS_URL": valkey.url(), **SECRETS}
            told = {**manifests(TEN_K).environment(folder), **secret, "TMPDIR": str(folder / "tmp")}
            # Nothing of these tests listens beyond this machine.
            with serving(folder, **{**told, "HOST": HOST}) as service:
                yield Running(service, service.settings, postgres, encrypted)


def migrate(url: str) -> None:
    """As the migration does."""
    (container,) = manifests("migration").pod("Job", f"{SERVICE}-migrate").spec["containers"]
    assert [entry["name"] for entry in container["env"]] == ["DATABASE_URL"]
    program, *words = container["command"]
    assert program == "kyb"
    assert "schema none" in command({"DATABASE_URL": url}, *words)


def test_every_probe_is_answered(running: Running) -> None:
    for probe in probes(manifests(TEN_K).pod("Deployment")):
        path = probe["httpGet"]["path"]
        lines = [f"GET {path} HTTP/1.1", f"Host: 10.244.1.7:{running.service.port}"]
        lines += [f"{name}: {value}" for name, value in NODE.items()]
        with Wire(running.service.port) as wire:
            wire.write("\r\n".join([*lines, "", ""]).encode())
            assert wire.answer().status == 200, path


def test_what_is_recorded_comes_through_pgbouncer_over_tls(running: Running) -> None:
    client = running.service.client()
    recorded = client.recorded(named(unique("Pod")))
    assert client.get(f"/v1/assessments/{recorded['id']}").status == 200
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
    ((held,),) = running.postgres.query("postgres", sessions, USER)
    assert 1 <= held <= running.encrypted.connections


def test_pgbouncer_refuses_a_server_whose_certificate_nobody_vouches_for(running: Running) -> None:
    with (
        Encrypted(running.postgres.port, trustme.CA()) as foreign,
        Pooler(running.variables["DATABASE_URL"], foreign.port, trustme.CA()) as pooler,
    ):
        with pytest.raises(asyncpg.PostgresError):
            query(pooler.url("kyb"), "SELECT 1")
        assert "certificate verify failed" in pooler.log()


def test_prometheus_reads_with_the_key_that_is_made_for_it(running: Running) -> None:
    made = command(running.variables, "keys", "create", "--name", "prometheus", "--role", "admin", "--scope", "monitor")
    endpoint = manifests(TEN_K).one("ServiceMonitor")["spec"]["endpoints"][0]
    caller = running.service.client(None)
    # Handed on by somebody, and so from elsewhere.
    away = {"X-Forwarded-For": "10.1.2.3"}
    assert caller.get(endpoint["path"], away).status == 401
    sent = {**away, "Authorization": f"{endpoint['authorization']['type']} {made}"}
    assert caller.get(endpoint["path"], sent).status == 200


def test_the_metric_that_may_scale_is_told(running: Running, tmp_path: Path) -> None:
    autoscaler = with_components(tmp_path, TEN_K, "requests-in-flight").one("HorizontalPodAutoscaler", f"{SERVICE}-hpa")
    wanted = autoscaler["spec"]["metrics"][-1]["pods"]["metric"]["name"]
    text = running.service.client().get("/metrics").body.decode()
    assert re.search(rf"^{wanted} \d", text, re.MULTILINE)
    assert any(wanted in names_of(metric) for metric in METRICS)


def test_nothing_is_written_but_where_a_pod_may_write(running: Running) -> None:
    folder = running.service.folder
    assert not Path(running.variables["DATA_DIR"]).exists()
    opened = {path for pid in [running.service.process.pid, *running.service.workers()] for path in written(pid)}
    allowed = (str(folder / "tmp"), "/dev/shm/kyb-metrics-")
    assert [path for path in opened if not path.startswith(allowed)] == [str(running.service.log)]


def written(pid: int) -> Iterator[str]:
    """The files that a process has open to write."""
    for descriptor in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            flags = int(re.findall(r"^flags:\s+(\d+)", descriptor.read_text(), re.MULTILINE)[0], 8)
            path = Path(f"/proc/{pid}/fd/{descriptor.name}").readlink()
        except FileNotFoundError:
            continue
        if flags & 3 and path.is_file():
            yield str(path)


def test_the_daily_deletion_works_as_it_is_written(running: Running) -> None:
    (container,) = manifests(TEN_K).pod("CronJob", "retention").spec["containers"]
    command(running.variables, *container["command"][1:])


@pytest.mark.parametrize("of", [TEN_K, "migration"])
def test_every_command_of_a_container_exists(of: str) -> None:
    for pod in manifests(of).pods():
        (container,) = pod.spec["containers"]
        program, *words = container["command"]
        if program != "kyb":
            assert pod.labels["app"] == "pgbouncer"
            continue
        found: click.Command = kyb
        for word in words:
            assert isinstance(found, click.Group)
            found = found.commands[word]


def test_the_toolbox_waits_to_be_used() -> None:
    (container,) = manifests("toolbox").pod("Pod", "kyb").spec["containers"]
    program, option, code = container["command"]
    assert (program, option) == ("python", "-c")
    told = [sys.executable, option, f"import signal; signal.pause = lambda: print('waits'); {code}"]
    assert subprocess.run(told, capture_output=True, text=True, check=True).stdout == "waits\n"


def test_doctor_finds_the_pools_large_enough(running: Running) -> None:
    findings = examined(running.variables, "db")
    judged: dict[str, Document] = {finding["about"]: finding for finding in findings}
    assert {"pooler clients", "pool"} <= set(judged)
    assert [one for name, one in judged.items() if name.startswith("pool") and one["verdict"] != "ok"] == []
