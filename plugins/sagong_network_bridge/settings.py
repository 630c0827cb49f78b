"""What can be configured of the networks."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

import msgspec

from sagong.errors import InvalidArgument

__all__ = ["Settings"]

# IFNAMSIZ of the kernel, without the zero at the end.
_LONGEST_NAME = 15
_POOLS = (
    *(f"172.{number}.0.0/16" for number in range(17, 32)),
    *(f"192.168.{number}.0/20" for number in range(0, 256, 16)),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's section of the configuration.

    `prefix` begins the names of interfaces and names the nftables table: instances side by side
    need different ones. `bridge` is the default network's interface ("" makes it from the prefix),
    `subnet` its range ("" takes the first free pool), `subnet6` its IPv6 range ("" is none).
    `pools` are the ranges for networks without a subnet of their own; IPv6 ones are made below
    `pool6` ("" makes a private one from the machine's identity). `pool_size` namespaces are kept
    ready for each network used in the last `pool_seconds`; 0 keeps none. For so long after many
    were taken at once as many are kept, up to `pool_most`; each is 160 KB of the kernel's memory.
    `first_port` to `last_port`
    are taken for ports published without a number. `mtu` 0 leaves the kernel's. `nameservers`
    replace the machine's for names that no container has. `host_ip` is where ports are published
    that name no address ("" is everywhere); a network's own option goes first. `visitors` are the
    ranges of other machines that reach published ports (none: everybody). `open_forward` says what
    other people's FORWARD chains that drop by default are made to accept: true all of our bridges,
    "outgoing" what containers begin, so that published ports need rules there; false nothing. `icc`
    false keeps containers of the default network apart (of others their own option does,
    com.docker.network.bridge.enable_icc); it is of those that join from then on.
    """

    prefix: str = "sg"
    bridge: str = ""
    subnet: str = ""
    subnet6: str = ""
    pools: tuple[str, ...] = _POOLS
    pool6: str = ""
    pool_size: int = 4
    pool_most: int = 32
    pool_seconds: float = 600.0
    first_port: int = 32768
    last_port: int = 60999
    mtu: int = 0
    nameservers: tuple[str, ...] = ()
    host_ip: str = ""
    visitors: tuple[str, ...] = ()
    open_forward: bool | Literal["outgoing"] = True
    icc: bool = True

    def check(self) -> Settings:
        """Refuse values that cannot work, by name."""
        if not re.fullmatch(r"[a-z][a-z0-9]{0,2}", self.prefix):
            raise InvalidArgument(f"prefix = {self.prefix!r}: one to three letters and digits")
        if len(self.bridge.encode()) > 15 or "/" in self.bridge:
            raise InvalidArgument(f"bridge = {self.bridge!r}: at most 15 bytes, no slash")
        for key in ("subnet", "subnet6", "pool6"):
            self._check_range(key, getattr(self, key))
        if self.host_ip:
            self._check_range("host_ip", self.host_ip)
        for key in ("pools", "visitors"):
            for value in getattr(self, key):
                self._check_range(key, value)
        if not 0 <= self.pool_size <= 256:
            raise InvalidArgument(f"pool_size = {self.pool_size}: 0 to 256")
        if not 0 <= self.pool_most <= 256:
            raise InvalidArgument(f"pool_most = {self.pool_most}: 0 to 256")
        if not 1 <= self.first_port <= self.last_port <= 65535:
            raise InvalidArgument("first_port, last_port: a range within 1 to 65535")
        if self.mtu and not 576 <= self.mtu <= 65535:
            raise InvalidArgument(f"mtu = {self.mtu}: 576 to 65535")
        return self

    @staticmethod
    def _check_range(key: str, value: str) -> None:
        try:
            if value:
                ipaddress.ip_network(value)
        except ValueError as error:
            raise InvalidArgument(f"{key} = {value!r}: {error}") from None

    @property
    def default_bridge(self) -> str:
        """The default network's interface."""
        return self.bridge or ("sagong0" if self.prefix == "sg" else f"{self.prefix}0")

    def bridge_of(self, network: str) -> str:
        """The interface of a further network, by its id: as people know it from Docker.

        Instances beside each other have networks of the same id (that of pods), so others than the
        usual one have names with their prefix.
        """
        if self.prefix == "sg":
            return f"br-{network[:12]}"
        return f"{self.prefix}-{network}"[:_LONGEST_NAME]
