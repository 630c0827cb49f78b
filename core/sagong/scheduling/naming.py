"""Which pods a scheduler is for, by their spec.schedulerName."""

from __future__ import annotations

from sagong.host import Host

__all__ = ["names_of"]


def names_of(host: Host, configured: tuple[str, ...]) -> tuple[str, ...]:
    """The configured names, else its instance's; the default instance has Kubernetes' own."""
    return configured or (host.instance or "default-scheduler",)
