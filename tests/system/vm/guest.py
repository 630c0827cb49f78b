"""The questions that are asked inside the machine: the Docker API by hand, so that no client is needed.

A question a line, `[VERB, WORD…]`; for each a line `[0, ANSWER]`, the answer as JSON again, or
`[1, WHAT WENT WRONG]`.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMAGE = "sagong.test/busybox:latest"
CGROUPS = Path("/sys/fs/cgroup")
# Ends at once at SIGTERM, so that nobody waits for a kill.
SLEEP = ["sh", "-c", 'trap "exit 0" TERM; sleep 1000000 & wait']
POLICIES = {
    "always": "always",
    "always-stopped": "always",
    "unless": "unless-stopped",
    "unless-stopped": "unless-stopped",
    "on-failure": "on-failure",
    "plain": "no",
}
LIMITS = {"Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 50, "NanoCpus": 500_000_000}


class Connection(http.client.HTTPConnection):
    """HTTP over the Docker API's socket."""

    def connect(self) -> None:
        """Connect to the socket instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/sagong/docker.sock")


def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and decoded answer."""
    connection = Connection("docker")
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    try:
        return answer.status, json.loads(content)
    except ValueError:
        return answer.status, content.decode(errors="replace")


def must(method: str, path: str, body: Any = None) -> Any:
    """The answer of a request that has to succeed."""
    status, answer = ask(method, path, body)
    if status >= 400:
        raise RuntimeError(f"{method} {path}: {status} {answer}")
    return answer


def start(name: str, command: list[str], **host: Any) -> None:
    """A container that runs in the background."""
    must(
        "POST",
        f"/containers/create?name={name}",
        {"Image": IMAGE, "Cmd": command, "HostConfig": host},
    )
    must("POST", f"/containers/{name}/start")


def begin() -> None:
    """Containers of every restart policy, stopped and not; one with limits."""
    for name, policy in POLICIES.items():
        start(name, SLEEP, RestartPolicy={"Name": policy}, Binds=[f"{name}:/data"])
    for name in ("always-stopped", "unless-stopped"):
        must("POST", f"/containers/{name}/stop?t=5")
    start("limited", SLEEP, **LIMITS)


def state() -> dict[str, Any]:
    """What runs, by name, and since which boot it has run."""
    found = {}
    for name in [*POLICIES, "limited"]:
        answer = must("GET", f"/containers/{name}/json")
        found[name] = {
            "running": answer["State"]["Running"],
            "pid": answer["State"]["Pid"],
            "code": answer["State"]["ExitCode"],
            "alive": os.path.exists(f"/proc/{answer['State']['Pid']}/ns"),
            "address": answer["NetworkSettings"]["IPAddress"],
        }
    return found


def limits() -> dict[str, str]:
    """What version 2 of the control groups holds the limited container to."""
    pid = must("GET", "/containers/limited/json")["State"]["Pid"]
    (line,) = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    directory = CGROUPS / line.removeprefix("0::/")
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
    return {name: (directory / name).read_text().strip() for name in names}


def run(options: str, *command: str) -> dict[str, Any]:
    """Run to the end: its code and output; or the API's refusal."""
    body = {"Image": IMAGE, "Cmd": command, "Tty": True, "HostConfig": json.loads(options)}
    identity = must("POST", "/containers/create", body)["Id"]
    status, answer = ask("POST", f"/containers/{identity}/start")
    if status >= 400:
        result = {"code": -1, "out": str(answer)}
    else:
        code = must("POST", f"/containers/{identity}/wait")["StatusCode"]
        out = must("GET", f"/containers/{identity}/logs?stdout=1&stderr=1")
        result = {"code": code, "out": str(out)}
    ask("DELETE", f"/containers/{identity}?force=1")
    return result


def ipvlan() -> dict[str, str]:
    """What a neighbour says in each mode of ipvlan; the networks are gone then."""
    fetch = "for i in $(seq 100); do wget -qO- http://$0/ && exit; sleep 0.2; done; exit 1"
    found = {}
    for mode in ("l2", "l3"):
        options = {"parent": "lan0", "ipvlan_mode": mode}
        must("POST", "/networks/create", {"Name": mode, "Driver": "ipvlan", "Options": options})
        start("near", ["httpd", "-f", "-p", "80", "-h", "/var/www"], NetworkMode=mode)
        near = must("GET", "/containers/near/json")["NetworkSettings"]["Networks"][mode]
        on_it = json.dumps({"NetworkMode": mode})
        found[mode] = run(on_it, "sh", "-c", fetch, near["IPAddress"])["out"].strip()
        must("DELETE", "/containers/near?force=1")
        must("DELETE", f"/networks/{mode}")
    return found


def pods() -> dict[str, Any]:
    """The demonstration's pods by name, and what its service says."""
    sys.path.insert(0, str(Path.cwd() / "packaging"))
    import demo

    api = demo.Api(Path("/etc/sagong/kubeconfig"))
    said = demo.wait_answer(api, 240.0)
    items = api.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb")["items"]
    return {
        "said": said,
        "pods": {
            pod["metadata"]["name"]: {
                "phase": pod["status"]["phase"],
                "ready": all(
                    c["ready"] for c in pod["status"].get("containerStatuses", [{"ready": False}])
                ),
                "restarts": sum(
                    c["restartCount"] for c in pod["status"].get("containerStatuses", [])
                ),
            }
            for pod in items
        },
    }


VERBS: dict[str, Callable[..., Any]] = {
    "begin": begin,
    "state": state,
    "limits": limits,
    "run": run,
    "pods": pods,
    "ipvlan": ipvlan,
}


def answer(verb: str, *words: str) -> tuple[int, str]:
    """Whether it failed, and the answer."""
    try:
        return 0, json.dumps(VERBS[verb](*words))
    except Exception:
        return 1, traceback.format_exc()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
