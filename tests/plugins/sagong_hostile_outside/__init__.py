"""The hostile plugin with the machine's network: it reaches what listens there."""

from sagong_hostile import HostilePlugin

__all__ = ["HostilePlugin"]
