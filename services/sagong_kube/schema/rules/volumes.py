"""Checks of a pod's volumes and of persistent volume sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sagong.errors import InvalidArgument
from sagong.model import names, quantity
from sagong_kube.schema.rules.findings import Findings

__all__ = ["SOURCES", "check_local_path", "check_quantity", "check_volumes"]

Document = dict[str, Any]
SourceCheck = Callable[[Findings, Document, str], None]

_HOST_PATH_TYPES: Final = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_MODE_SAID: Final = "must be a number between 0 and 0777 (octal), both inclusive"
_FIELD_PATHS: Final = ("metadata.annotations", "metadata.labels", "metadata.name")
_DOWNWARD_FIELDS: Final = (*_FIELD_PATHS, "metadata.namespace", "metadata.uid")


def check_quantity(found: Findings, said: Any, path: str, *, positive: bool = False) -> int:
    """A quantity that may not be negative; its nano-units, 0 if it is none."""
    try:
        amount = quantity.nano(said)
    except InvalidArgument as error:
        found.invalid(path, said, error.message)
        return 0
    if amount < 0:
        found.invalid(path, said, "must be greater than or equal to 0")
    elif positive and amount == 0:
        found.invalid(path, said, "must be greater than zero")
    return amount


def check_local_path(found: Findings, text: str, path: str, *, descending: bool = True) -> None:
    """A relative path that does not leave its directory."""
    if descending and text.startswith("/"):
        found.invalid(path, text, "must be a relative path")
    if ".." in text.replace("\\", "/").split("/"):
        found.invalid(path, text, "must not contain '..'")


def check_volumes(found: Findings, volumes: list[Document], path: str) -> dict[str, Document]:
    """All volumes of a pod; gives them by name."""
    known: dict[str, Document] = {}
    for at, volume in enumerate(volumes):
        where, name = f"{path}[{at}]", volume.get("name", "")
        before = len(found.errors)
        _check_source(found, volume, where)
        if not name:
            found.required(f"{where}.name")
        else:
            found.each(f"{where}.name", name, names.check_dns_label(name))
        if name in known:
            found.duplicate(f"{where}.name", name)
        if len(found.errors) == before:
            known[name] = volume
        else:
            known.setdefault(name, volume)
    return known


def _check_source(found: Findings, volume: Document, path: str) -> None:
    given = [key for key in volume if key != "name"]
    if not given:
        found.required(path, "must specify a volume type")
        return
    for extra in given[1:]:
        found.forbidden(f"{path}.{extra}", "may not specify more than 1 volume type")
    check = SOURCES.get(given[0])
    if check is not None:
        check(found, volume[given[0]], f"{path}.{given[0]}")


def _fields(*required: str) -> SourceCheck:
    def check(found: Findings, source: Document, path: str) -> None:
        for field in required:
            if not source.get(field):
                found.required(f"{path}.{field}")

    return check


def _empty_dir(found: Findings, source: Document, path: str) -> None:
    if source.get("sizeLimit") is not None:
        before = len(found.errors)
        check_quantity(found, source["sizeLimit"], f"{path}.sizeLimit")
        if len(found.errors) > before:
            found.errors.pop()
            found.forbidden(
                f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"
            )


def _host_path(found: Findings, source: Document, path: str) -> None:
    target = source.get("path", "")
    if not target:
        found.required(f"{path}.path")
        return
    if ".." in target.split("/"):
        found.invalid(f"{path}.path", target, "must not contain '..'")
    kind = source.get("type") or ""
    if kind not in _HOST_PATH_TYPES:
        found.unsupported(f"{path}.type", kind, _HOST_PATH_TYPES)


def _mode(found: Findings, source: Document, field: str, path: str) -> None:
    mode = source.get(field)
    if mode is not None and not 0 <= mode <= 0o777:
        found.invalid(f"{path}.{field}", mode, _MODE_SAID)


def _items(found: Findings, items: list[Document], path: str) -> None:
    for at, item in enumerate(items):
        where = f"{path}.items[{at}]"
        if not item.get("key"):
            found.required(f"{where}.key")
        if not item.get("path"):
            found.required(f"{where}.path")
        check_local_path(found, item.get("path", ""), f"{where}.path")
        _mode(found, item, "mode", where)


def _secret(found: Findings, source: Document, path: str) -> None:
    if not source.get("secretName"):
        found.required(f"{path}.secretName")
    if "defaultMode" not in source:
        found.required(f"{path}.defaultMode")
    _mode(found, source, "defaultMode", path)
    _items(found, source.get("items") or [], path)


def _config_map(found: Findings, source: Document, path: str) -> None:
    if not source.get("name"):
        found.required(f"{path}.name")
    _mode(found, source, "defaultMode", path)
    _items(found, source.get("items") or [], path)


def _downward(found: Findings, source: Document, path: str) -> None:
    _mode(found, source, "defaultMode", path)
    for at, item in enumerate(source.get("items") or ()):
        _downward_file(found, item, f"{path}.items[{at}]")


def _downward_file(found: Findings, item: Document, path: str) -> None:
    if not item.get("path"):
        found.required(f"{path}.path")
    check_local_path(found, item.get("path", ""), f"{path}.path")
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        base = field.get("fieldPath", "").partition("[")[0]
        if base not in _DOWNWARD_FIELDS:
            found.unsupported(f"{path}.fieldRef.fieldPath", base, _DOWNWARD_FIELDS)
        if resource is not None:
            said = "fieldRef and resourceFieldRef can not be specified simultaneously"
            found.invalid(path, "resource", said)
    elif resource is not None:
        if not resource.get("containerName"):
            found.required(f"{path}.resourceFieldRef.containerName")
        elif not resource.get("resource"):
            found.required(f"{path}.resourceFieldRef.resource")
    else:
        found.required(f"{path}.fieldRef", "one of fieldRef and resourceFieldRef is required")
    _mode(found, item, "mode", path)


_PROJECTIONS: Final = (
    "secret",
    "configMap",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
)


def _projected(found: Findings, source: Document, path: str) -> None:
    _mode(found, source, "defaultMode", path)
    paths: set[str] = set()
    for at, part in enumerate(source.get("sources") or ()):
        where = f"{path}.sources[{at}]"
        given = [kind for kind in _PROJECTIONS if part.get(kind) is not None]
        if len(given) > 1:
            found.forbidden(where, "may not specify more than 1 volume type per source")
        for kind in given:
            _projection(found, kind, part[kind], f"{where}.{kind}")
            _conflicts(found, part[kind], paths, f"{where}.{kind}")


def _projection(found: Findings, kind: str, part: Document, path: str) -> None:
    if kind in ("secret", "configMap"):
        if not part.get("name"):
            found.required(f"{path}.name")
        _items(found, part.get("items") or [], path)
    elif kind == "downwardAPI":
        _downward(found, part, path)
    elif kind == "serviceAccountToken":
        seconds = part.get("expirationSeconds", 3600)
        if seconds < 600:
            found.invalid(
                f"{path}.expirationSeconds",
                seconds,
                "may not specify a duration less than 10 minutes",
            )
        if seconds > 1 << 32:
            found.invalid(
                f"{path}.expirationSeconds",
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            )
        if not part.get("path"):
            found.required(f"{path}.path")
        else:
            check_local_path(found, part["path"], f"{path}.path")


def _conflicts(found: Findings, part: Document, paths: set[str], path: str) -> None:
    items = part.get("items") or ([part] if "path" in part else [])
    for item in items:
        target = item.get("path", "")
        if target and target in paths:
            found.invalid(path, target, "conflicting duplicate paths")
        paths.add(target)


def _claim(found: Findings, source: Document, path: str) -> None:
    if not source.get("claimName"):
        found.required(f"{path}.claimName")


def _nfs(found: Findings, source: Document, path: str) -> None:
    if not source.get("server"):
        found.required(f"{path}.server")
    if not source.get("path"):
        found.required(f"{path}.path")
    elif not source["path"].startswith("/"):
        found.invalid(f"{path}.path", source["path"], "must be an absolute path")


def _csi(found: Findings, source: Document, path: str) -> None:
    driver = source.get("driver", "")
    if not driver:
        found.required(f"{path}.driver")
    elif len(driver) > 63:
        found.too_long(f"{path}.driver", 63)
    else:
        found.each(f"{path}.driver", driver, names.check_subdomain(driver.lower()))


def _ephemeral(found: Findings, source: Document, path: str) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        found.required(f"{path}.volumeClaimTemplate")
    elif not (template.get("spec") or {}).get("accessModes"):
        found.required(
            f"{path}.volumeClaimTemplate.spec.accessModes", "at least 1 access mode is required"
        )


SOURCES: Final[Mapping[str, SourceCheck]] = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward,
    "projected": _projected,
    "persistentVolumeClaim": _claim,
    "nfs": _nfs,
    "csi": _csi,
    "ephemeral": _ephemeral,
    "gcePersistentDisk": _fields("pdName"),
    "awsElasticBlockStore": _fields("volumeID"),
    "iscsi": _fields("targetPortal", "iqn"),
    "glusterfs": _fields("endpoints", "path"),
    "rbd": _fields("monitors", "image"),
    "cephfs": _fields("monitors"),
    "cinder": _fields("volumeID"),
    "quobyte": _fields("registry", "volume"),
    "vsphereVolume": _fields("volumePath"),
    "azureFile": _fields("secretName", "shareName"),
    "azureDisk": _fields("diskName", "diskURI"),
    "portworxVolume": _fields("volumeID"),
    "scaleIO": _fields("gateway", "system", "volumeName"),
    "flexVolume": _fields("driver"),
    "local": _fields("path"),
}
