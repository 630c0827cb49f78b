"""Service `builder`: images from Dockerfiles."""

from sagong_builder.service import BuilderService

__all__ = ["BuilderService"]
