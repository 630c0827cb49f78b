"""Questions about a Dockerfile instead of a build: targets, what they can be given, checks. Pure.

Source: the packages frontend/subrequests of BuildKit (`docker buildx build --call`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sagong.contracts.builder import BuildRequest
from sagong.errors import SagongError, Unimplemented
from sagong.model.numbers import natural
from sagong_builder.arguments import Arguments
from sagong_builder.dockerfile import Dockerfile, Expander, Instruction, Stage
from sagong_builder.dockerfile.lint import Finding, Known, failure_of, findings
from sagong_builder.dockerfile.rules import CheckOptions

__all__ = ["LINT", "answer", "answer_unread", "bases_of", "found_in"]

_VERSION = "1.0.0"
LINT = "frontend.lint"
_CHECK_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
_FILES = [{"name": "result.json"}, {"name": "result.txt"}]


def answer(
    question: str,
    dockerfile: Dockerfile,
    request: BuildRequest,
    known: Known | None = None,
) -> dict[str, bytes]:
    """The result's metadata; Unimplemented for what is not known."""
    asked = _QUESTIONS.get(question)
    if asked is None:
        raise Unimplemented(f"unsupported request {question[:80]}")
    document, text = asked[0](dockerfile, request, known)
    answered = _metadata(document, text)
    if question == LINT:
        answered["result.statuscode"] = b"1" if text else b"0"
    return answered


def answer_unread(
    before: Dockerfile | None, raw: bytes, name: str, error: SagongError
) -> dict[str, bytes]:
    """What checks find in a Dockerfile that can't be read: in what is `before` the fault, and that."""
    found = findings(before, needed=()) if before is not None else []
    document, text = _report(found, raw, name)
    first, _, last = error.detail.get("lines", "1").partition("-")
    document["buildError"] = _ended(error.message, natural(first) or 1, natural(last or first) or 1)
    return {**_metadata(document, text), "result.statuscode": b"1"}


def _metadata(document: dict[str, Any], text: str) -> dict[str, bytes]:
    return {
        "result.json": msgspec.json.format(msgspec.json.encode(document), indent=2),
        "result.txt": text.encode(),
        "version": _VERSION.encode(),
    }


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


def _targets(dockerfile: Dockerfile, request: BuildRequest, known: Known | None) -> Found:
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


def bases_of(dockerfile: Dockerfile, request: BuildRequest) -> dict[int, tuple[str, str]]:
    """What stages begin from, and the platforms that they name, by the stages' numbers."""
    word = _globals(dockerfile, request).origin(dockerfile.escape).word
    return {
        stage.number: (word(stage.base), word(stage.origin.flag("platform")))
        for stage in dockerfile.stages
    }


def _wanted(dockerfile: Dockerfile, request: BuildRequest) -> tuple[Arguments, list[Stage]]:
    """Global arguments, and the stages that the target needs."""
    bases = {number: name for number, (name, _) in bases_of(dockerfile, request).items()}
    needed = dockerfile.needed(dockerfile.target(request.target), bases)
    return _globals(dockerfile, request), needed


def found_in(
    dockerfile: Dockerfile, request: BuildRequest, known: Known | None = None
) -> tuple[list[Finding], bool]:
    """What checks find in what is built, and whether that ends the build."""
    options = check_options(dockerfile, request.arguments)
    needed = _wanted(dockerfile, request)[1]
    return findings(dockerfile, options, needed, known), options.error


def _outline(dockerfile: Dockerfile, request: BuildRequest, known: Known | None) -> Found:
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


def _linted(dockerfile: Dockerfile, request: BuildRequest, known: Known | None) -> Found:
    options = check_options(dockerfile, request.arguments)
    found = findings(dockerfile, options, known=known)
    document, text = _report(found, dockerfile.raw, request.dockerfile)
    if found and options.error:
        document["buildError"] = _ended(failure_of(found).message, found[0].line, found[0].last)
    return document, text


def _report(found: list[Finding], raw: bytes, name: str) -> tuple[dict[str, Any], str]:
    warnings = [
        {
            "ruleName": finding.check,
            "description": finding.description,
            "url": finding.url,
            "detail": finding.detail,
            "location": _lines(finding.line, finding.last),
        }
        for finding in found
    ]
    lines = raw.decode("utf-8", "replace").split("\n")
    text = "".join(_shown(finding, name, lines) for finding in found)
    source = {"filename": name, "language": "Dockerfile", "data": raw}
    return {"warnings": warnings, "sources": [source]}, text


def _lines(first: int, last: int) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": first}, "end": {"line": last}}]}


def _ended(message: str, first: int, last: int) -> dict[str, Any]:
    """What would end the build."""
    return {"message": message, "location": _lines(first, last)}


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


def _described(dockerfile: Dockerfile, request: BuildRequest, known: Known | None) -> Found:
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


_QUESTIONS: dict[str, tuple[Callable[[Dockerfile, BuildRequest, Known | None], Found], str]] = {
    "frontend.outline": (_outline, "List all parameters current build target supports"),
    "frontend.targets": (_targets, "List all targets current build supports"),
    LINT: (_linted, "Lint a Dockerfile"),
    "frontend.subrequests.describe": (_described, "List available subrequest types"),
}
