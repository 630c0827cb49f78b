"""kubectl against a server in the test's process; without kubectl the tests say so."""

from __future__ import annotations

import pytest
from tests.unit.kube.kube_lab import kubectl_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs kubectl when there is none."""
    if kubectl_path():
        return
    for item in items:
        if "compat/kubectl" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="needs kubectl 1.32 in the path"))
