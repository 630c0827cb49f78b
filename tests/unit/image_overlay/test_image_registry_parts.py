"""Parts of the registry client that decide without a network."""

from __future__ import annotations

import http.client

import msgspec
import pytest

from sagong.errors import InvalidArgument, NotFound
from sagong.model import oci
from sagong_image_overlay.challenge import Challenge, parse_challenges
from sagong_image_overlay.download import choose_manifest
from sagong_image_overlay.endpoint import endpoints_of, is_insecure, mirrors_of, proxy_for
from sagong_image_overlay.exchange import Answer, retry_after
from sagong_image_overlay.hosts import Ways
from sagong_image_overlay.settings import Registries

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.mark.parametrize(
    ("header", "scheme", "values"),
    [
        (
            'Bearer realm="https://auth.test/token",service="registry",scope="a:b:pull,push"',
            "bearer",
            {"realm": "https://auth.test/token", "service": "registry", "scope": "a:b:pull,push"},
        ),
        ('Basic realm="with \\"quotes\\""', "basic", {"realm": 'with "quotes"'}),
        ("Bearer realm=plain , service = x", "bearer", {"realm": "plain", "service": "x"}),
    ],
)
def test_challenges_are_read(header: str, scheme: str, values: dict[str, str]) -> None:
    assert parse_challenges([header]) == [Challenge(scheme, values)]


def test_several_challenges_in_one_header() -> None:
    found = parse_challenges(['Negotiate, Basic realm="a", Bearer realm="b",service="c"'])
    assert [(one.scheme, one.values.get("realm")) for one in found] == [
        ("negotiate", None),
        ("basic", "a"),
        ("bearer", "b"),
    ]
    assert parse_challenges(["", "=,=,"]) == []


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("localhost:5000", True),
        ("registry.test", False),
        ("named.test:5000", True),
        ("whole.test:1234", True),
        ("10.1.2.3:5000", True),
        ("10.2.2.3:5000", False),
    ],
)
def test_insecure_registries(host: str, insecure: bool) -> None:
    settings = Registries(insecure=("named.test:5000", "whole.test", "10.1.0.0/16"))
    assert is_insecure(host, settings) == insecure


def test_https_comes_before_http_and_mirrors_before_the_hub() -> None:
    found = endpoints_of("127.0.0.1:5000", Ways(Registries()), push=False)
    assert [one.scheme for one in found] == ["https", "http"]
    assert [one.scheme for one in endpoints_of("r.test", Ways(Registries()), push=False)] == [
        "https"
    ]
    mirrored = Ways(Registries(mirrors=("https://mirror.test/prefix/",)))
    first, second = endpoints_of("docker.io", mirrored, push=False)
    assert first.url("/v2/") == "https://mirror.test/prefix/v2/"
    assert second.host == "registry-1.docker.io"
    assert len(endpoints_of("docker.io", mirrored, push=True)) == 1
    with pytest.raises(InvalidArgument):
        endpoints_of("docker.io", Ways(Registries(mirrors=("ftp://mirror",))), push=False)


@pytest.mark.parametrize(
    ("host", "proxy"),
    [
        ("registry.test", "http://proxy.test:3128"),
        ("127.0.0.1:5000", ""),
        ("inside.test", ""),
        ("deep.inside.test:443", ""),
        ("192.168.3.4", ""),
        ("192.169.3.4", "http://proxy.test:3128"),
    ],
)
def test_proxies(host: str, proxy: str) -> None:
    environment = {
        "HTTPS_PROXY": "http://proxy.test:3128",
        "no_proxy": "inside.test, 192.168.0.0/16",
    }
    assert proxy_for("https", host, Registries(), environment) == proxy
    assert proxy_for("https", host, Registries(no_proxy="*"), environment) == ""


def described(architecture: str, variant: str = "", **facts: object) -> oci.Descriptor:
    platform = oci.Platform(os="linux", architecture=architecture, variant=variant)
    name = f"{architecture}{variant}{facts}"
    return oci.Descriptor(
        media_type=MANIFEST,
        digest=oci.digest_of(name.encode()),
        size=1,
        platform=platform,
        **facts,  # type: ignore[arg-type]
    )


