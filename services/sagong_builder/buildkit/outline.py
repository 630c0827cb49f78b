"""Questions about a Dockerfile instead of a build: targets, what they can be given, checks. Pure.

Source: the packages frontend/subrequests of BuildKit (`docker buildx build --call`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sagong.contracts.builder import BuildRequest
from sagong.errors import Unimplemented
from sagong_builder.arguments import Arguments
from sagong_builder.dockerfile import Dockerfile, Expander, Instruction, Stage
from sagong_builder.dockerfile.lint import Environments, Finding, failure_of, findings
from sagong_builder.dockerfile.rules import CheckOptions

__all__ = ["answer", "bases_of", "found_in"]

_VERSION = "1.0.0"
_LINT = "frontend.lint"
_CHECK_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
_FILES = [{"name": "result.json"}, {"name": "result.txt"}]


def answer(
    question: str,
    dockerfile: Dockerfile,
    request: BuildRequest,
    environments: Environments | None = None,
) -> dict[str, bytes]:
    """The result's metadata; Unimplemented for what is not known."""
    asked = _QUESTIONS.get(question)
    if asked is None:
        raise Unimplemented(f"unsupported request {question[:80]}")
    document, text = asked[0](dockerfile, request, environments)
    answered = {
        "result.json": msgspec.json.format(msgspec.json.encode(document), indent=2),
        "result.txt": text.encode(),
        "version": _VERSION.encode(),
    }
    if question == _LINT:
        answered["result.statuscode"] = b"1" if text else b"0"
    return answered


def check_options(
    dockerfile: Dockerfile, arguments: Iterable[tuple[str, str | None]]
) -> CheckOptions:
    """What the build wants of checks, else the Dockerfile."""
    return CheckOptions.read(dict(arguments).get(_CHECK_ARGUMENT) or dockerfile.check)


