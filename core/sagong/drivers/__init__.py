"""Drivers by name: all providers of a slot as one, for those whose users choose a driver.

A driver's name is first that of what the default provider has built in, then that of an instance. With
one provider nobody else is asked, and nothing costs more than a call of it.
"""

from sagong.drivers.networks import EveryNetwork
from sagong.drivers.volumes import EveryVolume

__all__ = ["EveryNetwork", "EveryVolume"]
