"""A stand-in for Railway's command line, run as a program: what the deployment script asks of it, and nothing else.

The file that RAILWAY_STATE names holds `deployments` (id and status, newest first) and what shall become of the next:
`up` and `rollback`, each a status or "refused", `up_code`, and `logged_in`. `calls` are what was asked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

ROLLBACK = "mutation($id: String!) { deploymentRollback(id: $id) }"


def main() -> int:
    file = Path(os.environ["RAILWAY_STATE"])
    state = json.loads(file.read_text())
    state["calls"].append(sys.argv[1:])
    code = answer(state, arguments())
    # Whole, for whoever reads it meanwhile.
    made = file.with_suffix(".new")
    made.write_text(json.dumps(state))
    made.replace(file)
    return code


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="railway")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status")
    up = commands.add_parser("up")
    up.add_argument("--ci", action="store_true", required=True)
    deployment = commands.add_parser("deployment").add_subparsers(dest="what", required=True).add_parser("list")
    deployment.add_argument("--limit", type=int)
    deployment.add_argument("--json", action="store_true")
    for one in (up, deployment):
        one.add_argument("--service", required=True)
        one.add_argument("--environment")
    api = commands.add_parser("api")
    api.add_argument("query", choices=[ROLLBACK])
    api.add_argument("--raw-var", required=True)
    return parser.parse_args()


def answer(state: dict[str, Any], told: argparse.Namespace) -> int:
    if not state["logged_in"]:
        print("Unauthorized. Please login with `railway login`", file=sys.stderr)
        return 1
    if told.command == "status":
        print("Project: kyb\nEnvironment: production")
    elif told.command == "deployment" and told.json:
        shown = [
            {**one, "createdAt": "2026-01-01T00:00:00Z", "meta": {"id": "not this"}} for one in state["deployments"]
        ]
        print(json.dumps(shown[: told.limit], indent=2))
    elif told.command == "deployment":
        print(*(f"  {one['id']} | {one['status']} | 2026-01-01" for one in state["deployments"]), sep="\n")
    elif told.command == "up":
        print("Build Logs: https://railway.example")
        begin(state, state["up"])
        return int(state["up_code"])
    elif state["rollback"] == "refused":
        print("canRollback is false", file=sys.stderr)
        return 1
    else:
        begin(state, state["rollback"])
    return 0


def begin(state: dict[str, Any], status: str) -> None:
    """A new deployment, in whose place the one before is removed if it serves."""
    if status == "refused":
        return
    if status == "SUCCESS":
        for one in state["deployments"]:
            if one["status"] == "SUCCESS":
                one["status"] = "REMOVED"
    state["deployments"].insert(0, {"id": f"d{len(state['deployments']) + 1}", "status": status})


if __name__ == "__main__":
    raise SystemExit(main())