def test_the_closest_variant_is_chosen() -> None:
    attested = described("arm", "v7", annotations={"vnd.docker.reference.type": "attestation"})
    index = oci.Index(
        schema_version=2,
        manifests=(attested, described("arm", "v5"), described("arm", "v6"), described("amd64")),
    )

    def chosen(platform: str) -> str:
        found = choose_manifest(index, oci.parse_platform(platform, "x86_64"), "name")
        assert found.platform is not None
        return found.platform.architecture + found.platform.variant

    assert chosen("linux/arm/v7") == "armv6"
    assert chosen("linux/arm/v5") == "armv5"
    assert chosen("") == "amd64"
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        chosen("linux/s390x")


@pytest.mark.parametrize(
    ("platform", "there", "found"),
    [
        ("linux/amd64/v3", ("amd64v4", "amd64", "amd64v2"), "amd64v2"),
        ("linux/amd64/v2", ("386", "amd64"), "amd64"),
        ("", ("amd64v2", "386"), "386"),
        ("linux/arm64", ("armv6", "armv7"), "armv7"),
        ("linux/arm64", ("armv7", "arm64"), "arm64"),
        ("linux/arm64/v9", ("armv7", "arm64"), "arm64"),
        ("linux/arm/v6", ("armv7", "unknown"), "unknown"),
        ("linux/arm", ("unknown", "armv5"), "armv5"),
        ("linux/ppc64le/power9", ("ppc64le",), "ppc64le"),
    ],
)
def test_what_also_runs_there_is_next(platform: str, there: tuple[str, ...], found: str) -> None:
    """As containerd has it; of a manifest without a platform nobody knows, and it comes last."""
    manifests = []
    for name in there:
        architecture, _, level = name.partition("v")
        one = described(architecture, level and f"v{level}")
        manifests.append(msgspec.structs.replace(one, platform=None) if name == "unknown" else one)
    index = oci.Index(schema_version=2, manifests=tuple(manifests))
    chosen = choose_manifest(index, oci.parse_platform(platform, "x86_64"), "name")
    assert chosen is manifests[there.index(found)]


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("aarch64", "linux/arm64"),
        ("linux", "linux/amd64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/x86_64", "linux/amd64"),
    ],
)
def test_platforms_are_normalized(text: str, platform: str) -> None:
    assert oci.platform_text(oci.parse_platform(text, "x86_64")) == platform


@pytest.mark.parametrize("text", ["a/b/c/d", "linux/a b", "linux/../x", "foobar"])
def test_impossible_platforms_are_invalid(text: str) -> None:
    with pytest.raises(InvalidArgument):
        oci.parse_platform(text, "x86_64")


def test_an_unknown_word_is_refused_in_the_words_that_clients_look_for() -> None:
    said = '^"foo": unknown operating system or architecture: invalid argument$'
    with pytest.raises(InvalidArgument, match=said):
        oci.parse_platform("foo", "x86_64")


def test_chain_ids_are_those_of_the_specification() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert oci.chain_ids((one, two)) == (one, oci.digest_of(f"{one} {two}".encode()))
    assert oci.digest_of(bytes(1024)) == oci.EMPTY_LAYER


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("7", 7, 7),
        ("0", 0, 0),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("9" * 400, 9e8, 1e9),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2150 07:28:00 GMT", 1e9, 1e11),
        ("Wed, 99 Oct 2150 07:28:00 GMT", 0, 0),
    ],
)
def test_a_registry_says_when_to_come_back(text: str, least: float, most: float) -> None:
    headers = http.client.HTTPMessage()
    headers["Retry-After"] = text
    answer = Answer(429, headers, "", None, None, None)  # type: ignore[arg-type]
    assert least <= retry_after(answer) <= most


def test_a_registry_s_own_mirrors_come_before_anybody_s() -> None:
    settings = Registries(mirrors={"a.test": ("https://m.test",), "*": ("https://any.test",)})
    assert mirrors_of("a.test", settings) == ("https://m.test",)
    assert mirrors_of("docker.io", settings) == ("https://any.test",)
    first, _ = endpoints_of("b.test", Ways(settings), push=False)
    assert (first.host, first.space) == ("any.test", "b.test")
