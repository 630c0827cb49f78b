"""Generates the API's types from PyPI's `kubernetes-validate` and our table of field numbers.

Run it by hand when the baseline changes; its results are committed:

- `services/sagong_kube/schema/types.json`: types, fields, patch and list extensions, numbers;
- `services/sagong_kube/convert/definitions.json.gz`: the definitions of the OpenAPI documents;
- `core/sagong/model/k8s/*.py`: msgspec Structs of the kinds that controllers and nodes handle.
"""

from __future__ import annotations

import gzip
import json
import keyword
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

BASELINE = "1.32"
ROOT = Path(__file__).resolve().parent.parent
TYPES = ROOT / "services/sagong_kube/schema/types.json"
DEFINITIONS = ROOT / "services/sagong_kube/convert/definitions.json.gz"
MODEL = ROOT / "core/sagong/model/k8s"
NUMBERS = ROOT / "packaging/wire_numbers.txt"

EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1"
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "microtime",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intstr",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "raw",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "fields",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "raw",
    f"{EXTENSIONS}.JSON": "json",
    f"{EXTENSIONS}.JSONSchemaPropsOrArray": "schemaorarray",
    f"{EXTENSIONS}.JSONSchemaPropsOrBool": "schemaorbool",
    f"{EXTENSIONS}.JSONSchemaPropsOrStringArray": "schemaorstrings",
    f"{EXTENSIONS}.CustomResourceSubresourceStatus": "raw",
}
FORMATS = {
    ("integer", "int32"): "int32",
    ("integer", "int64"): "int64",
    ("integer", None): "int64",
    ("number", "double"): "float",
    ("string", "byte"): "bytes",
    ("string", None): "str",
    ("boolean", None): "bool",
    ("object", None): "raw",
}
PREFIXES = (
    "io.k8s.apiextensions-apiserver.pkg.apis.",
    "io.k8s.kube-aggregator.pkg.apis.",
    "io.k8s.apimachinery.pkg.apis.",
    "io.k8s.apimachinery.pkg.",
    "io.k8s.api.",
)
SKIPPED = re.compile(
    r"(apiserverinternal|storagemigration|resource|\w+)\.v1(alpha|beta)\d|apiserverinternal|version\."
)
MODEL_KINDS = {
    "core.v1": (
        "Pod Node Service Endpoints ReplicationController Namespace ConfigMap Secret ServiceAccount "
        "Event PersistentVolume PersistentVolumeClaim PodTemplate LimitRange ResourceQuota Binding"
    ),
    "apps.v1": "Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision",
    "batch.v1": "Job CronJob",
    "autoscaling.v1": "Scale HorizontalPodAutoscaler",
    "autoscaling.v2": "HorizontalPodAutoscaler",
    "discovery.v1": "EndpointSlice",
    "coordination.v1": "Lease",
    "scheduling.v1": "PriorityClass",
    "policy.v1": "PodDisruptionBudget Eviction",
    "rbac.v1": "Role RoleBinding ClusterRole ClusterRoleBinding",
    "networking.v1": "NetworkPolicy Ingress IngressClass",
    "storage.v1": "StorageClass CSINode CSIDriver CSIStorageCapacity VolumeAttachment",
    "node.v1": "RuntimeClass",
    "events.v1": "Event",
    "certificates.v1": "CertificateSigningRequest",
    "authentication.v1": "TokenRequest TokenReview",
    "authorization.v1": "SubjectAccessReview",
}
Types = dict[str, dict[str, Any]]


def upstream() -> dict[str, Any]:
    """The definitions of the baseline, nulls taken out of their types."""
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    text = (folder / f"v{BASELINE}.0-local/_definitions.json").read_text()
    definitions: dict[str, Any] = json.loads(text.replace("#/$defs/", "#/definitions/"))["$defs"]
    return {name: _plain(body) for name, body in definitions.items()}


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {key: _plain(value) for key, value in node.items()}
    kinds = found.get("type")
    if isinstance(kinds, list) and "null" in kinds:
        found["type"] = next(kind for kind in kinds if kind != "null")
    return found


def short(name: str) -> str:
    """`core.v1.Pod` for `io.k8s.api.core.v1.Pod`."""
    return next(name[len(p) :] for p in PREFIXES if name.startswith(p))


def expression(schema: dict[str, Any]) -> str:
    """A field's type: a scalar's name, a type's name, `[]` and `{}` before what they hold."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return SCALARS.get(name) or short(name)
    kind = str(schema.get("type"))
    if kind == "array":
        return "[]" + expression(schema["items"])
    if kind == "object" and "additionalProperties" in schema:
        return "{}" + expression(schema["additionalProperties"])
    layout: str | None = schema.get("format")
    return FORMATS.get((kind, layout)) or FORMATS[kind, None]


def numbers() -> dict[str, list[str]]:
    """Our table of field numbers, its lines as lists of words by type."""
    lines = [line.split() for line in NUMBERS.read_text().splitlines() if line[0] != "#"]
    return {name: words for name, *words in lines}


def flattened(name: str, table: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Field names and their words, those of inline structs included."""
    for word in table.get(name, ()):
        key, _, said = word.rpartition("=")
        if key.startswith("+"):
            yield from flattened(key[1:], table)
        else:
            yield key, said


