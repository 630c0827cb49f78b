"""Extension point of the API server: admission rules of one's own, in its process."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.hooks import hookspec

__all__ = ["AdmissionHooks", "AdmissionRequest"]


class AdmissionRequest(msgspec.Struct, kw_only=True):
    """A write before it is done, as admission.k8s.io/v1 has it.

    `resource` like `deployments`, `group` "" for core; `object` is the object to be (None for DELETE),
    `old` as it is (None for CREATE). `warnings` are told to the client.
    """

    operation: str
    group: str
    version: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    username: str = ""
    groups: tuple[str, ...] = ()
    dry_run: bool = False
    object: dict[str, Any] | None = None
    old: dict[str, Any] | None = None
    warnings: list[str] = []


class AdmissionHooks:
    """What a hook of the API server may implement. Both must be quick: the server waits for them."""

    @hookspec
    def mutate(self, request: AdmissionRequest) -> None:
        """Change `request.object` in place, before it is validated."""

    @hookspec
    def refuse(self, request: AdmissionRequest) -> str:
        """Why the write is not allowed, "" if it is; the object is as it will be."""
        raise AssertionError("a specification is not called")
