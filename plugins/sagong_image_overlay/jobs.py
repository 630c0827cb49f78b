"""The table of jobs that the workshop's children do.

A job gets its arguments, the descriptors that came along and `report` for progress; before it
touches anything from outside it takes on its role (`confine`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sagong_image_overlay import merging, packing, reading, unpacking

__all__ = ["JOBS"]

Job = Callable[[dict[str, Any], list[int], Callable[[dict[str, Any]], None]], dict[str, Any]]

JOBS: dict[str, Job] = {**unpacking.JOBS, **reading.JOBS, **packing.JOBS, **merging.JOBS}
