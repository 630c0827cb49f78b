"""Lets tests of this folder use the API server's lab."""

from __future__ import annotations

import sys
from pathlib import Path

KUBE = str(Path(__file__).parents[1] / "kube")
if KUBE not in sys.path:
    sys.path.insert(0, KUBE)
