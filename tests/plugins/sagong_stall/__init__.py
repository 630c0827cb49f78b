"""A hook around a scheduler that does not end, whenever there is nothing to place."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from sagong.contracts.scheduler import Question
from sagong.hooks import hookimpl
from sagong.host import Host


class Stall:
    """Waits for better times."""

    def __init__(self, host: Host) -> None:
        self._log = host.log

    @hookimpl(wrapper=True)
    def place(self, question: Question) -> Generator[None, Any, Any]:
        """Does not come back."""
        if not question.pods:
            self._log.info("waits")
            time.sleep(3600)
        return (yield)
