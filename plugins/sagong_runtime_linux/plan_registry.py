"""All operations that a launcher of this version knows."""

from __future__ import annotations

from sagong_runtime_linux import (
    device_operations,
    mount_operations,
    process_operations,
    user_operations,
)
from sagong_runtime_linux.operations import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry(
    *(getattr(device_operations, name) for name in device_operations.__all__),
    *(getattr(mount_operations, name) for name in mount_operations.__all__),
    *(getattr(process_operations, name) for name in process_operations.__all__),
    *(getattr(user_operations, name) for name in user_operations.__all__),
)
