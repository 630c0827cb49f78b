"""Where a registry is reached: addresses, mirrors, proxies, certificates, what may be insecure."""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sagong.errors import InvalidArgument
from sagong_image_overlay.settings import Registries

__all__ = [
    "Endpoint",
    "endpoints_of",
    "is_insecure",
    "mirrors_of",
    "proxy_for",
    "search_host",
    "split_host",
    "tls_context",
]

_HUB = "docker.io"
_HUB_ADDRESS = "registry-1.docker.io"
_HUB_INDEX = "index.docker.io"


@dataclass(frozen=True)
class Endpoint:
    """A registry's address; `host` is with the port where one is given, `prefix` a path.

    `space` is the registry that a mirror stands for, where it has to be told.
    """

    scheme: str
    host: str
    prefix: str = ""
    insecure: bool = False
    mirror: bool = False
    space: str = ""

    @property
    def name(self) -> str:
        """The host without the port."""
        return split_host(self.host)[0]

    @property
    def port(self) -> int:
        """The port."""
        return split_host(self.host)[1] or (443 if self.scheme == "https" else 80)

    def url(self, path: str) -> str:
        """The URL of an API path."""
        return f"{self.scheme}://{self.host}{self.prefix}{path}"


def split_host(text: str) -> tuple[str, int]:
    """Host and port (0 if none); IPv6 addresses lose their brackets."""
    parsed = urllib.parse.urlsplit(f"//{text}")
    try:
        return parsed.hostname or "", parsed.port or 0
    except ValueError:
        raise InvalidArgument(f"registry {text!r} has no usable port") from None


def is_insecure(host: str, settings: Registries) -> bool:
    """Whether plain http and unknown certificates go: loopback, or by configuration."""
    name, _ = split_host(host)
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return host in settings.insecure or name in settings.insecure
    if address.is_loopback or host in settings.insecure:
        return True
    return any(_contains(block, address) for block in settings.insecure)


def _contains(block: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False


def endpoints_of(domain: str, settings: Registries, *, push: bool) -> list[Endpoint]:
    """Endpoints of a registry in the order in which they are tried."""
    found = [] if push else [_mirror(url, domain, settings) for url in mirrors_of(domain, settings)]
    if domain == _HUB:
        return [*found, Endpoint("https", _HUB_ADDRESS)]
    insecure = is_insecure(domain, settings)
    found.append(Endpoint("https", domain, insecure=insecure))
    if insecure:
        found.append(Endpoint("http", domain, insecure=True))
    return found


def mirrors_of(domain: str, settings: Registries) -> tuple[str, ...]:
    """The mirrors of a registry; those of "*" are any one's that has none of its own."""
    if isinstance(settings.mirrors, tuple):
        return settings.mirrors if domain == _HUB else ()
    return settings.mirrors.get(domain, settings.mirrors.get("*", ()))


def _mirror(url: str, domain: str, settings: Registries) -> Endpoint:
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme not in ("http", "https") or not parsed.netloc:
        raise InvalidArgument(f"mirror {url!r} is not an http or https URL")
    host = parsed.netloc.rpartition("@")[2]
    insecure = parsed.scheme == "http" or is_insecure(host, settings)
    prefix, space = parsed.path.rstrip("/"), "" if domain == _HUB else domain
    return Endpoint(parsed.scheme, host, prefix, insecure, mirror=True, space=space)


def search_host(domain: str) -> str:
    """Where the search API of a registry is."""
    return _HUB_INDEX if domain == _HUB else domain


def tls_context(host: str, settings: Registries, *, insecure: bool) -> ssl.SSLContext:
    """Authorities of the system and of certs.d; client certificates of certs.d."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for top in settings.certificates:
        directory = Path(top, host)
        if not directory.is_dir():
            continue
        for path in sorted(directory.glob("*.crt")):
            context.load_verify_locations(path)
        for path in sorted(directory.glob("*.cert")):
            key = path.with_suffix(".key")
            if not key.exists():
                raise InvalidArgument(f"missing key {key.name} for client certificate {path}")
            context.load_cert_chain(path, key)
    return context


def proxy_for(
    scheme: str, host: str, settings: Registries, environment: Mapping[str, str] = os.environ
) -> str:
    """The URL of the proxy to use for a host, "" for none."""

    def variable(name: str) -> str:
        return environment.get(name) or environment.get(name.upper()) or ""

    name, _ = split_host(host)
    if _bypassed(name, host, settings.no_proxy or variable("no_proxy")):
        return ""
    return settings.proxy or variable(f"{scheme}_proxy") or variable("all_proxy")


def _bypassed(name: str, host: str, listed: str) -> bool:
    """Go's rules: loopback never; names, domain suffixes, addresses and blocks of no_proxy."""
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    for word in filter(None, (word.strip().lower() for word in listed.split(","))):
        if word == "*" or word in (name, host):
            return True
        if address is not None and _contains(word, address):
            return True
        if address is None and name.endswith("." + word.lstrip("*.")):
            return True
    return False
