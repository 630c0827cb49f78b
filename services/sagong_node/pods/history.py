"""The attempts of a pod's containers: the latest, the ones before, and their last words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from sagong_node.pods.attempt import Attempt, attempt_of
from sagong_node.pods.ending import last_words
from sagong_node.pods.naming import AnyContainer, Origin, container_id
from sagong_node.pods.surroundings import Surroundings

__all__ = ["History"]

_LOST = 137


class History:
    """Reads the node's records; remembers only what they can't tell any more."""

    def __init__(
        self, around: Surroundings, container: Callable[[str], AnyContainer | None]
    ) -> None:
        self._around = around
        self._container = container
        self._seen: dict[str, Attempt] = {}
        self._messages: dict[str, str] = {}
        self.latest: dict[str, Origin] = {}
        self.previous: dict[str, Attempt] = {}

    def take(self, origin: Origin) -> None:
        """This is the latest attempt of its container from now on."""
        before = self.latest.get(origin.container)
        if before is not None and before.attempt != origin.attempt:
            fact = self._fact(before)
            if fact.ended:
                self.previous[origin.container] = fact
        self.latest[origin.container] = origin

    def adopt(self, origins: Iterable[Origin]) -> None:
        """Take over what a former process has made."""
        for origin in sorted(origins, key=lambda o: o.attempt):
            self.take(origin)

    def attempts(self) -> dict[str, Attempt]:
        """The latest attempt of each container, as it is now."""
        for name, origin in self.latest.items():
            self._seen[name] = self._fact(origin)
        return dict(self._seen)

    def find(self, id_: str) -> Origin | None:
        """The latest attempt with this id."""
        for origin in self.latest.values():
            if container_id(origin.uid, origin.container, origin.attempt) == id_:
                return origin
        return None

    def _fact(self, origin: Origin) -> Attempt:
        id_ = container_id(origin.uid, origin.container, origin.attempt)
        record = self._around.registry.containers.get(id_)
        if record is None:
            return self._lost(id_, origin)
        fact = attempt_of(record.status(None), origin, felled=record.felled)
        if not fact.ended:
            return fact
        return msgspec.structs.replace(fact, message=self._message(fact))

    def _lost(self, id_: str, origin: Origin) -> Attempt:
        """Somebody removed it by another way: it has ended, however that was."""
        seen = self._seen.get(origin.container)
        if seen is not None and seen.id == id_ and seen.ended:
            return seen
        why = "The container could not be located when the pod was looked at"
        return Attempt(id_, origin, "exited", _LOST, finished_at=time.time(), message=why)

    def _message(self, attempt: Attempt) -> str:
        found = self._messages.get(attempt.id)
        if found is None:
            container = self._container(attempt.origin.container)
            found = last_words(self._around, container, attempt.origin, code=attempt.code)
            self._messages[attempt.id] = found
        return found
