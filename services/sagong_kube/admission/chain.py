"""The order in which admission looks at a write."""

from __future__ import annotations

from collections.abc import Sequence

from sagong_kube.registry.review import Admission, Review, Step, run

__all__ = ["Chain"]


class Chain:
    """Built-in steps, with further admission (webhooks, policies) between changing and refusing."""

    def __init__(
        self,
        mutating: Sequence[Step],
        validating: Sequence[Step],
        further: Sequence[Admission] = (),
    ) -> None:
        self._mutating = mutating
        self._validating = validating
        self._further = further

    async def mutate(self, review: Review) -> None:
        """Changing steps, in order."""
        run(self._mutating, review)
        for admission in self._further:
            await admission.mutate(review)

    async def validate(self, review: Review) -> None:
        """Refusing steps, in order; those that reserve something come last."""
        for admission in self._further:
            await admission.validate(review)
        run(self._validating, review)
