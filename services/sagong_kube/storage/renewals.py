"""Volatile renewals: a Lease whose holder only renews it is kept in memory, not written to disk.

A renewal shows under the lease's unchanged resourceVersion. So that nobody takes over a lease that
was renewed unseen, a write that changes the holder is refused while the renewed time lasts; after a
start of this process every lease counts as just renewed.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from sagong_kube.storage.change import Change
from sagong_kube.storage.record import Record, with_revision
from sagong_kube.storage.store import Store

__all__ = ["LEASES", "Renewals"]

LEASES = "coordination.k8s.io/leases"
_RENEWED = "renewTime"


class Renewals:
    """What was renewed since it was last stored."""

    def __init__(self, store: Store, *, enabled: bool) -> None:
        self._store = store
        self._enabled = enabled
        self._started = time.monotonic()
        self._times: dict[str, float] = {}
        self._renewed: dict[str, bytes] = {}

    def is_renewal(self, record: Record, new: dict[str, Any], old: dict[str, Any]) -> bool:
        """Whether the change is nothing but a renewal by the same holder."""
        if not self._enabled or new.get("kind") != "Lease":
            return False
        return _steady(new) == _steady(old) and bool(_holder(old))

    def is_premature(self, key: str, new: dict[str, Any], old: dict[str, Any]) -> bool:
        """Whether another holder takes a lease that was renewed within its time."""
        if not self._enabled or new.get("kind") != "Lease":
            return False
        if not _holder(old) or not _holder(new) or _holder(new) == _holder(old):
            return False
        seconds = float((old.get("spec") or {}).get("leaseDurationSeconds") or 0)
        return time.monotonic() - self._times.get(key, self._started) < seconds

    def renew(self, record: Record, value: bytes) -> None:
        """Keep and show a renewal."""
        self._times[record.key] = time.monotonic()
        self._renewed[record.key] = value
        body = with_revision(value, record.revision)
        self._store.replace(LEASES, msgspec.structs.replace(record, body=body))

    async def flush(self) -> None:
        """Store all renewals; before a stop, and now and then."""
        renewed, self._renewed = self._renewed, {}
        for key, value in renewed.items():
            record = self._store.get(LEASES, key)
            if record is None:
                self._times.pop(key, None)
            else:
                await self._store.write([Change(LEASES, key, value, record.revision)])


def _holder(lease: dict[str, Any]) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _steady(lease: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        k: v for k, v in lease["metadata"].items() if k not in ("managedFields", "resourceVersion")
    }
    spec = {k: v for k, v in (lease.get("spec") or {}).items() if k != _RENEWED}
    return {**lease, "metadata": metadata, "spec": spec}
