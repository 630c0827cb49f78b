"""Registries that lie, break off, redirect, are busy or are not one: clear errors, nothing kept."""

from __future__ import annotations

import functools
import gzip
import inspect
import json
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.system.image.odd_registry import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Handler,
    OddRegistry,
    digest,
    odd_registry,
)

from sagong.conformance.image_lab import ImageLab, layer, read_text
from sagong.contracts.image import (
    Credentials,
    DistributionRequest,
    Image,
    ImageRef,
    LoginRequest,
    PrepareRequest,
    Progress,
    PullRequest,
    PushRequest,
    SearchRequest,
    TagRequest,
)
from sagong.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SagongError,
    Unauthenticated,
    Unavailable,
)
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root
FAST = {"registries": {"attempts": 3, "seconds": 30.0}}


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    """A registry of this test's own."""
    with odd_registry() as registry:
        yield registry


def storing(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Give a test a store as `images`; fixtures can't wait."""

    @functools.wraps(test)
    async def stored(tmp_path: Path, **given: Any) -> None:
        if "tmp_path" in known:
            given["tmp_path"] = tmp_path
        async with local(ImageOverlay, data=tmp_path, config=FAST) as images:
            await test(images=images, **given)

    known = inspect.signature(test).parameters
    wanted = [one for name, one in known.items() if name not in ("images", "tmp_path")]
    path = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    stored.__signature__ = inspect.Signature([*wanted, path])  # type: ignore[attr-defined]
    return stored


async def pulled(images: ImageOverlay, name: str, **facts: Any) -> list[Progress]:
    """Pull; all progress."""
    request = PullRequest(id=name, reference=name, **facts)
    return [item async for item in images.pull(request)]


async def pushed(images: ImageOverlay, name: str, **facts: Any) -> list[Progress]:
    """Push; all progress."""
    request = PushRequest(id=name, reference=name, **facts)
    return [item async for item in images.push(request)]


async def inspected(images: ImageOverlay, name: str) -> Image:
    """An image that must be there."""
    return await images.inspect(ImageRef(reference=name))


def kept(data: Path) -> list[Path]:
    """Files of the content store."""
    return [path for path in (data / "content").rglob("*") if path.is_file()]


def times(count: int, answer: Callable[[Handler], bool]) -> Callable[[Handler], bool]:
    """Answer so for the first requests only."""
    left = [count]

    def odd(handler: Handler) -> bool:
        left[0] -= 1
        return left[0] >= 0 and answer(handler)

    return odd


# Manifests.

WRONG: dict[str, tuple[Callable[[OddRegistry], object], str]] = {
    "no JSON": (lambda odd: odd.manifest("a", "v1", b"<html>", MANIFEST), "manifest .* not valid"),
    "a page": (
        lambda odd: odd.manifest("a", "v1", b"<html>", "text/html"),
        "unsupported manifest of .*: text/html",
    ),
    "schema 1": (
        lambda odd: odd.manifest(
            "a", "v1", b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"
        ),
        r"schema 1 support has been removed. Suggest the author of .*/a:v1 to upgrade",
    ),
    "schema 1 as JSON": (
        lambda odd: odd.manifest("a", "v1", b'{"fsLayers": []}', "application/json"),
        "schema 1 support has been removed",
    ),
    "an artifact": (
        lambda odd: odd.image(
            "a",
            artifactType="application/vnd.test.chart",
            config=odd.blob(b"{}", "application/vnd.oci.empty.v1+json"),
        ),
        "no container image but an artifact of type application/vnd.test.chart",
    ),
    "another artifact": (
        lambda odd: odd.image("a", config=odd.blob(b"{}", "application/vnd.cncf.helm.config")),
        "an artifact of type application/vnd.cncf.helm.config",
    ),
    "another type than it says": (
        lambda odd: odd.manifest("a", "v1", {"mediaType": INDEX, "manifests": []}, MANIFEST),
        f"came as {re.escape(MANIFEST)}, and says of itself {re.escape(INDEX)}",
    ),
    "two things": (lambda odd: odd.image("a", manifests=[]), "is both an image and an index"),
    "a layer of no kind": (
        lambda odd: odd.image("a", layers=[odd.blob(b"x", "text/plain")]),
        "layer of unknown type text/plain",
    ),
    "a negative size": (
        lambda odd: odd.image("a", layers=[{**odd.blob(b"x"), "size": -1}]),
        "has -1 bytes",
    ),
    "a layer too many": (
        lambda odd: odd.image("a", layers=[odd.blob(b"x"), odd.blob(b"y")]),
        "disagree about its layers",
    ),
    "a huge manifest": (
        lambda odd: odd.manifest("a", "v1", b"[" * (9 << 20), MANIFEST),
        "answers with more than 8388608 bytes",
    ),
    "nested deeply": (
        lambda odd: odd.manifest("a", "v1", b"[" * 200_000, MANIFEST),
        "manifest .* not valid",
    ),
    "a config that is none": (
        lambda odd: odd.image("a", config=odd.blob(b"[]", CONFIG)),
        "image config is not valid",
    ),
    "an endless index": (
        lambda odd: odd.manifest(
            "a",
            "v1",
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [
                    {
                        "mediaType": INDEX,
                        "digest": "sha256:" + "0" * 64,
                        "size": 1,
                        "platform": {"os": "linux", "architecture": "amd64"},
                    }
                ],
            },
        ),
        "not here|not found",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@storing
async def test_wrong_manifests(
    odd: OddRegistry, images: ImageOverlay, tmp_path: Path, wrong: str
) -> None:
    make, message = WRONG[wrong]
    make(odd)
    with pytest.raises(SagongError, match=message):
        await pulled(images, f"{odd.host}/a:v1")
    assert all(path.stat().st_size < 1000 for path in kept(tmp_path)), "a layer was kept"


@storing
async def test_a_manifest_that_is_another_one(odd: OddRegistry, images: ImageOverlay) -> None:
    wanted = odd.image("a")["digest"]
    odd.manifests[f"/v2/a/manifests/{wanted}"] = (MANIFEST, b"{}")
    with pytest.raises(InvalidArgument, match=f"verification failed for digest {wanted}"):
        await pulled(images, f"{odd.host}/a@{wanted}")


# Layers.


def _layer_of(odd: OddRegistry) -> str:
    """The digest of the largest blob."""
    return max(odd.blobs, key=lambda key: len(odd.blobs[key]))


@storing
async def test_a_layer_that_is_another_one(
    odd: OddRegistry, images: ImageOverlay, tmp_path: Path
) -> None:
    odd.image("a")
    wrong = _layer_of(odd)
    odd.blobs[wrong] = bytes(len(odd.blobs[wrong]))
    with pytest.raises(InvalidArgument, match=f"verification failed for digest {wrong}"):
        await pulled(images, f"{odd.host}/a:v1")
    assert not [path for path in kept(tmp_path) if path.name.endswith(wrong[7:])]


@pytest.mark.parametrize("longer", [True, False])
@storing
async def test_a_layer_of_another_size(
    odd: OddRegistry, images: ImageOverlay, tmp_path: Path, longer: bool
) -> None:
    raw = gzip.compress(layer(("a", "b")), mtime=0)
    described = odd.blob(raw)
    described["size"] += -1 if longer else 1
    odd.image("a", layers=[described])
    with pytest.raises(InvalidArgument, match="manifest says"):
        await pulled(images, f"{odd.host}/a:v1")
    assert not [path for path in kept(tmp_path) if path.name.endswith(digest(raw)[7:])]


@storing
async def test_a_layer_that_breaks_off_again_and_again(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    odd.image("a")
    whole = odd.blobs[_layer_of(odd)]

    def cut(handler: Handler) -> bool:
        handler.give(200, whole[:100], Content_Length=str(len(whole)))
        handler.close_connection = True
        return True

    odd.odd[f"/v2/a/blobs/{digest(whole)}"] = cut
    with pytest.raises(Unavailable, match=r"unexpected EOF|does not resume|ended after"):
        await pulled(images, f"{odd.host}/a:v1")
    odd.odd.clear()
    await pulled(images, f"{odd.host}/a:v1")
    assert (await inspected(images, f"{odd.host}/a:v1")).layers


@storing
async def test_redirects_without_end(odd: OddRegistry, images: ImageOverlay) -> None:
    odd.image("a")
    odd.odd["/v2/a/blobs/"] = lambda handler: handler.give(307, Location=handler.path)
    with pytest.raises(InvalidArgument, match="stopped after 8 redirects"):
        await pulled(images, f"{odd.host}/a:v1")


@storing
async def test_redirected_blobs_are_fetched_without_credentials(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    odd.image("a")
    with odd_registry() as storage:
        storage.blobs = odd.blobs

        def away(handler: Handler) -> bool:
            return handler.give(307, Location=f"http://{storage.host}{handler.path}")

        def closed(handler: Handler) -> bool:
            known = handler.headers.get("Authorization", "").startswith("Basic ")
            return not known and handler.give(401, WWW_Authenticate='Basic realm="r"')

        odd.odd |= {"/v2/a/blobs/": away, "/v2/": closed}
        odd.odd = {"/v2/a/manifests": closed, "/v2/a/blobs/": lambda h: closed(h) or away(h)}
        user = Credentials(username="u", password="p")
        await pulled(images, f"{odd.host}/a:v1", credentials=user)
        assert len(storage.seen) == 2
        assert not any("Authorization" in one.headers for one in storage.seen)


@storing
async def test_foreign_layers_come_from_their_urls(odd: OddRegistry, images: ImageOverlay) -> None:
    with odd_registry() as elsewhere:
        tar = layer(("foreign", "content"))
        raw = gzip.compress(tar, mtime=0)
        kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        url = f"http://{elsewhere.host}/v2/any/blobs/{digest(raw)}"
        described = odd.blob(raw, kind, urls=["ftp://nowhere/", url])
        elsewhere.blobs[digest(raw)] = odd.blobs.pop(digest(raw))
        config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest(tar)]}}
        odd.image("a", layers=[described], config=odd.blob(json.dumps(config).encode(), CONFIG))
        await pulled(images, f"{odd.host}/a:v1")
        found = await inspected(images, f"{odd.host}/a:v1")
        assert [one.diff_id for one in found.layers] == [digest(tar)]
        await images.tag(TagRequest(source=found.id, target=f"{odd.host}/b:v1"))
        odd.odd["/v2/b/blobs/sha256"] = lambda handler: handler.give(200)
        odd.odd["/v2/b/manifests/"] = lambda handler: handler.give(201)
        told = await pushed(images, f"{odd.host}/b:v1")
        assert "Skipped foreign layer" in {item.status for item in told}
        assert f"/v2/b/blobs/{digest(raw)}" not in odd.paths("HEAD"), "it was about to be pushed"


# Busy registries.


@storing
async def test_a_busy_registry_is_asked_again(odd: OddRegistry, images: ImageOverlay) -> None:
    odd.image("a")
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slowly"}]}).encode()
    odd.odd["/v2/a/manifests"] = times(2, lambda h: h.give(429, body, Retry_After="0"))
    odd.odd["/v2/a/blobs"] = times(1, lambda h: h.give(503, b"", Retry_After="0"))
    await pulled(images, f"{odd.host}/a:v1")


async def test_who_logs_in_at_a_busy_registry_hears_so(odd: OddRegistry, tmp_path: Path) -> None:
    """It waited as a pull does, until nobody waited for it any more."""
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}).encode()
    odd.odd["/v2/"] = lambda h: h.give(429, body, Retry_After="50")
    async with local(ImageOverlay, data=tmp_path, config=FAST) as images:
        with pytest.raises(SagongError, match="toomanyrequests: slow down"):
            await images.login(LoginRequest(credentials=Credentials(server=odd.host)))
    assert len(odd.paths()) <= 2, "it was asked again"