def types(definitions: dict[str, Any]) -> Types:
    """The type table: what `types.json` holds."""
    table = numbers()
    found: Types = {}
    for full, body in definitions.items():
        name = short(full)
        if full not in SCALARS and not SKIPPED.match(name):
            found[name] = _type(name, body, table)
    wanted = {name for name in table if name not in found and name in _inlined(table)}
    for name in sorted(wanted):
        found[name] = {"wire": _wire(name, table)}
    return found


def _inlined(table: dict[str, list[str]]) -> set[str]:
    words = (word for line in table.values() for word in line if word[0] == "+")
    return {word[1:].rpartition("=")[0] for word in words}


def _type(name: str, body: dict[str, Any], table: dict[str, list[str]]) -> dict[str, Any]:
    flags = {key: said.lstrip("0123456789") for key, said in flattened(name, table)}
    required = set(body.get("required", ()))
    fields = [
        _field(key, schema, flags.get(key, "o"), key in required)
        for key, schema in sorted(body.get("properties", {}).items())
    ]
    result: dict[str, Any] = {"fields": fields, "wire": _wire(name, table)}
    if body.get("x-kubernetes-map-type") == "atomic":
        result["atomic"] = True
    kinds = body.get("x-kubernetes-group-version-kind", ())
    if len(kinds) == 1:
        result["kind"] = [kinds[0]["group"], kinds[0]["version"], kinds[0]["kind"]]
    return result


def _wire(name: str, table: dict[str, list[str]]) -> dict[str, str]:
    """Field numbers to names; `+type` for a struct whose fields are inline."""
    pairs = [word.rpartition("=") for word in table.get(name, ())]
    return {re.match(r"\d+", said)[0]: key for key, _, said in pairs}  # type: ignore[index]


def _field(name: str, schema: dict[str, Any], flags: str, required: bool) -> dict[str, Any]:
    field: dict[str, Any] = {"name": name, "type": expression(schema)}
    extras = {
        "go": flags,
        "required": required,
        "list": schema.get("x-kubernetes-list-type", ""),
        "keys": schema.get("x-kubernetes-list-map-keys", []),
        "merge": schema.get("x-kubernetes-patch-merge-key", ""),
        "patch": schema.get("x-kubernetes-patch-strategy", ""),
        "atomic": schema.get("x-kubernetes-map-type", "") == "atomic",
    }
    return {**field, **{key: value for key, value in extras.items() if value}}


# The Structs of core/sagong/model/k8s

PYTHON = {
    "str": "str",
    "bytes": "str",
    "int32": "int",
    "int64": "int",
    "bool": "bool",
    "float": "float",
    "quantity": "str | int | float",
    "time": "str",
    "microtime": "str",
    "intstr": "int | str",
    "raw": "Any",
    "json": "Any",
    "fields": "Any",
    "schemaorarray": "Any",
    "schemaorbool": "Any",
    "schemaorstrings": "Any",
}
ZERO = {"str": '""', "bytes": '""', "int32": "0", "int64": "0", "bool": "False", "float": "0.0"}
WORD = re.compile(r"[A-Z]+s?(?![a-z])|[A-Z]?[a-z0-9]+|[A-Z]+(?=[A-Z][a-z])")


def snake(name: str) -> str:
    """`cluster_ips` for `clusterIPs`."""
    words = "_".join(word.lower() for word in WORD.findall(name))
    return words + "_" if keyword.iskeyword(words) else words


def camel(name: str) -> str:
    """What msgspec's own renaming makes of an attribute."""
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


def reachable(found: Types, names: Iterable[str]) -> set[str]:
    """All types that these use."""
    seen: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in seen or name not in found:
            continue
        seen.add(name)
        queue += [field["type"].lstrip("[]{}") for field in found[name].get("fields", ())]
    return seen


def write_model(found: Types) -> None:
    """One module a group and version."""
    kinds = [f"{at}.{kind}" for at, names in MODEL_KINDS.items() for kind in names.split()]
    wanted = reachable(found, kinds)
    MODEL.mkdir(parents=True, exist_ok=True)
    for prefix in sorted({name.rpartition(".")[0] for name in wanted}):
        mine = sorted(name for name in wanted if name.rpartition(".")[0] == prefix)
        path = MODEL / f"{prefix.replace('.', '_')}.py"
        path.write_text(_module(prefix, mine, found))


