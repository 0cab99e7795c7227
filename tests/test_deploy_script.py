"""scripts/deploy_10k_scale.sh and Kubernetes: what it does in which order, what it says, and what it takes back."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploying import FIRST, JOB, NAME, SCRIPT, SECOND, Machine, ended, in_order, ingress, machine_for, without_database
from kube_cluster import Image
from service import HOST, ROOT, Service, free_port, mint, serving, wait_until

DOCUMENTED = sorted(
    {
        line
        for page in ("docs/deploying.md", "docs/railway.md")
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines()
        if line.startswith("scripts/deploy_10k_scale.sh")
    }
)
PATCHED = f"patch Deployment/{NAME}"
FLAGS = ["kubernetes", "railway", "canary", "health-check", "load-test", "rollback", "status", "deploy", "dry-run"]
WRONG = [
    ([], "where to, and what?"),
    (["--dry-run"], "what is to be done?"),
    (["--deploy"], "where to?"),
    (["--bogus"], "unknown: --bogus"),
    (["--kubernetes", "now"], "unknown: now"),
    (["--kubernetes=yes"], "takes no value"),
    (["--kubernetes", "--canary"], "--canary takes a value"),
    (["--kubernetes", "--canary", "--dry-run"], "--canary takes a value"),
    (["--kubernetes", "--canary="], "--canary takes a value"),
    (["--kubernetes", "--canary", "0"], "from 1 to 99"),
    (["--kubernetes", "--canary", "100"], "from 1 to 99"),
    (["--kubernetes", "--canary", "1e1"], "from 1 to 99"),
    (["--kubernetes", "--canary", "-5"], "from 1 to 99"),
    (["--railway", "--canary", "10"], "--canary goes with --kubernetes"),
    (["--kubernetes", "--timeout", "soon"], "such as 90s or 10m"),
    (["--kubernetes", "--url", "kyb.example"], "such as https://kyb.example"),
    (["--kubernetes", "--rollback", "--status"], "--rollback goes alone"),
    (["--kubernetes", "--", "--quick"], "is for --load-test"),
    (["--railway", "--load-test"], "Name it with --railway-url"),
    (["--kubernetes", "--key-file", "/nonexistent"], "cannot be read"),
]


@pytest.fixture
def empty(tmp_path: Path, service: Service) -> Iterator[Machine]:
    """A machine whose cluster holds nothing but the Secrets."""
    with machine_for(tmp_path, service) as there:
        yield there


@pytest.mark.parametrize(("arguments", "why"), WRONG)
def test_wrong_usage_touches_nothing(machine: Machine, arguments: list[str], why: str) -> None:
    # Not by way of `run`, which gives options of its own.
    done = machine.alone(*arguments)
    assert done.code == 2, done
    assert why in done.said
    assert "usage: scripts/deploy_10k_scale.sh" in done.said
    assert not machine.calls.read_text()


def test_help_tells_every_flag(machine: Machine) -> None:
    done = machine.alone("--help")
    assert done.code == 0
    for flag in FLAGS:
        assert f"\n  --{flag} " in done.said
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.parametrize("line", DOCUMENTED)
def test_what_the_documents_show_is_understood(machine: Machine, line: str) -> None:
    """Up to the look for tools, of which one is missing."""
    (machine.bin / "curl").unlink()
    done = machine.alone(*shlex.split(line, comments=True)[1:])
    assert done.code == 3, done
    assert "there is no curl" in done.said


def test_a_first_deployment_migrates_then_rolls_out_then_verifies(empty: Machine) -> None:
    done = empty.deploy("--timeout", "60")
    assert done.code == 0, done
    assert in_order(
        done.said, "no earlier version", "migrated", "rolled out", "database: there", "assessment: ok", "DEPLOYED"
    )
    writes = [write for write in empty.cluster.asked if write.startswith("create")]
    assert writes[:2] == ["create Namespace/kyb-platform", f"create Job/{JOB}"]
    assert writes[-1] == f"create Deployment/{NAME}"
    assert empty.image == FIRST
    assert len(empty.cluster.of("pods", track="stable")) == 5


def test_a_new_version_replaces_the_one_before(machine: Machine) -> None:
    machine.release("2.0.0")
    done = machine.deploy("--timeout", "60")
    assert done.code == 0, done
    assert f"now: {FIRST}, revision 1, 5 of 5 pods" in done.said
    assert f"DEPLOYED: {SECOND}, revision 2, 5 pods" in done.said
    asked = machine.cluster.asked
    assert asked.index(f"delete Job/{JOB}") < asked.index(f"create Job/{JOB}") < asked.index(PATCHED)
    assert machine.image == SECOND


def test_an_image_can_be_named(machine: Machine) -> None:
    other = f"registry.example:5000/kyb/{NAME}:2.0.1"
    machine.cluster.images[other] = machine.cluster.images[SECOND]
    done = machine.deploy("--timeout", "60", "--image", other)
    assert done.code == 0, done
    assert machine.image == other
    (job,) = machine.cluster.of("jobs")
    (cron,) = machine.cluster.of("cronjobs")
    for template in (job["spec"]["template"], cron["spec"]["jobTemplate"]["spec"]["template"]):
        assert template["spec"]["containers"][0]["image"] == other


@pytest.mark.slow
def test_an_image_can_be_named_by_its_digest(machine: Machine) -> None:
    digest = f"registry.example/{NAME}@sha256:{'5' * 64}"
    machine.cluster.images[digest] = machine.cluster.images[SECOND]
    done = machine.deploy("--timeout", "60", "--image", digest)
    assert done.code == 0, done
    assert machine.image == digest


@pytest.mark.parametrize("tool", ["kubectl", "curl"])
def test_a_missing_tool_is_told_before_anything_is_touched(machine: Machine, tool: str) -> None:
    (machine.bin / tool).unlink()
    done = machine.deploy()
    assert done.code == 3, done
    assert f"there is no {tool} on this machine" in done.said
    assert not machine.cluster.asked


def test_a_cluster_that_does_not_answer_is_told(machine: Machine) -> None:
    config = machine.folder / "kubeconfig"
    config.write_text(config.read_text().replace(f":{machine.port}", f":{free_port()}"))
    done = machine.deploy()
    assert done.code == 3, done
    assert "the cluster does not answer" in done.said
    assert "--context" in done.said


def test_rights_that_are_missing_are_told_together(machine: Machine) -> None:
    machine.cluster.denied |= {"create jobs.batch", "create pods/portforward"}
    done = machine.deploy()
    assert done.code == 3, done
    assert (
        "may not, in the namespace kyb-platform: create jobs.batch, create pods --subresource=portforward\n"
        in done.said
    )
    assert not machine.cluster.asked


def test_a_secret_that_is_missing_is_told_before_anything_is_touched(machine: Machine) -> None:
    machine.cluster.delete("secrets", f"{NAME}-owner")
    done = machine.deploy()
    assert done.code == 3, done
    assert f"the Secrets {NAME}-owner;" in done.said
    assert not machine.cluster.asked


def test_an_overlay_of_another_namespace_is_refused(machine: Machine) -> None:
    done = machine.deploy("--namespace", "elsewhere")
    assert done.code == 2, done
    assert "are for the namespace kyb-platform" in done.said
    assert not machine.cluster.asked


@pytest.mark.parametrize(("overlay", "code"), [("no-such", 2), ("broken", 1)])
def test_an_overlay_that_cannot_be_built_is_told(machine: Machine, overlay: str, code: int) -> None:
    folder = machine.folder / "broken"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    done = machine.deploy("--overlay", str(machine.folder / overlay))
    assert done.code == code, done
    assert not machine.cluster.asked


def test_a_migration_that_fails_replaces_no_pod(machine: Machine) -> None:
    machine.release("2.0.0")
    machine.cluster.jobs = "fail"
    done = machine.deploy()
    assert done.code == 1, done
    assert "the migration failed" in done.said
    assert PATCHED not in machine.cluster.asked
    assert machine.image == FIRST


def test_a_migration_that_takes_too_long_is_left_running_and_told(machine: Machine) -> None:
    machine.release("2.0.0")
    machine.cluster.jobs = "run"
    done = machine.deploy("--timeout", "1")
    assert done.code == 1, done
    assert "goes on; no pod was replaced" in done.said
    assert machine.image == FIRST
    again = machine.deploy()
    assert again.code == 1
    assert "another migration runs" in again.said


def test_manifests_that_are_refused_replace_no_pod(machine: Machine) -> None:
    machine.release("2.0.0")
    machine.cluster.refused.add("patch CronJob/retention")
    done = machine.deploy()
    assert done.code == 1, done
    assert "the Deployment risk-assessment-service is unchanged, at revision 1" in done.said
    assert machine.image == FIRST


def test_a_rollout_that_hangs_is_rolled_back(machine: Machine) -> None:
    machine.release("2.0.0")
    machine.cluster.images[SECOND] = Image("never ready", says="there is no key yet")
    done = machine.deploy()
    assert done.code == 1, done
    why = ["Unhealthy: Startup probe failed", "there is no key yet"]
    assert in_order(done.said, *why, "rolling back to revision 1", "assessment: ok", "ROLLED BACK to revision 1"), done
    assert "DEPLOYED" not in done.said
    assert machine.image == FIRST
    assert len(machine.cluster.of("pods", track="stable")) == 5


def test_pods_that_run_but_cannot_record_are_rolled_back(machine: Machine, tmp_path: Path) -> None:
    with serving(tmp_path / "second") as second, without_database(second):
        machine.release("2.0.0")
        machine.cluster.images[SECOND].port = second.port
        done = machine.deploy("--timeout", "30")
    assert done.code == 1, done
    assert in_order(done.said, "it has no database to work with", "ROLLED BACK to revision 1")
    assert machine.image == FIRST


def test_a_rollback_that_hangs_calls_for_somebody(machine: Machine) -> None:
    machine.release("2.0.0")
    machine.cluster.images |= {SECOND: Image("never ready"), FIRST: Image("never ready")}
    done = machine.deploy()
    assert done.code == 4, done
    assert "THE ROLLBACK FAILED: somebody has to look now" in done.said


def test_a_rollback_to_what_is_not_healthy_either_calls_for_somebody(machine: Machine) -> None:
    machine.release("2.0.0")
    done = machine.deploy("--timeout", "30", key=mint("test").text)
    assert done.code == 4, done
    assert in_order(done.said, "was not answered as it should be: 401", "AND IT IS NOT HEALTHY EITHER")
    assert machine.image == FIRST


def test_what_did_not_change_is_not_rolled_back(machine: Machine) -> None:
    """What was before revision 2 has nothing to do with a deployment that changes nothing."""
    machine.release("2.0.0")
    machine.cluster.upgrade(NAME, FIRST, SECOND)
    done = machine.deploy("--timeout", "30", key=mint("test").text)
    assert done.code == 1, done
    assert "the Deployment is unchanged, at revision 2: there is nothing to roll back" in done.said
    assert machine.image == SECOND


def test_a_first_version_that_fails_has_nothing_to_go_back_to(empty: Machine) -> None:
    empty.cluster.images[FIRST] = Image("never ready")
    done = empty.deploy("--timeout", "1")
    assert done.code == 1, done
    assert "there is no earlier version to go back to" in done.said


@pytest.mark.parametrize(
    "what", [["--kubernetes"], ["--kubernetes", "--canary", "10"], ["--rollback"], ["--health-check"]]
)
def test_a_dry_run_tells_and_changes_nothing(machine: Machine, what: list[str]) -> None:
    machine.release("2.0.0")
    machine.cluster.upgrade(NAME, FIRST, SECOND)
    machine.release("1.0.0", level="debug")
    before = machine.cluster.snapshot()
    machine.cluster.asked.clear()
    done = machine.run(*what, "--dry-run")
    assert done.code == 0, done
    assert "would" in done.said
    assert "DEPLOYED" not in done.said
    assert machine.cluster.snapshot() == before
    assert not machine.cluster.asked


def test_a_dry_run_tells_each_step(machine: Machine) -> None:
    machine.release("2.0.0")
    done = machine.deploy("--dry-run", "--canary", "20")
    steps = [
        f"would run: kubectl --namespace kyb-platform delete job {JOB}",
        f"would apply: Job/{JOB}",
        "ConfigMap/settings-",
        f"would apply: Deployment/{NAME}-canary",
        f"deployment.apps/{NAME}-canary created (dry run)",
        "HorizontalPodAutoscaler/",
        f"would apply: Deployment/{NAME} ",
        f"deployment.apps/{NAME} configured (dry run)",
        "go back to revision 1",
        f"delete deployment {NAME}-canary",
    ]
    assert in_order(done.said, *steps), done


def test_a_dry_run_needs_no_cluster(machine: Machine) -> None:
    config = machine.folder / "kubeconfig"
    config.write_text(config.read_text().replace(f":{machine.port}", f":{free_port()}"))
    done = machine.deploy("--dry-run")
    assert done.code == 0, done
    assert in_order(done.said, "look: the cluster does not answer", "would apply")


def test_the_project_s_own_overlay_is_deployed_and_gets_a_canary(empty: Machine) -> None:
    lacking = empty.alone("--kubernetes")
    assert lacking.code == 3, lacking
    assert "the Secrets pgbouncer;" in lacking.said
    empty.cluster.create("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pgbouncer"}})
    first = empty.alone("--kubernetes", "--timeout", "60")
    assert first.code == 0, first
    assert f"DEPLOYED: {FIRST}, revision 1, 5 pods" in first.said
    second = empty.alone("--kubernetes", "--timeout", "60", "--image", SECOND, "--canary", "30", "--canary-time", "1")
    assert second.code == 0, second
    assert in_order(second.said, "canary: 2 beside 5 pods", "of them 5xx: 0", f"DEPLOYED: {SECOND}, revision 2, 5 pods")


def test_rolling_back_by_hand(machine: Machine) -> None:
    only = machine.run("--rollback")
    assert only.code == 1
    assert "revision 1 is the only one" in only.said
    machine.release("2.0.0")
    machine.cluster.upgrade(NAME, FIRST, SECOND)
    done = machine.run("--rollback", "--timeout", "60")
    assert done.code == 0, done
    assert f"ROLLED BACK from revision 2 to what was revision 1: {FIRST}, 5 pods, verified" in done.said
    assert machine.image == FIRST


def test_the_status_is_told(machine: Machine) -> None:
    done = machine.run("--status")
    assert done.code == 0, done
    assert f"WHOLE, revision 1: 5 of 5 pods, {FIRST}" in done.said
    machine.cluster.images[SECOND] = Image("never ready")
    machine.cluster.upgrade(NAME, FIRST, SECOND)
    broken = machine.run("--status")
    assert broken.code == 1, broken
    assert f"NOT WHOLE, revision 2: 5 of 5 pods, {SECOND}" in broken.said
    machine.cluster.delete("deployments", NAME)
    gone = machine.run("--status")
    assert gone.code == 1, gone
    assert f"there is no Deployment {NAME}" in gone.said


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_what_is_and_how_to_go_back(machine: Machine, stop: signal.Signals) -> None:
    machine.release("2.0.0")
    machine.cluster.images[SECOND] = Image("never ready")
    process = machine.start("--kubernetes", "--timeout", "10m")
    wait_until(lambda: "rollout status" in machine.calls.read_text(), "the rollout is waited for", 60)
    # A terminal tells all of them, a supervisor the script alone.
    (os.killpg if stop == signal.SIGINT else os.kill)(process.pid, stop)
    done = ended(process)
    assert done.code == 128 + stop, done
    assert "interrupted: the new version is being rolled out over revision 1" in done.said
    assert "to go back: scripts/deploy_10k_scale.sh --kubernetes --namespace kyb-platform --rollback" in done.said
    assert machine.run("--rollback", "--timeout", "60").code == 0
    assert machine.image == FIRST


@pytest.mark.slow
def test_an_interrupted_migration_says_that_it_runs(machine: Machine) -> None:
    machine.cluster.jobs = "run"
    process = machine.start("--kubernetes", "--timeout", "10m")
    wait_until(lambda: f"create Job/{JOB}" in machine.cluster.asked, "the migration runs", 60)
    os.kill(process.pid, signal.SIGTERM)
    done = ended(process)
    assert done.code == 143, done
    assert "interrupted: the migration runs" in done.said
    assert "no pod was replaced" in done.said


def test_health_is_asked_where_callers_are_without_a_cluster(machine: Machine, service: Service) -> None:
    (machine.bin / "kubectl").unlink()
    done = machine.run("--health-check", "--url", f"http://{HOST}:{service.port}")
    assert done.code == 0, done
    assert in_order(done.said, "ready:", "database: there", "assessment: ok", "HEALTHY")
    gone = machine.run("--health-check", "--timeout", "1", "--url", f"http://{HOST}:{free_port()}")
    assert gone.code == 1
    assert "NOT HEALTHY" in gone.said


def test_health_is_asked_as_far_as_an_ingress_lets(machine: Machine, service: Service) -> None:
    with ingress(service) as url:
        done = machine.run("--health-check", "--url", url)
        wrong = machine.run("--health-check", "--timeout", "1", "--url", url, key="kyb_no")
    assert done.code == 0, done
    assert in_order(done.said, "ready:", "components are not looked at from there", "assessment: ok", "HEALTHY")
    assert wrong.code == 1, wrong
    assert "was not answered as it should be: 401" in wrong.said


@pytest.mark.slow
def test_health_is_asked_through_the_service_and_tells_that_no_key_was_given(machine: Machine) -> None:
    done = machine.run("--health-check", key=None)
    assert done.code == 0, done
    assert "no assessment was tried" in done.said
