"""An OCI registry: what clients push lies in the store that this machine's images are made of."""

from sagong_registry.service import Registry

__all__ = ["Registry"]
