"""What admission is asked: one write, with what it may look at and what it may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from sagong.contracts.state import Compare, Operation
from sagong_kube.registry.actor import Actor
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.registry.view import View

__all__ = ["Admission", "Review", "Step"]

CREATE = "CREATE"
UPDATE = "UPDATE"
DELETE = "DELETE"


class Review(msgspec.Struct):
    """A write before it is done. `new` is the object to be (None for DELETE), `old` as it is.

    Steps may change `new`, and add operations and conditions to the transaction.
    """

    view: View
    resource: Resource
    operation: str
    namespace: str
    name: str
    actor: Actor
    new: Document | None = None
    old: Document | None = None
    subresource: str = ""
    dry_run: bool = False
    beside: list[Operation] = []
    guards: list[Compare] = []
    warnings: list[str] = []

    @property
    def storage(self) -> str:
        """The storage written to."""
        return self.resource.storage


Step = Callable[[Review], None]


class Admission(Protocol):
    """All admission: it changes, then it refuses."""

    async def mutate(self, review: Review) -> None:
        """Let every mutating step look at it."""
        ...

    async def validate(self, review: Review) -> None:
        """Let every validating step refuse it; the last ones reserve what it will use."""
        ...


def run(steps: Sequence[Step], review: Review) -> None:
    """Steps in their order."""
    for step in steps:
        step(review)