@storing
async def test_a_registry_that_wants_to_be_left_alone_is_told_of(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "tomorrow"}]}).encode()
    odd.odd["/v2/a/manifests"] = lambda h: h.give(429, body, Retry_After="3600")
    with pytest.raises(Unavailable, match="toomanyrequests: tomorrow"):
        await pulled(images, f"{odd.host}/a:v1")
    assert len([path for path in odd.paths() if "manifests" in path]) == 1


# Mirrors and platforms.


async def test_mirrors_are_asked_first_and_passed_over(odd: OddRegistry, tmp_path: Path) -> None:
    odd.image("a")
    odd.image("b")
    with odd_registry() as good, odd_registry() as page:
        good.image("a")
        page.odd["/v2/"] = lambda handler: handler.give(200, b"<html>", Content_Type="text/html")
        mirrors = [f"http://{host}" for host in ("127.0.0.1:1", page.host, good.host)]
        config = {"registries": {"mirrors": {odd.host: mirrors}, "attempts": 2}}
        async with local(ImageOverlay, data=tmp_path, config=config) as images:
            user = Credentials(username="u", password="p")
            await pulled(images, f"{odd.host}/a:v1", credentials=user)
            assert f"/v2/a/manifests/v1?ns={odd.host.replace(':', '%3A')}" in good.paths()
            assert not [path for path in odd.paths() if "manifests" in path]
            await pulled(images, f"{odd.host}/b:v1", credentials=user)
            assert "/v2/b/manifests/v1" in odd.paths()
        for mirror in (good, page):
            assert not any("Authorization" in one.headers for one in mirror.seen)


