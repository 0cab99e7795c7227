"""The load test at the end of scripts/deploy_10k_scale.sh: whose verdict is the script's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deploying import SECOND, Machine, in_order
from service import HOST, ROOT, Service

ANSWERS = '#!/bin/sh\necho "asked: $*, with the key $KYB_KEY"\nexit {code}\n'


def url(service: Service) -> str:
    return f"http://{HOST}:{service.port}"


def stand_in(machine: Machine, code: int) -> None:
    """Have the script stand beside a load test that only ends with this code."""
    root = machine.folder / "checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "examples").symlink_to(ROOT / "examples")
    (root / "scripts" / "load_test_10k.sh").write_text(ANSWERS.format(code=code))
    machine.install("kyb", "#!/bin/sh\n")
    machine.script = root / "scripts" / machine.script.name


VERDICTS = [
    (0, 0, "LOAD TEST MET"),
    (5, 5, "LOAD TEST MISSED a target"),
    (6, 6, "PROVES NOTHING"),
    (4, 1, "(it ended with 4)"),
    (2, 1, "(it ended with 2)"),
]


@pytest.mark.parametrize(("verdict", "code", "told"), VERDICTS)
def test_the_verdict_is_the_exit_status(machine: Machine, verdict: int, code: int, told: str) -> None:
    stand_in(machine, verdict)
    done = machine.run("--load-test", "--url", "http://kyb.example", "--", "--sustained", "--users", "7", key="a-key")
    assert done.code == code, done
    assert "asked: --url http://kyb.example --sustained --users 7, with the key a-key" in done.said
    assert told in done.said
    assert ("MET" in done.said) == (code == 0)


def test_without_an_address_the_ingress_is_asked(machine: Machine) -> None:
    stand_in(machine, 0)
    nowhere = machine.run("--load-test")
    assert nowhere.code == 2, nowhere
    assert "where is it reached?" in nowhere.said
    spec = {"rules": [{"host": "kyb.example"}], "tls": [{"hosts": ["kyb.example"]}]}
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "risk-assessment-service"}}
    machine.cluster.create("ingresses", {**ingress, "spec": spec})
    done = machine.run("--load-test")
    assert done.code == 0, done
    assert "asked: --url https://kyb.example --quick" in done.said


def test_a_deployment_that_failed_is_not_tested(machine: Machine) -> None:
    stand_in(machine, 0)
    machine.release("2.0.0")
    machine.cluster.jobs = "fail"
    done = machine.deploy("--deploy", "--load-test", "--url", "http://kyb.example")
    assert done.code == 1, done
    assert "asked:" not in done.said


@pytest.mark.slow
def test_one_that_has_nowhere_to_go_does_not_end_well(machine: Machine) -> None:
    stand_in(machine, 0)
    done = machine.deploy("--deploy", "--load-test", "--timeout", "60")
    assert done.code == 1, done
    assert in_order(done.said, "DEPLOYED", "it is deployed, and not tested under load")


@pytest.mark.slow
def test_a_real_one_that_meets_its_targets(machine: Machine, service: Service) -> None:
    machine.release("2.0.0")
    own = ["--", "--baseline", "--users", "20", "--duration", "5s", "--output", str(machine.folder / "reports")]
    done = machine.deploy("--deploy", "--load-test", "--url", url(service), "--timeout", "60", *own)
    assert done.code == 0, done
    assert in_order(done.said, f"DEPLOYED: {SECOND}", "load test of", "LOAD TEST MET")
    assert list(Path(machine.folder / "reports").glob("*/report.json"))


def test_a_real_one_that_misses_a_target(machine: Machine, service: Service) -> None:
    """Whose key may make a request per second, where the users intend four."""
    key = service.new_key(rate="1/s burst 10")
    own = ["--", "--baseline", "--users", "20", "--duration", "5s", "--output", str(machine.folder / "reports")]
    done = machine.run("--load-test", "--url", url(service), *own, key=key)
    assert done.code == 5, done
    assert in_order(done.said, "MISSED", "LOAD TEST MISSED a target")
