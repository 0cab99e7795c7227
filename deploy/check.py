"""What independent tools say of the manifests and the image: `make check-deploy`, in an environment of its own.

The Prometheus Operator's definitions (cloudcoil's models of them), the policies of checkov (checkov.yaml says which do
not apply, and why), hadolint. Ends with 1 where any of them finds something.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

HERE = Path(__file__).resolve().parent
PROGRAMS = Path(sys.executable).parent
KUSTOMIZATIONS = ("overlays/10k", "overlays/single", "migration", "toolbox")
OPERATOR = "monitoring.coreos.com/v1"
LIMIT_S = 300.0


def said(*command: str | Path) -> tuple[int, str]:
    """How a program ended, and what it said."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return done.returncode, done.stdout + done.stderr


def render(kubectl: str, folder: Path) -> list[Path]:
    """A file of each kustomization. Raises RuntimeError."""
    files = []
    for name in KUSTOMIZATIONS:
        code, text = said(kubectl, "kustomize", HERE / "kubernetes" / name)
        if code:
            raise RuntimeError(f"{name}: {text}")
        files.append(folder / f"{name.replace('/', '-')}.yaml")
        files[-1].write_text(text, "utf-8")
    return files


def of_operator(files: list[Path]) -> Iterator[str]:
    """Faults of what is the Prometheus Operator's. Its models leave out what they do not know, and so tell on it."""
    documents = [one for file in files for one in yaml.safe_load_all(file.read_text("utf-8"))]
    theirs: list[dict[str, Any]] = [one for one in documents if one["apiVersion"] == OPERATOR]
    if {one["kind"] for one in theirs} != {"PrometheusRule", "ServiceMonitor"}:
        yield "the manifests have no PrometheusRule and ServiceMonitor"
    for one in theirs:
        try:
            read = getattr(operator, one["kind"]).model_validate(one)
        except ValueError as error:
            yield f"{one['kind']}: {error}"
            continue
        if read.model_dump(by_alias=True, exclude_unset=True, mode="json") != one:
            yield f"{one['kind']}: holds fields that the operator does not know"


def of_checkov(folder: Path) -> Iterator[str]:
    """Policies that are not kept; and a run that looked at nothing."""
    code, text = said(PROGRAMS / "checkov", "--config-file", HERE / "checkov.yaml", "--directory", folder)
    if code or "Passed checks: " not in text or "Passed checks: 0" in text:
        yield text


def of_hadolint(files: list[Path]) -> Iterator[str]:
    """What hadolint finds in Containerfiles."""
    for file in files:
        code, text = said(PROGRAMS / "hadolint", "--failure-threshold", "info", file)
        if code:
            yield text


def main(kubectl: str) -> int:
    images = sorted(HERE.rglob("Containerfile*"))
    with tempfile.TemporaryDirectory(prefix="kyb-manifests-") as name:
        folder = Path(name)
        files = render(kubectl, folder)
        checks = {
            "Prometheus Operator": of_operator(files),
            "checkov": of_checkov(folder),
            f"hadolint ({len(images)} files)": of_hadolint(images),
        }
        faults = {check: list(found) for check, found in checks.items()}
    for check, found in faults.items():
        print(f"{check}: {'ok' if not found else 'wrong'}", *found, sep="\n  ")
    return 1 if any(faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
