"""Tests with generated examples take the same ones every time, and as long as they need.

A fault that nobody has met yet is looked for on purpose, not by chance before a merge:
`SAGONG_EXAMPLES=random pytest tests/unit` takes others, `python -m tests.fuzz` many more.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", _PATIENT, derandomize=True)
settings.register_profile("random", _PATIENT)
settings.load_profile(os.environ.get("SAGONG_EXAMPLES", "same"))