async def test_a_silent_mirror_is_passed_over(odd: OddRegistry, tmp_path: Path) -> None:
    odd.image("a")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirrors = {"*": [f"http://127.0.0.1:{silent.getsockname()[1]}"]}
        config = {"registries": {"mirrors": mirrors, "seconds": 3600.0, "mirror_seconds": 0.2}}
        async with local(ImageOverlay, data=tmp_path, config=config) as images:
            await pulled(images, f"{odd.host}/a:v1")


async def test_a_mirror_that_lacks_a_layer(odd: OddRegistry, tmp_path: Path) -> None:
    odd.image("a")
    with odd_registry() as mirror:
        mirror.manifests, mirror.blobs = dict(odd.manifests), dict(odd.blobs)
        del mirror.blobs[_layer_of(odd)]
        config = {"registries": {"mirrors": {"*": [f"http://{mirror.host}"]}, "attempts": 2}}
        async with local(ImageOverlay, data=tmp_path, config=config) as images:
            await pulled(images, f"{odd.host}/a:v1")
            assert (await inspected(images, f"{odd.host}/a:v1")).layers


def estargz(tar: bytes) -> bytes:
    """Members of gzip one after the other, the last of nothing but a note of where the index is."""
    note = b"SG\x16\x00" + b"0" * 16 + b"STARGZ"
    footer = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + len(note).to_bytes(2, "little") + note
    ending = b"\x01\0\0\xff\xff" + bytes(8)
    return gzip.compress(tar[:1024], mtime=0) + gzip.compress(tar[1024:], mtime=0) + footer + ending


