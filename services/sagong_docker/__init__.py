"""The Docker Engine API over the bus's slots: what the docker CLI, its SDKs and compose speak."""

from sagong_docker.service import Docker

__all__ = ["Docker"]
