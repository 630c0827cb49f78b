"""What every implementation of slot `registry` must do, sentence by sentence of its contract.

The lab holds the candidate and the loopback port at which it serves clients, who may be nobody in
particular. Names are the checks' own, so one candidate can serve them all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from dataclasses import dataclass

from sagong.contracts.registry import (
    Account,
    AccountRef,
    CollectRequest,
    Registry,
    RepositoryQuery,
    RepositoryRef,
    Visibility,
    VisibilityRequest,
)
from sagong.errors import InvalidArgument, NotFound

__all__ = ["Pushed", "RegistryLab", "asked", "pushed"]

# Of the password "ferry".
_HASH = "$2b$05$0pBzHiHkpNcUyU1RfKC0EOenk5BE.1lJx/USL9vlqpuhf1rGipZRe"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class RegistryLab:
    """The candidate, and where clients reach it."""

    registry: Registry
    port: int


@dataclass(frozen=True)
class Pushed:
    """An image that was pushed."""

    repository: str
    digest: str
    blob: str
    size: int


async def asked(
    lab: RegistryLab, method: str, target: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request of a client: status, headers and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    lines = [f"{method} {target} HTTP/1.1", "Host: registry", "Connection: close"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    try:
        writer.write("\r\n".join(lines).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        found = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        return int(head[0].split()[1]), found, await reader.read()
    finally:
        writer.close()


async def pushed(lab: RegistryLab, repository: str, tag: str) -> Pushed:
    """Push a small image that nobody has seen before."""
    config = json.dumps({"made": secrets.token_hex(8)}).encode()
    blob = f"sha256:{hashlib.sha256(config).hexdigest()}"
    target = f"/v2/{repository}/blobs/uploads/"
    status, headers, _ = await asked(lab, "POST", target)
    assert status == 202
    place = headers["location"]
    place = "/" + place.partition("://")[2].partition("/")[2] if "://" in place else place
    joint = "&" if "?" in place else "?"
    status, _, _ = await asked(lab, "PUT", f"{place}{joint}digest={blob}", config)
    assert status == 201
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": blob,
            "size": len(config),
        },
        "layers": [],
    }
    manifest = json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    target = f"/v2/{repository}/manifests/{tag or digest}"
    status, _, said = await asked(lab, "PUT", target, manifest, Content_Type=_MANIFEST)
    assert status == 201, said
    return Pushed(repository, digest, blob, len(config) + len(manifest))


def _fresh() -> str:
    return f"suite/{secrets.token_hex(6)}"


async def _there(lab: RegistryLab, target: str) -> bool:
    return (await asked(lab, "HEAD", target))[0] == 200


async def check_what_is_pushed_is_listed(lab: RegistryLab) -> None:
    top = _fresh()
    names = [f"{top}/{letter}" for letter in "abc"]
    sizes = {name: (await pushed(lab, name, "v1")).size for name in names}
    found = await lab.registry.repositories(RepositoryQuery(prefix=top))
    assert [one.name for one in found.repositories] == names and not found.more
    for one in found.repositories:
        assert (one.tags, one.manifests, one.blobs) == (1, 1, 1)
        assert one.size == sizes[one.name] and one.changed > 0
        assert one.visibility is Visibility.CONFIGURED


async def check_repositories_come_in_pages(lab: RegistryLab) -> None:
    top = _fresh()
    for letter in "abc":
        await pushed(lab, f"{top}/{letter}", "v1")
    first = await lab.registry.repositories(RepositoryQuery(prefix=top, limit=2))
    assert [one.name for one in first.repositories] == [f"{top}/a", f"{top}/b"] and first.more
    after = first.repositories[-1].name
    rest = await lab.registry.repositories(RepositoryQuery(prefix=top, after=after, limit=2))
    assert [one.name for one in rest.repositories] == [f"{top}/c"] and not rest.more


async def check_a_page_of_nothing_is_refused(lab: RegistryLab) -> None:
    try:
        await lab.registry.repositories(RepositoryQuery(limit=0))
    except InvalidArgument:
        return
    raise AssertionError("a limit of 0 was taken")


async def check_a_repository_is_described(lab: RegistryLab) -> None:
    name = _fresh()
    first, second = await pushed(lab, name, "v1"), await pushed(lab, name, "v2")
    found = await lab.registry.describe(RepositoryRef(name=name))
    assert found.repository.name == name
    assert {one.tag: one.digest for one in found.tags} == {"v1": first.digest, "v2": second.digest}
    by_digest = {one.digest: one for one in found.manifests}
    assert set(by_digest) == {first.digest, second.digest}
    assert by_digest[first.digest].size == first.size
    assert by_digest[first.digest].media_type == _MANIFEST


async def check_what_is_not_there_is_not_found(lab: RegistryLab) -> None:
    name = _fresh()
    request = VisibilityRequest(name=name, visibility=Visibility.PUBLIC)
    for call in (
        lab.registry.describe(RepositoryRef(name=name)),
        lab.registry.set_visibility(request),
    ):
        try:
            await call
        except NotFound:
            continue
        raise AssertionError("an unknown repository was found")
    await lab.registry.remove(RepositoryRef(name=name))


async def check_visibility_is_kept(lab: RegistryLab) -> None:
    name = _fresh()
    await pushed(lab, name, "v1")
    for visibility, public in ((Visibility.PUBLIC, True), (Visibility.PRIVATE, False)):
        request = VisibilityRequest(name=name, visibility=visibility)
        told = await lab.registry.set_visibility(request)
        assert (told.visibility, told.public) == (visibility, public)
        found = await lab.registry.describe(RepositoryRef(name=name))
        assert found.repository == told
    await pushed(lab, name, "v2")
    found = await lab.registry.describe(RepositoryRef(name=name))
    assert found.repository.visibility is Visibility.PRIVATE


async def check_a_removed_repository_is_gone(lab: RegistryLab) -> None:
    name = _fresh()
    image = await pushed(lab, name, "v1")
    await lab.registry.remove(RepositoryRef(name=name))
    await lab.registry.remove(RepositoryRef(name=name))
    assert not await _there(lab, f"/v2/{name}/manifests/v1")
    assert not await _there(lab, f"/v2/{name}/blobs/{image.blob}")
    found = await lab.registry.repositories(RepositoryQuery(prefix=name))
    assert found.repositories == ()


async def check_what_is_tagged_is_not_collected(lab: RegistryLab) -> None:
    name = _fresh()
    image = await pushed(lab, name, "v1")
    await lab.registry.collect(CollectRequest(grace=0.0))
    assert await _there(lab, f"/v2/{name}/manifests/{image.digest}")
    assert await _there(lab, f"/v2/{name}/blobs/{image.blob}")


async def check_what_has_no_tag_is_collected(lab: RegistryLab) -> None:
    name = _fresh()
    old, new = await pushed(lab, name, "v1"), await pushed(lab, name, "v1")
    spared = await lab.registry.collect(CollectRequest(grace=3600.0))
    assert await _there(lab, f"/v2/{name}/manifests/{old.digest}"), spared
    told = await lab.registry.collect(CollectRequest(grace=0.0, dry_run=True))
    assert told.manifests >= 1 and told.blobs >= 1 and told.bytes == 0
    assert await _there(lab, f"/v2/{name}/manifests/{old.digest}")
    done = await lab.registry.collect(CollectRequest(grace=0.0))
    assert done.manifests >= 1 and done.blobs >= 1 and done.bytes > 0
    assert not await _there(lab, f"/v2/{name}/manifests/{old.digest}")
    assert not await _there(lab, f"/v2/{name}/blobs/{old.blob}")
    assert await _there(lab, f"/v2/{name}/blobs/{new.blob}")


async def check_uploads_that_nobody_goes_on_with_are_collected(lab: RegistryLab) -> None:
    name = _fresh()
    _, headers, _ = await asked(lab, "POST", f"/v2/{name}/blobs/uploads/")
    assert (await lab.registry.collect(CollectRequest(grace=3600.0))).uploads == 0
    assert (await asked(lab, "GET", headers["location"]))[0] == 204
    assert (await lab.registry.collect(CollectRequest(grace=0.0))).uploads >= 1
    assert (await asked(lab, "GET", headers["location"]))[0] == 404


async def check_accounts_are_kept_and_clients_must_log_in(lab: RegistryLab) -> None:
    name = f"suite-{secrets.token_hex(4)}"
    assert (await asked(lab, "GET", "/v2/"))[0] == 200
    await lab.registry.set_account(Account(name=name, hash=_HASH))
    try:
        assert name in (await lab.registry.accounts()).names
        status, headers, _ = await asked(lab, "GET", "/v2/")
        assert status == 401 and headers["www-authenticate"]
    finally:
        await lab.registry.remove_account(AccountRef(name=name))
    await lab.registry.remove_account(AccountRef(name=name))
    assert name not in (await lab.registry.accounts()).names
    assert (await asked(lab, "GET", "/v2/"))[0] == 200


async def check_accounts_that_are_none_are_refused(lab: RegistryLab) -> None:
    for account in (
        Account(name="", hash=_HASH),
        Account(name="a:b", hash=_HASH),
        Account(name="a\nb", hash=_HASH),
        Account(name="plain", hash="ferry"),
        Account(name="md5", hash="$apr1$x$y"),
    ):
        try:
            await lab.registry.set_account(account)
        except InvalidArgument:
            continue
        raise AssertionError(f"{account} was taken")
