"""Where a registry is reached: addresses, mirrors, proxies, certificates, what may be insecure."""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from sagong.errors import InvalidArgument
from sagong_image_overlay.errand import Login
from sagong_image_overlay.hosts import Place, Trust, Ways
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

    The API is at `/v2` below the prefix, or right there (`whole`). `space` is the registry that a
    mirror stands for, where it has to be told; `login` are a mirror's own credentials. `headers` go
    to this host with each request, and to no other one.
    """

    scheme: str
    host: str
    prefix: str = ""
    insecure: bool = False
    mirror: bool = False
    space: str = ""
    whole: bool = False
    login: Login = field(default=Login(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trust: Trust = field(default_factory=Trust)

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
        below = path.removeprefix("/v2") if self.whole else path
        return f"{self.scheme}://{self.host}{self.prefix}{below}"


def split_host(text: str) -> tuple[str, int]:
    """Host and port (0 if none); IPv6 addresses lose their brackets."""
    if " " in text or not text.isprintable():
        raise InvalidArgument(f"registry {text!r} is not the name of a host")
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


def endpoints_of(domain: str, ways: Ways, *, push: bool, by_digest: bool = False) -> list[Endpoint]:
    """Endpoints of a registry in the order in which they are tried; a push goes to no mirror."""
    found = [] if push else list(_mirrors(domain, ways, by_digest=by_digest))
    own = ways.mirroring(domain).server
    if own is not None and own.url:
        return [*found, _endpoint(own, domain, ways)]
    if domain == _HUB:
        return [*found, Endpoint("https", _HUB_ADDRESS, trust=ways.of(_HUB_ADDRESS).trust)]
    place, loose = own or Place(""), is_insecure(domain, ways.settings)
    own_endpoint = Endpoint(
        "https",
        domain,
        insecure=loose or place.unverified,
        headers=place.headers,
        trust=ways.of(domain).trust.joined(place.trust),
    )
    return [*found, own_endpoint, *([replace(own_endpoint, scheme="http")] if loose else [])]


def _mirrors(domain: str, ways: Ways, *, by_digest: bool) -> Iterator[Endpoint]:
    """Those of the directory of the registry come before those of the settings."""
    told = [one for one in ways.mirroring(domain).mirrors if by_digest or one.resolves]
    for place in [*told, *map(Place, mirrors_of(domain, ways.settings))]:
        yield _endpoint(place, domain, ways, mirror=True)


def mirrors_of(domain: str, settings: Registries) -> tuple[str, ...]:
    """The mirrors of a registry; those of "*" are any one's that has none of its own."""
    if isinstance(settings.mirrors, tuple):
        return settings.mirrors if domain == _HUB else ()
    return settings.mirrors.get(domain, settings.mirrors.get("*", ()))


def _endpoint(place: Place, domain: str, ways: Ways, *, mirror: bool = False) -> Endpoint:
    url = place.url if "://" in place.url else f"https://{place.url}"
    parsed = urllib.parse.urlsplit(url)
    login, _, host = parsed.netloc.rpartition("@")
    if parsed.scheme not in ("http", "https") or not host:
        shown = urllib.parse.urlunsplit((parsed.scheme, host, parsed.path, "", ""))
        raise InvalidArgument(f"{domain}: {shown!r} is not an http or https URL")
    name, _, password = login.partition(":")
    return Endpoint(
        parsed.scheme,
        host,
        parsed.path.rstrip("/"),
        parsed.scheme == "http" or place.unverified or is_insecure(host, ways.settings),
        mirror=mirror,
        space="" if domain in (_HUB, host) else domain,
        whole=place.whole,
        login=Login(username=urllib.parse.unquote(name), password=urllib.parse.unquote(password)),
        headers=place.headers,
        trust=ways.of(host).trust.joined(place.trust),
    )


def search_host(domain: str) -> str:
    """Where the search API of a registry is."""
    return _HUB_INDEX if domain == _HUB else domain


def tls_context(host: str, trust: Trust, *, insecure: bool) -> ssl.SSLContext:
    """Authorities of the machine and of certs.d; client certificates of certs.d."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        trust.extend(context)
    except ssl.SSLError as error:
        raise InvalidArgument(
            f"certificates for {host} can't be used: {error.reason or error}"
        ) from error
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
