"""`kubectl port-forward` for the tests' cluster, run as a program: tells the real service's own port, and stays."""

from __future__ import annotations

import argparse
import http.client
import os


def main() -> None:
    parser = argparse.ArgumentParser(prog="kubectl")
    parser.add_argument("--context")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--address", choices=["127.0.0.1"], required=True)
    parser.add_argument("command", choices=["port-forward"])
    parser.add_argument("target")
    parser.add_argument("ports")
    told = parser.parse_args()
    assert told.ports == ":8080", told.ports
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["CLUSTER_PORT"]))
    connection.request("GET", f"/forward?target={told.target}")
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"error: {answer.read().decode()}")
    print(f"Forwarding from 127.0.0.1:{answer.readline().decode().strip()} -> 8080", flush=True)
    answer.read()


if __name__ == "__main__":
    main()