def chunked(tar: bytes) -> bytes:
    """Frames of zstd with an index in one that is to be skipped (zstd:chunked)."""
    pack = zstandard.ZstdCompressor().compress
    skipped = b"\x50\x2a\x4d\x18" + (64).to_bytes(4, "little") + b"GNUlInUx" * 8
    return pack(tar[:1024]) + skipped + pack(tar[1024:]) + skipped


@storing
async def test_as_many_layers_as_docker_takes_of_every_form(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    """127 of them: empty ones, the same twice, and those of writers that think of lazy readers."""
    zstd = "application/vnd.oci.image.layer.v1.tar+zstd"
    tars = [layer((f"f{number}", str(number))) for number in range(125)]
    tars += [bytes(1024), tars[0]]
    packed = [(estargz(tars[0]), LAYER), (chunked(tars[1]), zstd)]
    packed += [(gzip.compress(tar, mtime=0), LAYER) for tar in tars[2:126]]
    packed.append(packed[0])
    config: dict[str, Any] = {"architecture": "amd64", "os": "linux"}
    config["rootfs"] = {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}
    odd.image(
        "a",
        config=odd.blob(json.dumps(config).encode(), CONFIG),
        layers=[odd.blob(raw, kind) for raw, kind in packed],
    )
    told = await pulled(images, f"{odd.host}/a:v1")
    assert len({one.id for one in told if one.status == "Pull complete"}) == 126
    lab = ImageLab(images)
    prepared = await images.prepare(PrepareRequest(id="many", image=f"{odd.host}/a:v1"))
    assert len(prepared.image.layers) == 127 and len(prepared.lower) == len(set(prepared.lower))
    for number in (0, 1, 60, 124):
        assert await read_text(lab, "many", f"/f{number}") == str(number)


@storing
async def test_a_registry_s_warnings_are_told_once(odd: OddRegistry, images: ImageOverlay) -> None:
    odd.image("a")
    warnings = ('299 - "it is an \\"old\\" copy"', "299 otherwise", '199 - "of another kind"')

    def warned(handler: Handler) -> bool:
        kind, raw = odd.manifests[handler.path]
        handler.send_response(200)
        for text in (*warnings, warnings[0]):
            handler.send_header("Warning", text)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)
        return True

    odd.odd["/v2/a/manifests/"] = warned
    told = [one.status for one in await pulled(images, f"{odd.host}/a:v1")]
    assert told[:2] == ['Warning: it is an "old" copy', "Pulling from a"]
    assert sum("Warning" in one for one in told) == 1


