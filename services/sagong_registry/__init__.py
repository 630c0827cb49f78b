"""An OCI registry on the content store of this machine: what clients push here lies where images are made."""

from sagong_registry.service import Registry

__all__ = ["Registry"]
