"""What can be configured of the volumes."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's section of the configuration.

    `quotas`: a volume with a capacity needs a filesystem with project quotas ("required", the
    request is refused otherwise), or gets none where there are none ("optional").
    """

    quotas: Literal["required", "optional"] = "required"