@storing
async def test_platforms_are_chosen_of_an_index(odd: OddRegistry, images: ImageOverlay) -> None:
    platforms = [("amd64", ""), ("arm", "v6"), ("arm", "v7"), ("arm64", "v8"), ("riscv64", "")]
    described = []
    for architecture, variant in platforms:
        facts = {"os": "linux", "architecture": architecture}
        facts |= {"variant": variant} if variant else {}
        one = odd.image("a", f"{architecture}{variant}", architecture=f"{architecture}{variant}")
        described.append({**one, "platform": facts})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": described}
    top = odd.manifest("a", "all", index)
    for wanted, found in (
        ("", "amd64"),
        ("linux/arm/v7", "armv7"),
        ("linux/arm/v6", "armv6"),
        ("linux/arm", "armv7"),
        ("arm64", "arm64v8"),
        ("linux/arm64/v8", "arm64v8"),
        ("linux/riscv64", "riscv64"),
    ):
        told = await pulled(images, f"{odd.host}/a:all", platform=wanted)
        assert (await inspected(images, f"{odd.host}/a:all")).architecture == found
        assert told[-1].digest == top["digest"]
    with pytest.raises(NotFound, match="no matching manifest for linux/arm/v5"):
        await pulled(images, f"{odd.host}/a:all", platform="linux/arm/v5")
    request = DistributionRequest(reference=f"{odd.host}/a:all")
    told_of = await images.distribution(request)
    assert told_of.digest == top["digest"] and told_of.media_type == INDEX
    assert [(one.architecture, one.variant) for one in told_of.platforms] == platforms


# Tokens.


class Tokens:
    """A token server beside the registry; it wants bearer tokens for everything."""

    def __init__(self, odd: OddRegistry) -> None:
        self.odd = odd
        self.good = "good"
        odd.odd = {"/token": self.token, "/v2/": self.closed}
        self.refuse_get = False

    def token(self, handler: Handler) -> bool:
        """Give a token, and an identity token if that is asked for."""
        seen = self.odd.seen[-1]
        if handler.command == "GET" and self.refuse_get:
            return handler.give(405)
        offline = "offline_token=true" in seen.path
        answer = {"token": self.good, **({"refresh_token": "identity"} if offline else {})}
        return handler.give_json(answer)

    def closed(self, handler: Handler) -> bool:
        """Refuse what has no token."""
        if handler.headers.get("Authorization") == f"Bearer {self.good}":
            return False
        realm = f"http://{self.odd.host}/token"
        challenge = f'Bearer realm="{realm}",service="s",scope="repository:a:pull"'
        return handler.give(401, WWW_Authenticate=challenge)

    def asked(self) -> list[str]:
        """What the token server was asked."""
        return [
            f"{one.method} {one.path} {one.body.decode()}"
            for one in self.odd.seen
            if one.path.startswith("/token")
        ]


@storing
async def test_nobody_gets_a_token_of_nobody(odd: OddRegistry, images: ImageOverlay) -> None:
    odd.image("a")
    tokens = Tokens(odd)
    await pulled(images, f"{odd.host}/a:v1")
    (asked,) = tokens.asked()
    assert "account" not in asked and "scope=repository%3Aa%3Apull" in asked


