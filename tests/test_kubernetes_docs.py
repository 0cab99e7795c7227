"""What docs/kubernetes.md has an operator type, and the figures that it gives."""

from __future__ import annotations

import re
import shlex

import click
import pytest
import yaml
from manifests import ALONE, KUBERNETES, NAMESPACE, OVERLAYS, ROOT, manifests, source_name
from monitored import series
from test_manifests import SECRETS, VERSIONS
from test_manifests_budget import HPA, TEN_K, most_pods

from app.cli.commands import kyb
from app.settings.budget import BEHIND_POOLER

TEXT = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
THERE = {f"{one['kind'].lower()}/{source_name(one)}" for of in (*OVERLAYS, *ALONE) for one in manifests(of).documents}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_about_what_is_there(line: str) -> None:
    words = shlex.split(line)
    if "-k" in words:
        assert words[:3] == ["kubectl", "apply", "-k"], "the namespace is in each of them"
        assert (ROOT / words[3] / "kustomization.yaml").is_file()
        return
    assert words[:3] == ["kubectl", "-n", NAMESPACE]
    # What is made is not there yet.
    named = re.findall(r"\b(job|cronjob|deployment|pod)[/ ]([a-z-]+)", re.sub(r"create job \S+", "", line))
    assert {f"{kind}/{name}" for kind, name in named} <= THERE
    assert named or "secret" in words or words[3:5] == ["exec", "kyb"]


@pytest.mark.parametrize("line", [line for line in LINES if " -- kyb " in line])
def test_a_line_for_kyb_is_understood(line: str) -> None:
    words = shlex.split(line.partition(" -- kyb ")[2])
    command: click.Command = kyb
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    # Raises for an option that there is not, and for one that lacks.
    command.make_context("kyb", words)


def test_every_secret_is_made() -> None:
    made = [shlex.split(line) for line in LINES if " create secret " in line]
    assert {words[words.index("secret") + 2] for words in made} == set(SECRETS)
    for words in made:
        files = {word.removeprefix("--from-file=") for word in words if word.startswith("--from-file=")}
        if files:
            assert files == set(SECRETS[words[words.index("secret") + 2]]["stringData"])


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
    for name in re.findall(r"`((?:overlays|components|namespace|base|tests)/[\w./-]+)`", TEXT):
        place = ROOT if name.startswith("tests/") else KUBERNETES
        assert (place / name).exists(), name


def test_the_table_tells_of_every_folder() -> None:
    folders = {path.name for path in KUBERNETES.iterdir() if path.is_dir()} - {"overlays"}
    told = set(re.findall(r"^\| `([\w/.-]+)`", TEXT.partition("\n## ")[0], re.MULTILINE))
    assert told == folders | set(OVERLAYS) | {"secrets.example.yaml"} | ({"__pycache__"} & folders)


def test_the_sums_are_right() -> None:
    replicas = manifests(TEN_K).one("HorizontalPodAutoscaler", HPA)["spec"]["maxReplicas"]
    pods = most_pods(manifests(TEN_K), replicas)
    clients = sum(count for count, pod in pods if pod.labels.get("app.kubernetes.io/name") == pods[0][1].labels["app"])
    assert f"up to {pods[0][0]} pods for a moment" in TEXT
    assert f"4 a pod and job, {clients * BEHIND_POOLER} during a rollout" in TEXT
    assert f"{pods[0][0] * 50:,} clients" in TEXT


def test_the_versions_are_those_that_are_checked() -> None:
    *others, last = VERSIONS
    assert f"the schemas of Kubernetes {', '.join(others)} and {last}," in TEXT


def test_the_rule_for_the_adapter_asks_for_the_metric() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (rule,) = yaml.safe_load(block)["rules"]
    name, _, labels = rule["seriesQuery"].partition("{")
    assert set(re.findall(r"\w+(?=!=)", labels)) <= series()[name]
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
