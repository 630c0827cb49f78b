"""The demonstration of `packaging/up`: an image made here, a web service of three on it, live swaps."""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import live_swap
import yaml

from sagong.config import Paths

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGE = "sagong.test/busybox:latest"
SERVE = (
    'trap "exit 0" TERM; mkdir -p /tmp/www; echo "hello from $HOSTNAME" > /tmp/www/index.html;'
    " httpd -f -p 8080 -h /tmp/www & wait"
)
LABELS = {"app": "web"}
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": LABELS},
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {
                "containers": [
                    {
                        "name": "web",
                        "image": IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sh", "-c", SERVE],
                        "ports": [{"containerPort": 8080}],
                        "readinessProbe": {
                            "httpGet": {"path": "/", "port": 8080},
                            "periodSeconds": 1,
                        },
                    }
                ]
            },
        },
    },
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": 8080}]},
}


class Api:
    """The Kubernetes API by the administrator's kubeconfig; OSError if it refuses."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(user["client-certificate-data"]))
            file.write(base64.b64decode(user["client-key-data"]))
            file.flush()
            self._context.load_cert_chain(file.name)

    def get(self, path: str) -> Any:
        """An object, or None if there is none."""
        return self._ask(urllib.request.Request(self._server + path), missing=404)

    def create(self, path: str, document: dict[str, Any]) -> Any:
        """Make an object; None if it is there already."""
        headers = {"Content-Type": "application/json"}
        data = json.dumps(document).encode()
        request = urllib.request.Request(self._server + path, data, headers)
        return self._ask(request, missing=409)

    def _ask(self, request: urllib.request.Request, *, missing: int) -> Any:
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == missing:
                return None
            raise OSError(f"the API refuses {request.full_url}: {error.read().decode()}") from None


def load_image(root: str) -> None:
    """Make a small image of Debian's busybox, with no registry, and load it."""
    sys.path.insert(0, str(REPOSITORY))
    from tests import sample_image

    with tempfile.TemporaryDirectory() as directory:
        sample = sample_image.build(Path(directory))
        command = [sys.executable, "-m", "sagong.cli", "--root", root, "load"]
        subprocess.run([*command, str(sample.docker_archive)], check=True)


def address_of(api: Api) -> str:
    """The service's address in the cluster."""
    found: str = api.get("/api/v1/namespaces/default/services/web")["spec"]["clusterIP"]
    return found


def wait_answer(api: Api, seconds: float) -> str:
    """Wait until the service answers at its cluster address; what it says."""
    address = address_of(api)
    limit = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=2) as answer:
                return f"http://{address}/ says: {answer.read().decode().strip()}"
        except OSError as error:
            if time.monotonic() > limit:
                raise OSError(f"http://{address}/ does not answer: {error}") from None
            time.sleep(0.05)


def show_swaps(api: Api, paths: Paths, *, root: str, seconds: float) -> None:
    """Replace parts while the service, both APIs and containers are in use."""
    docker = live_swap.Docker(paths.run / "docker.sock", seconds)
    address = address_of(api)
    live_swap.show(
        [sys.executable, "-m", "sagong.cli", "--root", root],
        {
            "web service": lambda: live_swap.web(address, seconds),
            "Kubernetes API": lambda: api.get("/api/v1/namespaces/default/pods"),
            "Docker API": lambda: docker.ask("GET", "/containers/json"),
            "containers run": lambda: docker.run(IMAGE),
        },
    )


def main() -> None:
    """Deploy and swap unless it is there; say what runs and what to try next."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="/")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the answer may take")
    parser.add_argument("--swaps", action="store_true", help="swap though it is deployed already")
    options = parser.parse_args()
    paths = Paths.below(options.root)
    api = Api(paths.etc / "kubeconfig")
    began = time.monotonic()
    fresh = api.get("/apis/apps/v1/namespaces/default/deployments/web") is None
    if fresh:
        load_image(options.root)
        api.create("/apis/apps/v1/namespaces/default/deployments", DEPLOYMENT)
        api.create("/api/v1/namespaces/default/services", SERVICE)
    print(wait_answer(api, options.seconds), f"({time.monotonic() - began:.1f} s)")
    pods = api.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb")["items"]
    for pod in pods:
        print(f"pod {pod['metadata']['name']} at {pod['status'].get('podIP', '-')}")
    # Again changes nothing.
    if fresh or options.swaps:
        show_swaps(api, paths, root=options.root, seconds=options.seconds)
    own = "" if paths == Paths() else f" --root {options.root}"
    print(NEXT.format(etc=paths.etc, run=paths.run, image=IMAGE, sagong=f".venv/bin/sagong{own}"))
    for client, package in CLIENTS.items():
        if shutil.which(client) is None:
            print(f"\n{client} is not installed here; Debian and Ubuntu have it in {package}.")


NEXT = r"""
Docker API      {run}/docker.sock
Kubernetes API  {etc}/kubeconfig

Try next:
  export DOCKER_HOST=unix://{run}/docker.sock KUBECONFIG={etc}/kubeconfig
  docker run --rm {image} echo hello
  printf 'FROM {image}\nRUN echo built > /built\n' | docker build -t hello -
  {sagong} enable registry            # on 127.0.0.1:5000
  docker tag hello 127.0.0.1:5000/hello && docker push 127.0.0.1:5000/hello
  kubectl get pods -o wide
  kubectl scale deployment web --replicas=5
  {sagong} status
  {sagong} swap scheduler binpack     # while everything runs"""
CLIENTS = {"docker": "docker.io, or docker-cli", "kubectl": "kubernetes-client"}

if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()  # whoever read has seen enough
    except OSError as error:
        raise SystemExit(str(error)) from None
