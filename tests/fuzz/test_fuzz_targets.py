"""Whatever bytes come, a reader returns or refuses them by its error: nothing else, and no hang."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


def mutated(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Seeds with a stretch replaced: what is nearly right reaches deeper than noise."""

    def put(seed: bytes, at: int, length: int, new: bytes) -> bytes:
        at = at % (len(seed) + 1)
        return seed[:at] + new + seed[at + length :]

    return st.builds(
        put,
        st.sampled_from(seeds),
        st.integers(0, 1 << 16),
        st.integers(0, 16),
        st.binary(max_size=16),
    )


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_bytes_break_a_reader(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(st.one_of(st.binary(max_size=2000), mutated(target.seeds)))
    def hold(data: bytes) -> None:
        try:
            target.run(data)
        except target.errors:
            pass

    hold()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_are_read_or_refused(name: str) -> None:
    for seed in TARGETS[name].seeds:
        try:
            TARGETS[name].run(seed)
        except TARGETS[name].errors:
            pass
