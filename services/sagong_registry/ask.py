"""One request as a handler sees it: who asks, and the checked parts of its path."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sagong.http import Request
from sagong_registry.gate import Visitor
from sagong_registry.grammar import repository_name
from sagong_registry.relay import Coming

__all__ = ["Ask"]


@dataclass(slots=True)
class Ask:
    """A request, its path's parts and its visitor."""

    request: Request
    parts: dict[str, str]
    visitor: Visitor
    # What the client should know of the answer, beside it.
    warning: str = ""
    # Of a blob that only an upstream has, when nothing but this is asked.
    size: int = -1
    # A blob that is being fetched.
    coming: Coming | None = None

    @property
    def name(self) -> str:
        """The repository's name."""
        return repository_name(self.parts["name"])

    def note(self, log: logging.Logger, event: str, **facts: object) -> None:
        """Tell of something that was changed, and by whom."""
        who = {"account": self.visitor.account, "peer": self.request.peer.address}
        log.info(event, extra={"repository": self.name, **facts, **who, "request": self.request.id})

    def query(self, name: str) -> str:
        """A parameter of the query, "" without it."""
        return self.request.query.get(name)

    def header(self, name: str) -> str:
        """A header, by its lower-case name."""
        return self.request.header(name)
