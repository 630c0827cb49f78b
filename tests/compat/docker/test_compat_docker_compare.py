"""Scenarios told to Docker Engine and to ours: answers are the same, or the difference is listed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.compat.docker.compare import (
    container_scenarios,
    input_scenarios,
    object_scenarios,
    system_scenarios,
)
from tests.compat.docker.compare.dialogue import Scenario
from tests.compat.docker.compare.differences import reason
from tests.compat.docker.compare.pair import Pair, missing, pair

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing()), reason=missing() or "there"),
]

SCENARIOS = (
    *system_scenarios.SCENARIOS,
    *container_scenarios.SCENARIOS,
    *object_scenarios.SCENARIOS,
    *input_scenarios.SCENARIOS,
)


@pytest.fixture(scope="module")
def engines() -> Iterator[Pair]:
    """Both engines."""
    with pair() as made:
        yield made


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
def test_both_engines_answer_alike(engines: Pair, scenario: Scenario) -> None:
    found = engines.differences(scenario)
    unlisted = [d for d in found if not reason(scenario.name, d, engines.engine)]
    assert not unlisted, "\n".join(["", *(str(d) for d in unlisted[:40])])
