"""Service `dns`: cluster names."""

from sagong_dns.service import DnsService

__all__ = ["DnsService"]