def _table(rows: list[tuple[str, ...]], pad: int) -> str:
    """Columns as Go's tabwriter sets them: all but the last are as wide as their widest cell."""
    widths = [max(len(row[n]) for row in rows) + pad for n in range(len(rows[0]) - 1)]
    lines = (
        "".join(c.ljust(w) for c, w in zip(row, widths, strict=False)) + row[-1] for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


Found = tuple[Any, str]


def _targets(
    dockerfile: Dockerfile, request: BuildRequest, environments: Environments | None
) -> Found:
    last = dockerfile.stages[-1]
    listed: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = [("TARGET", "DESCRIPTION")]
    for stage in dockerfile.stages:
        entry: dict[str, Any] = {"name": stage.name} if stage.name else {}
        entry |= {"default": True} if stage is last else {}
        entry |= {"base": stage.base, "location": _location(stage.origin)}
        listed.append(entry)
        shown = f"{stage.name} (default)".strip() if stage is last else stage.name
        rows.append((shown, ""))
    return {"targets": listed, "sources": [dockerfile.raw]}, _table(rows, 1)


def _location(instruction: Instruction) -> dict[str, Any]:
    reach = {"start": {"line": instruction.line}, "end": {"line": instruction.last}}
    return {"ranges": [reach]}


def _globals(dockerfile: Dockerfile, request: BuildRequest) -> Arguments:
    given = {name: value for name, value in request.arguments if value is not None}
    arguments = Arguments(given, {})
    for instruction in dockerfile.arguments:
        arguments.declare_global(instruction, dockerfile.escape)
    return arguments


def bases_of(dockerfile: Dockerfile, request: BuildRequest) -> dict[int, str]:
    """What stages begin from, by their numbers."""
    expander = _globals(dockerfile, request).origin(dockerfile.escape)
    return {stage.number: expander.word(stage.base) for stage in dockerfile.stages}


def _wanted(dockerfile: Dockerfile, request: BuildRequest) -> tuple[Arguments, list[Stage]]:
    """Global arguments, and the stages that the target needs."""
    bases = bases_of(dockerfile, request)
    needed = dockerfile.needed(dockerfile.target(request.target), bases)
    return _globals(dockerfile, request), needed


def found_in(
    dockerfile: Dockerfile, request: BuildRequest, environments: Environments | None = None
) -> tuple[list[Finding], bool]:
    """What checks find in what is built, and whether that ends the build."""
    options = check_options(dockerfile, request.arguments)
    needed = _wanted(dockerfile, request)[1]
    return findings(dockerfile, options, needed, environments), options.error


def _outline(
    dockerfile: Dockerfile, request: BuildRequest, environments: Environments | None
) -> Found:
    target = dockerfile.target(request.target)
    arguments, needed = _wanted(dockerfile, request)
    args = _arguments(dockerfile, needed, arguments)
    keys = {kind: _keys(needed, kind) for kind in ("secret", "ssh")}
    document: dict[str, Any] = {"name": target.name} if target.name else {}
    document |= {"args": args} if args else {}
    document |= {kind_name: keys[kind] for kind, kind_name in _KEYS if keys[kind]}
    document["sources"] = [dockerfile.raw]
    text = f"TARGET: {target.name}\n\n" if target.name else ""
    if args:
        rows = [("BUILD ARG", "VALUE", "DESCRIPTION")]
        rows += [(a["name"], a.get("value", ""), "") for a in args]
        text += _table(list(rows), 3) + "\n"
    for kind, _ in _KEYS:
        if keys[kind]:
            shown = [(k["name"], "true" if k.get("required") else "") for k in keys[kind]]
            text += _table([(kind.upper(), "REQUIRED"), *shown], 3) + "\n"
    return document, text


_KEYS = (("secret", "secrets"), ("ssh", "ssh"))


def _arguments(
    dockerfile: Dockerfile, needed: list[Stage], arguments: Arguments
) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    own = [i for stage in needed for i in stage.instructions if i.keyword == "ARG"]
    for instruction in (*dockerfile.arguments, *own):
        for name, default in instruction.pairs:
            value = arguments.given.get(name, arguments.globals.get(name, default or ""))
            value = Expander(arguments.globals, dockerfile.escape).word(value)
            entry: dict[str, Any] = {"name": name} | ({"value": value} if value else {})
            found[name] = entry | {"location": _location(instruction)}
    return list(found.values())


def _keys(needed: list[Stage], kind: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for instruction in (i for stage in needed for i in stage.instructions):
        for text in instruction.flags.get("mount", ()):
            fields = dict(part.partition("=")[::2] for part in text.split(","))
            if fields.get("type") != kind:
                continue
            name = fields.get("id") or ("default" if kind == "ssh" else fields.get("target", ""))
            needs = "required" in fields and fields["required"] in ("", "true", "1")
            entry: dict[str, Any] = {"name": name} | ({"required": True} if needs else {})
            found[name] = entry | {"location": _location(instruction)}
    return list(found.values())


def _linted(
    dockerfile: Dockerfile, request: BuildRequest, environments: Environments | None
) -> Found:
    options = check_options(dockerfile, request.arguments)
    found = findings(dockerfile, options, environments=environments)
    source = {"filename": request.dockerfile, "language": "Dockerfile", "data": dockerfile.raw}
    warnings = [
        {
            "ruleName": finding.check,
            "description": finding.description,
            "url": finding.url,
            "detail": finding.detail,
            "location": {
                "ranges": [{"start": {"line": finding.line}, "end": {"line": finding.last}}]
            },
        }
        for finding in found
    ]
    lines = dockerfile.raw.decode("utf-8", "replace").split("\n")
    text = "".join(_shown(finding, request.dockerfile, lines) for finding in found)
    document: dict[str, Any] = {"warnings": warnings, "sources": [source]}
    if found and options.error:
        document["buildError"] = {
            "message": failure_of(found).message,
            "location": {
                "ranges": [{"start": {"line": found[0].line}, "end": {"line": found[0].last}}]
            },
        }
    return document, text


def _shown(finding: Finding, name: str, lines: list[str]) -> str:
    """The finding with the lines around it, as clients show errors."""
    bar = "-" * 20
    first, last = max(1, finding.line - 2), min(len(lines), finding.last + 2)
    shown = []
    for number in range(first, last + 1):
        mark = ">>>" if finding.line <= number <= finding.last else "   "
        shown.append(f" {number:3d} | {mark} {lines[number - 1]}")
    rows = [
        f"\nWARNING: {finding.check} - {finding.url}",
        finding.detail,
        f"{name}:{finding.line}",
        bar,
        *shown,
        bar,
    ]
    return "".join(f"{row}\n" for row in rows)


def _described(
    dockerfile: Dockerfile, request: BuildRequest, environments: Environments | None
) -> Found:
    listed = [
        {
            "name": name,
            "version": _VERSION,
            "type": "rpc",
            "description": description,
            "opts": [{"name": "target", "description": "Target build stage"}]
            if name == "frontend.outline"
            else [],
            "metadata": _FILES,
        }
        for name, (_, description) in _QUESTIONS.items()
    ]
    rows: list[tuple[str, ...]] = [("NAME", "VERSION", "DESCRIPTION")]
    for entry in listed:
        name = str(entry["name"]).removeprefix("frontend.")
        rows.append((name, _VERSION, str(entry["description"])))
    return listed, _table(rows, 1)


_QUESTIONS: dict[
    str, tuple[Callable[[Dockerfile, BuildRequest, Environments | None], Found], str]
] = {
    "frontend.outline": (_outline, "List all parameters current build target supports"),
    "frontend.targets": (_targets, "List all targets current build supports"),
    _LINT: (_linted, "Lint a Dockerfile"),
    "frontend.subrequests.describe": (_described, "List available subrequest types"),
}
