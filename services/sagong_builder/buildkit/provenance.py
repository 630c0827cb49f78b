"""Provenance: what an image was made of and how, as a statement that goes out beside it. Pure.

Clients ask for it by `attest:provenance`; what they add unasked (`inline-only`) is left out.
Source: SLSA provenance 0.2, in-toto statements 0.1; BuildKit's docs/attestations.
"""

from __future__ import annotations

import csv
import datetime
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sagong.contracts.image import Artifact, Image
from sagong.errors import InvalidArgument, Unimplemented
from sagong.model import oci, references

__all__ = [
    "PREDICATE",
    "Attesting",
    "Material",
    "artifact",
    "digest_of",
    "predicate",
    "read_attesting",
    "statement",
]

_PREFIX = "attest:"
_STATEMENT = "https://in-toto.io/Statement/v0.1"
PREDICATE = "https://slsa.dev/provenance/v0.2"
_BUILD = "https://mobyproject.org/buildkit@v1"
_LAYER = "application/vnd.in-toto+json"
# Of the frontend's options what says how it was built; mode=max adds what it was given.
_GIVEN = ("build-arg:", "label:", "context:")
_SHOWN = ("target", "platform", "no-cache", "add-hosts", "force-network-mode")


@dataclass(frozen=True)
class Attesting:
    """What is wanted: `full` tells the build's arguments, too."""

    full: bool = False
    builder: str = ""


@dataclass(frozen=True)
class Material:
    """An image that was begun or copied from."""

    name: str
    digest: str
    platform: str


def read_attesting(options: Mapping[str, str]) -> Attesting | None:
    """What the client asks for; None if it is nothing."""
    for name in options:
        if name.startswith(_PREFIX) and name != f"{_PREFIX}provenance":
            raise Unimplemented(
                f"{name.removeprefix(_PREFIX)[:50]} can't be attested: no scanners of images are run "
                "here; scan what was built"
            )
    text = options.get(f"{_PREFIX}provenance")
    if text is None:
        return None
    fields = dict(part.partition("=")[::2] for part in next(csv.reader([text]), []))
    mode = fields.get("mode", "min")
    if mode not in ("min", "max"):
        raise InvalidArgument(f'invalid provenance mode "{mode[:50]}"')
    if any(fields.get(name) in ("1", "true") for name in ("inline-only", "disabled")):
        return None
    return Attesting(mode == "max", fields.get("builder-id", ""))


def predicate(
    wanted: Attesting,
    options: Mapping[str, str],
    ref: str,
    platform: str,
    times: tuple[float, float],
    materials: Iterable[Material],
) -> dict[str, Any]:
    """What is said of an image for `platform`; `times` are when its build began and ended."""
    given = {k: v for k, v in options.items() if k.startswith(_GIVEN)}
    args = {k: options[k] for k in _SHOWN if k in options} | (given if wanted.full else {})
    metadata: dict[str, Any] = {
        "buildInvocationID": ref,
        "buildStartedOn": _moment(times[0]),
        "buildFinishedOn": _moment(times[1]),
        # Contexts are not among the materials.
        "completeness": {
            "parameters": wanted.full or not given,
            "environment": True,
            "materials": False,
        },
        "reproducible": False,
    }
    vcs = {k[4:]: v for k, v in sorted(options.items()) if k.startswith("vcs:")}
    if vcs:
        metadata[f"{_BUILD}#metadata"] = {"vcs": vcs}
    return {
        "builder": {"id": wanted.builder},
        "buildType": _BUILD,
        "materials": [_material(material) for material in materials],
        "invocation": {
            "configSource": _source(options),
            "parameters": {
                "frontend": "dockerfile.v0",
                "args": dict(sorted(args.items())),
                **_locals(options),
            },
            "environment": {"platform": platform},
        },
        "metadata": metadata,
    }


def _source(options: Mapping[str, str]) -> dict[str, str]:
    """Where the Dockerfile lies; contexts that only the client knows have no address."""
    context = options.get("context", "")
    address = {} if context.startswith("http://buildkit-session/") else {"uri": context}
    found = {**(address if context else {}), "entryPoint": options.get("filename") or "Dockerfile"}
    return found


def _locals(options: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    """The client's directories that were read."""
    directories = [] if options.get("context") else ["context"]
    if not options.get("context") or options.get("dockerfilekey"):
        directories.append("dockerfile")
    return {"locals": [{"name": name} for name in directories]} if directories else {}


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


def digest_of(image: Image) -> str:
    """What registries know an image by, if one had it."""
    return image.digests[0].rpartition("@")[2] if image.digests else image.manifest_digest


def _material(material: Material) -> dict[str, Any]:
    reference = references.parse(material.name).tagged
    return {
        "uri": _package(reference, material.platform),
        "digest": _digest(material.digest),
    }


def _package(reference: references.Reference, platform: str) -> str:
    """A package URL of an image."""
    name = urllib.parse.quote(reference.familiar_name)
    query = urllib.parse.urlencode({"platform": platform})
    return f"pkg:docker/{name}@{reference.tag or reference.digest}?{query}"


def _digest(digest: str) -> dict[str, str]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def statement(said: Mapping[str, Any], subjects: Sequence[tuple[str, str]]) -> bytes:
    """A predicate about things by their names and digests."""
    return oci.encode(
        {
            "_type": _STATEMENT,
            "predicateType": PREDICATE,
            "subject": [{"name": name, "digest": _digest(digest)} for name, digest in subjects],
            "predicate": said,
        }
    )


def artifact(
    said: Mapping[str, Any], digest: str, platform: str, names: Sequence[references.Reference]
) -> Artifact:
    """A predicate about the image whose manifest has this digest, as registries keep it."""
    subjects = [(_package(name, platform), digest) for name in names]
    layer = statement(said, subjects or [("_", digest)])
    diff_id = oci.digest_of(layer)
    config = oci.encode(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    )
    manifest = oci.Manifest(
        schema_version=2,
        media_type=oci.MediaType.OCI_MANIFEST,
        config=oci.Descriptor(
            media_type=oci.MediaType.OCI_CONFIG, digest=oci.digest_of(config), size=len(config)
        ),
        layers=(
            oci.Descriptor(
                media_type=_LAYER,
                digest=diff_id,
                size=len(layer),
                annotations={"in-toto.io/predicate-type": PREDICATE},
            ),
        ),
    )
    return Artifact(
        manifest=msgspec.json.encode(manifest),
        blobs=(config, layer),
        annotations=(
            ("vnd.docker.reference.digest", digest),
            ("vnd.docker.reference.type", "attestation-manifest"),
        ),
    )
