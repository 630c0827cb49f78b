"""`sagong load` and `sagong kubeconfig`: first steps that need no other client."""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
from pathlib import Path

from sagong import config
from sagong.call import deadline
from sagong.config import Paths, UnitConfig
from sagong.contracts.auth import Auth, CertificateRequest
from sagong.contracts.image import Images, LoadRequest
from sagong.contracts.kernel import StatusQuery
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, NotFound
from sagong.operator import Operator, connect
from sagong.uploading import send_file

__all__ = [
    "api_server",
    "kubeconfig_arguments",
    "load_arguments",
    "run_kubeconfig",
    "run_load",
    "write_kubeconfig",
]

_YEAR = 365 * 86400


def load_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `load`."""
    parser.add_argument(
        "archive", help="a `docker save` archive or OCI layout as a tar; - is stdin"
    )


def kubeconfig_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `kubeconfig`."""
    parser.add_argument("--user", default="admin", help="common name of the certificate")
    parser.add_argument(
        "--group", action="append", help="groups (default: system:masters, who may everything)"
    )
    parser.add_argument(
        "--server", default="", help="where clients reach the API (default: as configured)"
    )
    parser.add_argument("--days", type=int, default=365, help="how long the certificate is good")


def run_load(options: argparse.Namespace) -> int:
    """Load images of an archive, as `docker load` does."""

    async def go() -> None:
        async with connect(Paths.below(options.root)) as operator:
            images = await operator.use(Images)
            address = await images.upload()
            await _send(address, options.archive)
            async for progress in images.load(LoadRequest(upload=address.token)):
                if progress.image:
                    print(f"Loaded image: {progress.reference or progress.image}")

    try:
        asyncio.run(go())
    except InvalidArgument as error:
        name = options.archive
        raise InvalidArgument(
            error.message if name in error.message else f"{name}: {error}"
        ) from None
    return 0


async def _send(address: Address, archive: str) -> None:
    """The archive's bytes to the stream's address."""
    try:
        file = sys.stdin.buffer if archive == "-" else open(archive, "rb")  # noqa: SIM115
    except OSError as error:
        raise InvalidArgument(f"{archive}: {error.strerror}") from None
    with file:
        await send_file(address, file)


def run_kubeconfig(options: argparse.Namespace) -> int:
    """Print a kubeconfig with a new client certificate."""

    paths = Paths.below(options.root)

    async def go() -> str:
        async with connect(paths) as operator:
            request = CertificateRequest(
                subject=options.user,
                organizations=tuple(options.group or ("system:masters",)),
                seconds=options.days * 86400,
            )
            profile = (await operator.kernel.status(StatusQuery())).profile
            server = options.server or api_server(paths, profile)
            return await _kubeconfig(operator, request, server)

    sys.stdout.write(asyncio.run(go()))
    return 0


def api_server(paths: Paths, profile: str) -> str:
    """Where unit `kube` serves the Kubernetes API, by its configuration."""
    unit = config.load(paths, profile).units.get("kube", UnitConfig())
    address = unit.listens.get("api", "tcp:127.0.0.1:6443").removeprefix("tcp:")
    return f"https://{address}"


async def write_kubeconfig(operator: Operator, path: Path, server: str) -> bool:
    """Write the administrator's kubeconfig unless it is there; whether the system has an API."""
    if path.exists():
        return True
    request = CertificateRequest(subject="admin", organizations=("system:masters",), seconds=_YEAR)
    try:
        with deadline(10.0):
            text = await _kubeconfig(operator, request, server)
    except NotFound:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return True


async def _kubeconfig(operator: Operator, request: CertificateRequest, server: str) -> str:
    auth = await operator.use(Auth)
    made = await auth.issue_certificate(request)
    authority = (await auth.authority()).certificate
    return f"""apiVersion: v1
kind: Config
clusters:
- name: sagong
  cluster:
    server: {server}
    certificate-authority-data: {_base64(authority)}
users:
- name: {request.subject}
  user:
    client-certificate-data: {_base64(made.certificate)}
    client-key-data: {_base64(made.key)}
contexts:
- name: sagong
  context:
    cluster: sagong
    user: {request.subject}
current-context: sagong
"""


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