@storing
async def test_an_identity_token_gets_tokens(odd: OddRegistry, images: ImageOverlay) -> None:
    odd.image("a")
    tokens = Tokens(odd)
    await pulled(images, f"{odd.host}/a:v1", credentials=Credentials(identity="mine"))
    (asked,) = tokens.asked()
    assert asked.startswith("POST") and "refresh_token=mine" in asked


@storing
async def test_a_registry_token_is_sent_as_it_is(odd: OddRegistry, images: ImageOverlay) -> None:
    odd.image("a")
    tokens = Tokens(odd)
    await pulled(images, f"{odd.host}/a:v1", credentials=Credentials(token="good"))
    assert tokens.asked() == []
    await pulled(images, f"{odd.host}/a:v1", credentials=Credentials(token="an identity"))
    assert "refresh_token=an+identity" in tokens.asked()[0]


@storing
async def test_a_token_server_of_the_second_protocol(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    odd.image("a")
    tokens = Tokens(odd)
    tokens.refuse_get = True
    user = Credentials(username="u", password="p w")
    await pulled(images, f"{odd.host}/a:v1", credentials=user)
    assert "grant_type=password" in tokens.asked()[1] and "password=p+w" in tokens.asked()[1]


@storing
async def test_a_token_that_gets_too_old_is_renewed(odd: OddRegistry, images: ImageOverlay) -> None:
    odd.image("a")
    tokens = Tokens(odd)

    def outdate(handler: Handler) -> bool:
        tokens.good = "newer"
        return False

    odd.odd = {f"/v2/a/blobs/{_layer_of(odd)}": times(1, outdate), **odd.odd}
    await pulled(images, f"{odd.host}/a:v1")
    assert len(tokens.asked()) == 2


@storing
async def test_logins(odd: OddRegistry, images: ImageOverlay) -> None:
    Tokens(odd)
    user = Credentials(username="u", password="p", server=f"https://{odd.host}/v1/")
    assert (await images.login(LoginRequest(credentials=user))).identity == "identity"
    odd.odd = {"/v2/": lambda h: h.give(401, WWW_Authenticate='Basic realm="r"')}
    told = f"login attempt to http://{odd.host}/v2/ failed with status: 401 Unauthorized"
    with pytest.raises(Unauthenticated, match=told):
        await images.login(LoginRequest(credentials=user))


@storing
async def test_a_token_server_s_refusal_is_told_once(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    Tokens(odd)
    fault = {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}
    odd.odd["/token"] = lambda handler: handler.give_json(fault, 401)
    user = Credentials(username="u", password="p", server=odd.host)
    told = f'^Get "http://{odd.host}/v2/": unauthorized: wrong password$'
    with pytest.raises(Unauthenticated, match=told):
        await images.login(LoginRequest(credentials=user))


@storing
async def test_a_token_that_is_not_enough_is_a_denial(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    """As Docker Hub answers who asks for a repository that is not there, or not for them."""
    odd.image("a")
    await pulled(images, f"{odd.host}/a:v1")
    await images.tag(TagRequest(source=f"{odd.host}/a:v1", target=f"{odd.host}/b:v1"))
    Tokens(odd)
    challenge = f'Bearer realm="http://{odd.host}/token",service="s",error="insufficient_scope"'
    narrow = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
    for prefix in ("/v2/b/", "/v2/none/"):
        odd.odd = {
            prefix: lambda handler: handler.give_json(narrow, 401, WWW_Authenticate=challenge),
            **odd.odd,
        }
    denied = "denied: requested access to the resource is denied"
    with pytest.raises(NotFound, match=f"^pull access denied for {odd.host}/none, .*: {denied}$"):
        await pulled(images, f"{odd.host}/none:v1")
    with pytest.raises(PermissionDenied, match=f"^{denied}$"):
        await pushed(images, f"{odd.host}/b:v1")


@storing
async def test_token_servers_that_answer_rubbish(odd: OddRegistry, images: ImageOverlay) -> None:
    odd.image("a")
    tokens = Tokens(odd)
    for rubbish in (b"<html>", b"{}", b'{"token": "a\\nb"}', b'{"token": 1}'):
        odd.odd["/token"] = lambda handler, rubbish=rubbish: handler.give(200, rubbish)  # type: ignore[misc]
        with pytest.raises(Unauthenticated, match="did not include a token"):
            await pulled(images, f"{odd.host}/a:v1")
    assert tokens.asked()


# Search.


@storing
async def test_the_search_api_is_asked(odd: OddRegistry, images: ImageOverlay) -> None:
    found = [
        {"name": "a/one", "description": "first", "star_count": 7, "is_official": True},
        {"name": "a/two", "description": None, "star_count": 3, "is_automated": True},
    ]
    odd.odd["/v1/search?q=a+b&n=10"] = lambda handler: handler.give_json({"results": found})

    async def names(**facts: Any) -> list[str]:
        request = SearchRequest(term=f"{odd.host}/a b", limit=10, **facts)
        return [one.name for one in (await images.search(request)).results]

    assert await names() == [f"{odd.host}/a/one", f"{odd.host}/a/two"]
    assert await names(official=True) == [f"{odd.host}/a/one"]
    assert await names(automated=False) == [f"{odd.host}/a/one"]
    assert await names(stars=4) == [f"{odd.host}/a/one"]


@storing
async def test_a_search_shows_who_asks(odd: OddRegistry, images: ImageOverlay) -> None:
    """Whoever answers anybody would not ask for it, and show less."""

    def private(handler: Handler) -> bool:
        known = handler.headers.get("Authorization") == "Basic dTpw"
        return handler.give_json({"results": [{"name": "mine"}] if known else []})

    odd.odd["/v1/search"] = private
    user = Credentials(username="u", password="p")
    found = await images.search(SearchRequest(term=f"{odd.host}/m", credentials=user))
    assert [one.name for one in found.results] == [f"{odd.host}/mine"]


@storing
async def test_a_catalog_is_looked_through_page_by_page(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    def page(handler: Handler) -> bool:
        last = int(handler.path.rpartition("last=")[2] or 0) if "last=" in handler.path else 0
        names = [f"repo/{number:04}" for number in range(last, last + 10)]
        if last >= 50:
            return handler.give_json({"repositories": names})
        link = f'</v2/_catalog?n=10&last={last + 10}>; rel="next"'
        return handler.give_json({"repositories": names}, Link=link)

    odd.odd["/v2/_catalog"] = page
    found = await images.search(SearchRequest(term=f"{odd.host}/repo/005", limit=3))
    assert [one.name[-4:] for one in found.results] == ["0050", "0051", "0052"]


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"repositories": [1]}', b"<html>"])
@storing
async def test_a_catalog_of_rubbish(odd: OddRegistry, images: ImageOverlay, body: bytes) -> None:
    odd.odd["/v2/_catalog"] = lambda handler: handler.give(200, body)
    with pytest.raises(InvalidArgument, match="the registry's catalog is not valid"):
        await images.search(SearchRequest(term=f"{odd.host}/a"))


# Pushes.


@storing
async def test_what_a_token_server_says_is_told(odd: OddRegistry, images: ImageOverlay) -> None:
    realm = f'Bearer realm="http://{odd.host}/token",service="s"'
    odd.odd = {"/v2/": lambda handler: handler.give(401, WWW_Authenticate=realm)}
    for status, body, told in (
        (401, b'{"Errors": [{"Code": "UNAUTHORIZED", "Message": "no"}]}', "^unauthorized: no$"),
        (403, b"no way", 'error parsing HTTP 403 response body: no JSON: "no way"$'),
        (403, b'{"errors": "odd"}', "denied: requested access to the resource is denied$"),
        (401, b'{"errors": [{"code": 1}]}', "unauthorized: authentication required$"),
    ):
        odd.odd["/token"] = lambda h, status=status, body=body: h.give(status, body)  # type: ignore[misc]
        with pytest.raises(Unauthenticated, match=told):
            await pulled(images, f"{odd.host}/a:v1")


@storing
async def test_an_upload_that_is_forgotten_begins_anew(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    tar = layer(("big", "x" * (5 << 20)))
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest(tar)]}}
    blob = gzip.compress(tar, 0, mtime=0)
    described = odd.blob(json.dumps(config).encode(), CONFIG)
    odd.image("a", config=described, layers=[odd.blob(blob)])
    await pulled(images, f"{odd.host}/a:v1")
    begun: list[str] = []

    def upload(handler: Handler) -> bool:
        seen = odd.seen[-1]
        if seen.method == "POST":
            begun.append(f"/v2/b/blobs/uploads/{len(begun)}")
            return handler.give(202, Location=begun[-1])
        if len(begun) == 1:
            return handler.give(503 if seen.method == "PATCH" else 404, Retry_After="0")
        return handler.give(202 if seen.method == "PATCH" else 201, Location=seen.path)

    odd.odd["/v2/b/blobs/uploads/"] = upload
    odd.odd["/v2/b/blobs/sha256"] = lambda handler: handler.give(404)
    odd.odd["/v2/b/manifests/"] = lambda handler: handler.give(201)
    await images.tag(TagRequest(source=f"{odd.host}/a:v1", target=f"{odd.host}/b:v1"))
    assert (await pushed(images, f"{odd.host}/b:v1"))[-1].digest
    assert [one.body for one in odd.seen if one.method == "PATCH" and one.path == begun[1]] == [
        blob
    ]


@storing
async def test_a_push_goes_on_where_the_registry_got_to(
    odd: OddRegistry, images: ImageOverlay
) -> None:
    """A large blob whose connection breaks is not sent from the beginning again."""
    name = f"{odd.host}/a:v1"
    content = bytes(range(256)) * (6 << 12)
    odd.image("a", layers=[odd.blob(layer(("big", content.hex())), LAYER.removesuffix("+gzip"))])
    tar = odd.blobs[_layer_of(odd)]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest(tar)]}}
    odd.image(
        "a",
        config=odd.blob(json.dumps(config).encode(), CONFIG),
        layers=[odd.blob(gzip.compress(tar, 0, mtime=0))],
    )
    await pulled(images, name)
    half, got = 3 << 20, bytearray()

    def upload(handler: Handler) -> bool:
        seen = odd.seen[-1]
        if seen.method == "POST":
            return handler.give(202, Location="/v2/b/blobs/uploads/1")
        if seen.method == "PATCH" and not got:
            got.extend(seen.body[:half])
            handler.close_connection = True
            handler.connection.shutdown(2)
            return True
        if seen.method == "GET":
            return handler.give(
                204, Range=f"0-{len(got) - 1}", Location="/v2/b/blobs/uploads/1?again"
            )
        if seen.method == "PATCH":
            assert seen.headers["Content-Range"].startswith(f"{half}-")
            got.extend(seen.body)
            return handler.give(202, Location="/v2/b/blobs/uploads/1?end")
        return handler.give(201)

    odd.odd["/v2/b/blobs/uploads/"] = upload
    odd.odd["/v2/b/blobs/sha256"] = lambda handler: handler.give(404)
    odd.odd["/v2/b/manifests/"] = lambda handler: handler.give(201)
    found = await inspected(images, name)
    await images.tag(TagRequest(source=found.id, target=f"{odd.host}/b:v1"))
    await pushed(images, f"{odd.host}/b:v1")
    assert bytes(got) == odd.blobs[_layer_of(odd)]


@pytest.mark.parametrize("wanted", ["docker", "oci", "same"])
async def test_manifests_are_pushed_in_the_wanted_types(
    odd: OddRegistry, tmp_path: Path, wanted: str
) -> None:
    config = {"registries": {"push_as": wanted, "attempts": 2}}
    odd.image("a")
    odd.odd["/v2/b/blobs/sha256"] = lambda handler: handler.give(200)
    odd.odd["/v2/b/manifests/"] = lambda handler: handler.give(201)
    async with local(ImageOverlay, data=tmp_path, config=config) as images:
        await pulled(images, f"{odd.host}/a:v1")
        found = await inspected(images, f"{odd.host}/a:v1")
        await images.tag(TagRequest(source=found.id, target=f"{odd.host}/b:v1"))
        await pushed(images, f"{odd.host}/b:v1")
    (put,) = [one for one in odd.seen if one.method == "PUT"]
    sent = json.loads(put.body)
    assert put.headers["Content-Type"] == sent["mediaType"]
    kinds = {sent["mediaType"], sent["config"]["mediaType"], sent["layers"][0]["mediaType"]}
    assert all(("docker" in kind) == (wanted == "docker") for kind in kinds)
