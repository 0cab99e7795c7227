"""The rules of deploy/prometheus as the Prometheus Operator takes them: components/monitoring/rules.yaml."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
RULES = [HERE.parent / "prometheus" / "rules" / name for name in ("recording.yml", "alerts.yml")]
TARGET = HERE / "components" / "monitoring" / "rules.yaml"

HEAD = """\
# Made of deploy/prometheus/rules by deploy/kubernetes/build.py: change those, and run it again.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: risk-assessment-service
  labels: {app: risk-assessment-service}
spec:
  groups:
"""


def built() -> str:
    """The manifest: the groups of every file as they stand there, further in."""
    lines = HEAD.splitlines()
    for file in RULES:
        _, _, groups = file.read_text("utf-8").partition("\ngroups:\n")
        lines += [f"  {line}" if line else "" for line in groups.splitlines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(built(), "utf-8")
