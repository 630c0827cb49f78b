"""The moody scheduler once more, which can't run beside another."""

from sagong_scheduler_moody import Moody

__all__ = ["Moody"]
