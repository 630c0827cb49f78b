"""Peers of the bus: a provider serves a slot, a route calls its present and every later provider."""

from sagong.bus.provider import Access, Provider
from sagong.bus.proxy import proxy
from sagong.bus.route import Route
from sagong.bus.switchboard import Branches, Switchboard

__all__ = ["Access", "Branches", "Provider", "Route", "Switchboard", "proxy"]