def _module(prefix: str, names: list[str], found: Types) -> str:
    bodies = [_struct(name, found) for name in _ordered(names, found)]
    others: dict[str, set[str]] = {}
    for name in names:
        for field in found[name]["fields"]:
            module, _, kind = field["type"].lstrip("[]{}").rpartition(".")
            if module and module != prefix:
                others.setdefault(module, set()).add(kind)
    text = "\n\n\n".join(bodies)
    exported = ", ".join(f'"{name.rpartition(".")[2]}"' for name in names)
    return "\n".join(
        [
            f'"""API objects of {prefix}: Structs that ignore unknown fields and omit defaults."""',
            "",
            "# Generated by packaging/generate_schema.py and therefore long; change the generator.",
            "",
            "from __future__ import annotations",
            "",
            *(["from typing import Any", ""] if re.search(r"\bAny\b", text) else []),
            "from msgspec import Struct" + (", field" if "field(" in text else ""),
            "",
            *(
                f"from sagong.model.k8s.{module.replace('.', '_')} import ({', '.join(sorted(kinds))},)"
                for module, kinds in sorted(others.items())
            ),
            "",
            f"__all__ = [{exported},]",
            "",
            "",
            text,
            "",
        ]
    )


def _ordered(names: list[str], found: Types) -> list[str]:
    """Types after those that they use, so that defaults can name them."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in names and name not in order:
            for field in found[name]["fields"]:
                visit(field["type"].lstrip("[]{}"))
            order[name] = None

    for name in names:
        visit(name)
    return list(order)


def _struct(name: str, found: Types) -> str:
    body = found[name]
    title = name.rpartition(".")[2]
    fields = body["fields"]
    attributes = {field["name"]: snake(field["name"]) for field in fields}
    renamed = {a: f for f, a in attributes.items() if a != f}
    if all(camel(a) == f for a, f in renamed.items()):
        rename = ', rename="camel"' if renamed else ""
    else:
        rename = f", rename={json.dumps(renamed)}"
    lines = [f"class {title}(Struct, kw_only=True, omit_defaults=True, gc=False{rename}):"]
    lines.append(f'    """{_summary(title, body)}"""')
    lines.append("")
    lines += [f"    {attributes[f['name']]}: {_annotation(f, body, found)}" for f in fields]
    return "\n".join(lines)


def _summary(title: str, body: dict[str, Any]) -> str:
    if "kind" not in body:
        return f"The type {title}."
    group, version, kind = body["kind"]
    return f"The kind {kind} of {group + '/' if group else ''}{version}."


def _annotation(field: dict[str, Any], body: dict[str, Any], found: Types) -> str:
    kind, name = field["type"], field["name"]
    if name in ("apiVersion", "kind") and "kind" in body:
        group, version, title = body["kind"]
        value = title if name == "kind" else f"{group}/{version}" if group else version
        return f'str = field(default_factory="{value}".__str__)'
    python = _python(kind)
    if kind.startswith("[]"):
        return f"{python} = []"
    if kind.startswith("{}"):
        return f"{python} = {{}}"
    if "p" in field.get("go", "") or kind in ("time", "microtime", "quantity", "intstr"):
        return f"{python} | None = None"
    if kind in ZERO:
        return f"{python} = {ZERO[kind]}"
    if kind in PYTHON:
        return "Any = None"
    return f"{python} = field(default_factory={python})"


def _python(kind: str) -> str:
    if kind.startswith("[]"):
        return f"list[{_python(kind[2:])}]"
    if kind.startswith("{}"):
        return f"dict[str, {_python(kind[2:])}]"
    return PYTHON.get(kind) or kind.rpartition(".")[2]


def write_definitions(definitions: dict[str, Any]) -> None:
    """What the OpenAPI documents show, compressed."""
    kept = {n: b for n, b in definitions.items() if not SKIPPED.match(short(n))}
    for name, kind in (("util.intstr.IntOrString", "int-or-string"), ("api.resource.Quantity", "")):
        full = f"io.k8s.apimachinery.pkg.{name}"
        said = {"type": "string", "description": kept[full].get("description", "")}
        kept[full] = {k: v for k, v in {**said, "format": kind}.items() if v}
    text = json.dumps(kept, separators=(",", ":"), sort_keys=True)
    DEFINITIONS.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def main() -> None:
    """Write all results; ruff gives the modules their form."""
    definitions = upstream()
    found = types(definitions)
    TYPES.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in found.items()]
    TYPES.write_text("{" + ",\n".join(lines) + "}\n")
    write_model(found)
    write_definitions(definitions)
    for command in (["format", "-q"], ["check", "--fix", "-q"], ["format", "-q"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, str(MODEL)], check=True)


if __name__ == "__main__":
    main()
