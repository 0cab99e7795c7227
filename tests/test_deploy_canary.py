"""A canary of scripts/deploy_10k_scale.sh: how many pods it is, what has to be shown, and what becomes of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from deploying import CANARY, FIRST, NAME, SECOND, Ended, Machine, ended, in_order, without_database
from kube_cluster import Image
from service import KEY, example, mint, serving, wait_until

UNTOUCHED = f"CANARY REMOVED; the Deployment {NAME} is unchanged, at revision 1"


def canary(machine: Machine, *arguments: str, percent: int = 20, key: str | None = KEY) -> Ended:
    """A second version, tried on a canary for a second."""
    machine.release("2.0.0")
    own = ["--canary", str(percent), "--canary-time", "1s", "--timeout", "30s"]
    return machine.run("--kubernetes", *own, *arguments, key=key)


def assert_removed(machine: Machine, done: Ended, why: str) -> None:
    assert done.code == 1, done
    assert in_order(done.said, why, UNTOUCHED), done
    assert "DEPLOYED" not in done.said
    assert machine.cluster.named("deployments", CANARY) is None
    assert machine.image == FIRST
    assert len(machine.cluster.of("pods")) == 5


def test_one_that_does_well_is_promoted(machine: Machine) -> None:
    done = canary(machine)
    assert done.code == 0, done
    told = "canary: 1 beside 5 pods, 16.7 % of the requests (20 % asked for)"
    assert in_order(done.said, told, "verifying each", "of them 5xx: 0", f"DEPLOYED: {SECOND}"), done
    asked = machine.cluster.asked
    tried, promoted = asked.index(f"create Deployment/{CANARY}"), asked.index(f"patch Deployment/{NAME}")
    assert tried < promoted < asked.index(f"delete Deployment/{CANARY}")
    assert machine.image == SECOND
    assert len(machine.cluster.of("pods")) == 5


@pytest.mark.slow
def test_its_pods_are_the_service_s_and_no_other_deployment_s(machine: Machine) -> None:
    machine.cluster.refused.add(f"patch Deployment/{NAME}")
    machine.cluster.refused.add(f"delete Deployment/{CANARY}")
    canary(machine)
    made = machine.cluster.named("deployments", CANARY)
    assert made is not None
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["spec"]["selector"]["matchLabels"].items() <= labels.items()
    service = machine.cluster.named("services", NAME)
    stable = machine.cluster.named("deployments", NAME)
    assert service is not None
    assert stable is not None
    assert service["spec"]["selector"].items() <= labels.items()
    assert not stable["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("pods", "percent", "told"),
    [
        (5, 1, "canary: 1 beside 5 pods, 16.7 %"),
        (50, 10, "canary: 6 beside 50 pods, 10.7 %"),
        (5, 99, "canary: 495 beside 5 pods, 99.0 %"),
    ],
)
def test_percent_is_a_share_of_all_pods(machine: Machine, pods: int, percent: int, told: str) -> None:
    (scaler,) = machine.cluster.of("horizontalpodautoscalers")
    scaler["spec"]["minReplicas"] = pods
    machine.cluster.upgrade(NAME, FIRST, FIRST)
    done = canary(machine, "--dry-run", percent=percent)
    assert told in done.said, done


def test_one_whose_pods_do_not_get_ready_is_removed(machine: Machine) -> None:
    machine.cluster.images[SECOND] = Image("never ready", says="there is no key yet")
    done = canary(machine, "--timeout", "2")
    assert "there is no key yet" in done.said
    assert_removed(machine, done, "its pods were not ready within 2 s")


def test_one_whose_pods_are_started_again_is_removed(machine: Machine) -> None:
    machine.cluster.images[SECOND].pods = "restarting"
    assert_removed(machine, canary(machine), "were started again, this often: 2")


@pytest.mark.slow
def test_one_that_cannot_record_is_removed(machine: Machine, tmp_path: Path) -> None:
    with serving(tmp_path / "second") as second, without_database(second):
        machine.cluster.images[SECOND].port = second.port
        done = canary(machine)
    assert_removed(machine, done, "it has no database to work with")


def test_one_that_answers_with_errors_is_removed(machine: Machine, tmp_path: Path) -> None:
    """Its requests failed while its database was away; now that it is looked at, all is well again."""
    with serving(tmp_path / "second") as second:
        client = second.client()
        with without_database(second):
            assert client.assess(example("healthy-manufacturer")).status == 503
        machine.cluster.images[SECOND].port = second.port
        done = canary(machine)
    assert "database: there" in done.said
    assert_removed(machine, done, "more than 1 in 1000 of its answers is a 5xx")


def test_one_that_nobody_asked_proves_nothing(machine: Machine, tmp_path: Path) -> None:
    with serving(tmp_path / "second") as second:
        machine.cluster.images[SECOND].port = second.port
        done = canary(machine, key=None)
    assert_removed(machine, done, "it gave 0 answers, and 20 are needed to judge it")


@pytest.mark.slow
def test_one_that_does_not_know_the_key_is_removed(machine: Machine) -> None:
    assert_removed(machine, canary(machine, key=mint("test").text), "was not answered as it should be: 401")


def test_one_that_cannot_be_removed_calls_for_somebody(machine: Machine) -> None:
    machine.cluster.images[SECOND].pods = "restarting"
    machine.cluster.refused.add(f"delete Deployment/{CANARY}")
    done = canary(machine)
    assert done.code == 4, done
    assert "AND IT COULD NOT BE REMOVED: it goes on serving 16.7 % of the requests" in done.said


@pytest.mark.slow
def test_where_the_rest_cannot_follow_it_is_removed(machine: Machine) -> None:
    machine.cluster.refused.add(f"patch Deployment/{NAME}")
    done = canary(machine)
    assert done.code == 1, done
    assert "the Deployment is unchanged, at revision 1" in done.said
    assert machine.cluster.named("deployments", CANARY) is None


def test_it_needs_something_to_stand_beside(machine: Machine) -> None:
    machine.cluster.delete("deployments", NAME)
    done = canary(machine)
    assert done.code == 1, done
    assert "deploy without --canary first" in done.said
    assert not machine.cluster.asked


def test_what_is_not_whole_gets_none(machine: Machine) -> None:
    machine.cluster.images[SECOND] = Image("never ready")
    machine.cluster.upgrade(NAME, FIRST, SECOND)
    done = canary(machine)
    assert done.code == 1, done
    assert "what runs now is not whole" in done.said
    assert not machine.cluster.asked


def test_one_that_was_left_is_told_by_status_refused_twice_and_removed_by_rollback(machine: Machine) -> None:
    machine.release("2.0.0")
    process = machine.start("--kubernetes", "--canary", "50", "--canary-time", "10m")
    wait_until(lambda: f"create Deployment/{CANARY}" in machine.cluster.asked, "the canary is there", 60)
    os.killpg(process.pid, signal.SIGINT)
    left = ended(process)
    assert left.code == 130, left
    assert f"a canary of the new version serves 50.0 % of the requests; the Deployment {NAME} is unchanged" in left.said
    assert f"a canary serves besides: 5 of 5 pods, {SECOND}" in machine.run("--status").said
    again = canary(machine)
    assert again.code == 1, again
    assert "a canary is there already" in again.said
    removed = machine.run("--rollback")
    assert removed.code == 0, removed
    assert "the canary is gone; the Deployment stays at revision 1" in removed.said
    assert machine.cluster.named("deployments", CANARY) is None
    assert machine.image == FIRST
