"""scripts/deploy_10k_scale.sh and Railway, by a stand-in for its command line: nothing here has run on Railway."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deploying import FIRST, NAME, SECOND, Ended, Machine, ended, in_order, without_database
from kube_cluster import Image
from service import HOST, KEY, ROOT, Service, mint, serving, wait_until

CLI = '#!/bin/sh\nexec {python} {program} "$@"\n'


class Railway:
    """The stand-in, installed on a machine, with one deployment that serves."""

    def __init__(self, machine: Machine) -> None:
        self.file = machine.folder / "railway"
        program = Path(__file__).with_name("railway_cli.py")
        machine.install("railway", CLI.format(python=sys.executable, program=program))
        serving = [{"id": "d1", "status": "SUCCESS"}]
        self.tell(deployments=serving, up="SUCCESS", up_code=0, rollback="SUCCESS", logged_in=True, calls=[])

    @property
    def state(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.file.read_text())
        return told

    @property
    def statuses(self) -> dict[str, str]:
        return {one["id"]: one["status"] for one in self.state["deployments"]}

    @property
    def commands(self) -> list[str]:
        return [call[0] for call in self.state["calls"]]

    def tell(self, **told: Any) -> None:
        known = self.state if self.file.exists() else {}
        self.file.write_text(json.dumps({**known, **told}))


@pytest.fixture
def railway(machine: Machine) -> Railway:
    return Railway(machine)


def start(machine: Machine, *arguments: str, key: str = KEY) -> subprocess.Popen[str]:
    state = str(machine.folder / "railway")
    return machine.start("--railway", "--timeout", "3", *arguments, key=key, RAILWAY_STATE=state)


def run(machine: Machine, *arguments: str, key: str = KEY) -> Ended:
    return ended(start(machine, *arguments, key=key))


def url(service: Service) -> str:
    return f"http://{HOST}:{service.port}"


def test_a_deployment_that_serves_is_verified(machine: Machine, railway: Railway, service: Service) -> None:
    done = run(machine, "--railway-url", url(service))
    assert done.code == 0, done
    assert in_order(done.said, "deploying", "ready:", "assessment: ok", "DEPLOYED on Railway: d2, verified")
    assert railway.statuses == {"d2": "SUCCESS", "d1": "REMOVED"}
    assert ["up", "--ci", "--service", NAME] in railway.state["calls"]


def test_without_an_address_it_says_that_nothing_is_verified(machine: Machine, railway: Railway) -> None:
    done = run(machine)
    assert done.code == 0, done
    assert "nothing is known of it but" in done.said
    assert "verified" not in done.said.partition("DEPLOYED on Railway: d2")[2].partition("\n")[0]


@pytest.mark.parametrize("status", ["FAILED", "CRASHED", "BUILDING"])
def test_the_end_of_the_upload_is_not_taken_for_success(machine: Machine, railway: Railway, status: str) -> None:
    railway.tell(up=status)
    done = run(machine)
    assert done.code == 1, done
    assert f"NOT DEPLOYED: the deployment d2 is {'still ' * (status == 'BUILDING')}{status}" in done.said
    assert "What served before (d1) goes on serving" in done.said


def test_nor_is_a_lost_log_taken_for_failure(machine: Machine, railway: Railway) -> None:
    railway.tell(up_code=1)
    done = run(machine)
    assert done.code == 0, done
    assert "`railway up` ended with 1" in done.said


def test_an_upload_that_makes_no_deployment_is_told(machine: Machine, railway: Railway) -> None:
    railway.tell(up="refused")
    done = run(machine)
    assert done.code == 1, done
    assert "Railway tells of no new deployment" in done.said


def test_what_is_not_healthy_is_rolled_back(machine: Machine, railway: Railway, tmp_path: Path) -> None:
    with serving(tmp_path / "second") as second:
        with without_database(second):
            process = start(machine, "--railway-url", url(second), "--timeout", "60")
            wait_until(lambda: "api" in railway.commands, "it goes back", 120)
        done = ended(process)
    assert done.code == 1, done
    assert in_order(
        done.said,
        "it has no database",
        "rolling back to d1",
        "database: there",
        "ROLLED BACK on Railway to what d1 was",
    )
    assert railway.statuses == {"d3": "SUCCESS", "d2": "REMOVED", "d1": "REMOVED"}
    assert next(call for call in railway.state["calls"] if call[0] == "api")[-1] == "id=d1"


def test_what_is_not_healthy_after_the_rollback_either_calls_for_somebody(
    machine: Machine, railway: Railway, service: Service
) -> None:
    done = run(machine, "--railway-url", url(service), key=mint("test").text)
    assert done.code == 4, done
    assert in_order(done.said, "401", "rolling back to d1", "AND IT IS NOT HEALTHY EITHER")


def test_a_rollback_that_railway_refuses_calls_for_somebody(
    machine: Machine, railway: Railway, service: Service
) -> None:
    railway.tell(rollback="refused")
    done = run(machine, "--railway-url", url(service), key=mint("test").text)
    assert done.code == 4, done
    assert in_order(done.said, "401", "NOT ROLLED BACK: Railway refused", "Do it in Railway's dashboard")


@pytest.mark.parametrize("status", ["FAILED", "DEPLOYING"])
def test_a_rollback_that_does_not_get_to_serve_calls_for_somebody(
    machine: Machine, railway: Railway, service: Service, status: str
) -> None:
    railway.tell(rollback=status)
    done = run(machine, "--railway-url", url(service), key=mint("test").text)
    assert done.code == 4, done
    assert in_order(done.said, "401", "NOT ROLLED BACK: the deployment d3 is", status, "Do it in Railway's dashboard")


def test_rolling_back_by_hand(machine: Machine, railway: Railway, service: Service) -> None:
    only = run(machine, "--rollback")
    assert only.code == 1
    assert "no deployment before the one that serves" in only.said
    before = [("d4", "SUCCESS"), ("d3", "FAILED"), ("d2", "REMOVED"), ("d1", "REMOVED")]
    railway.tell(deployments=[{"id": id, "status": status} for id, status in before])
    done = run(machine, "--rollback", "--railway-url", url(service))
    assert done.code == 0, done
    assert "ROLLED BACK on Railway to what d2 was, verified" in done.said


def test_who_is_not_logged_in_is_told_how(machine: Machine, railway: Railway) -> None:
    railway.tell(logged_in=False)
    done = run(machine)
    assert done.code == 3, done
    assert in_order(done.said, "Unauthorized", "railway login", "RAILWAY_TOKEN")
    assert "up" not in railway.commands


def test_without_the_command_line_it_is_told_where_it_comes_from(machine: Machine) -> None:
    done = machine.run("--railway")
    assert done.code == 3, done
    assert "there is no railway on this machine; install it" in done.said


def test_the_status(machine: Machine, railway: Railway) -> None:
    done = run(machine, "--status")
    assert done.code == 0, done
    assert "WHOLE on Railway: d1 SUCCESS" in done.said
    railway.tell(deployments=[{"id": "d2", "status": "CRASHED"}])
    assert run(machine, "--status").code == 1


def test_a_dry_run_uploads_nothing(machine: Machine, railway: Railway) -> None:
    done = run(machine, "--dry-run")
    assert done.code == 0, done
    assert f"would run in {ROOT}: railway up --ci --service {NAME}" in done.said
    assert "up" not in railway.commands


def test_both_in_turn(machine: Machine, railway: Railway, service: Service) -> None:
    machine.release("2.0.0")
    done = run(machine, "--kubernetes", "--railway-url", url(service), "--timeout", "60")
    assert done.code == 0, done
    assert in_order(done.said, f"DEPLOYED: {SECOND}", "Railway: deploying", "DEPLOYED on Railway: d2")


def test_railway_is_left_alone_where_kubernetes_failed(machine: Machine, railway: Railway) -> None:
    machine.release("2.0.0")
    machine.cluster.images[SECOND] = Image("never ready")
    done = run(machine, "--kubernetes")
    assert done.code == 1, done
    assert in_order(done.said, "ROLLED BACK to revision 1", "Railway was not begun")
    assert "up" not in railway.commands


def test_kubernetes_is_told_of_where_railway_failed(machine: Machine, railway: Railway) -> None:
    machine.release("2.0.0")
    railway.tell(up="FAILED")
    done = run(machine, "--kubernetes", "--timeout", "30")
    assert done.code == 1, done
    assert in_order(done.said, f"DEPLOYED: {SECOND}", "NOT DEPLOYED", "Kubernetes stays at the new version")


def test_both_are_looked_at_before_either_is_touched(machine: Machine, railway: Railway) -> None:
    railway.tell(logged_in=False)
    done = run(machine, "--kubernetes")
    assert done.code == 3, done
    assert not machine.cluster.asked
    assert machine.image == FIRST
