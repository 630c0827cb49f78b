"""The pod's status as the API has it, and what must be written so that it is true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from sagong.contracts.objects import GetRequest, Outcome, Verb, Write
from sagong.errors import NotFound, SagongError
from sagong.model.k8s.core_v1 import Pod
from sagong_node.pods.ledger import Entry
from sagong_node.pods.surroundings import Surroundings

__all__ = ["PODS", "Reporter", "same_status"]

PODS = "v1/pods"
_PATIENCE = 0.25
_AGAIN = 1.0

Document = dict[str, Any]


def same_status(wanted: Document, present: Document) -> bool:
    """Whether the API's status already says what is wanted; nothing and null are the same. Pure."""
    return all(_bare(value) == _bare(present.get(key)) for key, value in wanted.items())


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        found = {key: _bare(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in (None, {}, [], "")}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return None if value in ("", {}, []) else value


class Reporter:
    """One pod. `take` gives it each newer version of the object; `tell` asks for a write."""

    def __init__(
        self,
        around: Surroundings,
        body: bytes,
        *,
        compute: Callable[[], Document | None],
        wake: Callable[[], None],
    ) -> None:
        self._around = around
        self._compute = compute
        self._wake = wake
        self._sent: Document | None = None
        self._last: tuple[object, ...] = ()
        self._doubtful = False
        self.pod = Pod()
        self.revision = -1
        self.body = b""
        self._status: Document = {}
        self.take(body)

    @property
    def _key(self) -> str:
        return self.pod.metadata.uid

    def take(self, body: bytes) -> bool:
        """A version of the pod; whether it is newer than what is known."""
        pod = msgspec.json.decode(body, type=Pod)
        revision = int(pod.metadata.resource_version or 0)
        if revision <= self.revision and pod.metadata.uid == self.pod.metadata.uid:
            return False
        self.pod, self.revision, self.body = pod, revision, body
        self._status = msgspec.json.decode(body).get("status") or {}
        return True

    def tell(self, facts: tuple[object, ...]) -> None:
        """The status may have changed; if the `facts` have, it is written at once."""
        urgent, self._last = facts != self._last, facts
        now = asyncio.get_running_loop().time()
        due = now if urgent else now + _PATIENCE
        self._around.ledger.put(self._key, Entry(due, self._prepare, self._answer))

    def last(self, status: Document | None, done: Callable[[], None]) -> None:
        """The last write: the final status, and the deletion of the object."""
        metadata = self.pod.metadata

        def prepare() -> tuple[Write, ...]:
            first = (self._patch(status, checked=False),) if status else ()
            return (
                *first,
                Write(
                    verb=Verb.DELETE,
                    resource=PODS,
                    namespace=metadata.namespace,
                    name=metadata.name,
                    uid=metadata.uid,
                    grace_seconds=0,
                ),
            )

        def answer(outcomes: tuple[Outcome, ...]) -> None:
            deleted = outcomes[-1]
            if deleted.error and deleted.error not in (NotFound.code, "conflict"):
                self._around.log.warning(
                    "can't delete pod %s/%s: %s",
                    metadata.namespace,
                    metadata.name,
                    deleted.message,
                )
                loop = asyncio.get_running_loop()
                entry = Entry(loop.time() + _AGAIN, prepare, answer)
                self._around.ledger.put(self._key, entry)
                return
            done()

        now = asyncio.get_running_loop().time()
        self._around.ledger.put(self._key, Entry(now, prepare, answer))

    async def read_again(self) -> bool:
        """Read the object anew, after a conflict; whether it is newer."""
        metadata = self.pod.metadata
        try:
            found = await self._around.objects.get(
                GetRequest(resource=PODS, namespace=metadata.namespace, name=metadata.name)
            )
        except SagongError:
            return False
        return self.take(found.body)

    @property
    def doubtful(self) -> bool:
        """Whether a write met a newer object; asking clears it."""
        found, self._doubtful = self._doubtful, False
        return found

    def _prepare(self) -> tuple[Write, ...]:
        status = self._compute()
        if status is None or status == self._sent or same_status(status, self._status):
            return ()
        self._sent = status
        return (self._patch(status, checked=True),)

    def _patch(self, status: Document, *, checked: bool) -> Write:
        metadata: Document = {}
        if checked:
            metadata["resourceVersion"] = str(self.revision)
        body = msgspec.json.encode({"metadata": metadata, "status": status})
        return Write(
            verb=Verb.PATCH,
            resource=PODS,
            namespace=self.pod.metadata.namespace,
            name=self.pod.metadata.name,
            subresource="status",
            uid=self.pod.metadata.uid,
            body=body,
        )

    def _answer(self, outcomes: tuple[Outcome, ...]) -> None:
        outcome = outcomes[0]
        if not outcome.error:
            if outcome.body:
                self.take(outcome.body)
            return
        self._sent = None
        if outcome.error == NotFound.code:
            return  # deleted; the watch tells
        if outcome.error != "conflict":
            self._around.log.warning(
                "can't write the status of pod %s/%s: %s",
                self.pod.metadata.namespace,
                self.pod.metadata.name,
                outcome.message,
            )
        self._doubtful = True
        self._wake()
