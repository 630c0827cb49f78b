"""A plugin's code, read and not run: what its manifest names and is not there, or has another form."""

from __future__ import annotations

import ast
import difflib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from sagong import contracts
from sagong.contract import MethodSpec, SlotSpec, slot_of
from sagong.manifest import Manifest

__all__ = ["code_mistakes", "known_slots", "near"]

_PLACES = ("package", "python")
_COMPANION_PLACES = (*_PLACES, "own", "uid", "lean")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def known_slots() -> dict[str, dict[int, SlotSpec]]:
    """Every slot's contracts by version."""
    known: dict[str, dict[int, SlotSpec]] = {}
    for protocol in contracts.protocols():
        spec = slot_of(protocol)
        known.setdefault(spec.name, {})[spec.version] = spec
    return known


def near(name: str, names: Collection[str]) -> str:
    """What was meant, or all that there is."""
    found = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {found[0]}?" if found else f"there are: {', '.join(sorted(names))}"


def code_mistakes(found: Manifest, package: Path, own: Collection[str]) -> Iterator[str]:
    """What the manifest names of the package; slots of its `own` have contracts that are not read."""
    plugin = found.plugin
    yield from _command_mistakes("plugin.command", plugin.command, package, _PLACES)
    if found.companion is not None:
        words = found.companion.command
        yield from _command_mistakes("companion.command", words, package, _COMPANION_PLACES)
    if plugin.class_.count(":") == 1:
        yield from _class_mistakes(found, package, own)
    if found.deputy is not None:
        module, _, name = found.deputy.function.partition(":")
        tree = _tree(package, module)
        if tree is None or name not in _names(tree):
            yield f"deputy.function {found.deputy.function}: no such function; write module:name"


def _command_mistakes(
    key: str, words: tuple[str, ...], package: Path, places: tuple[str, ...]
) -> Iterator[str]:
    if words and "/" not in words[0] and "{" not in words[0] and not shutil.which(words[0]):
        yield f"{key}: {words[0]} is no program here; install it, or name the package's: {{package}}/…"
    for number, word in enumerate(words):
        unknown = [name for name in re.findall(r"\{(\w*)\}", word) if name not in places]
        yield from (f"{key}: no {{{name}}}; {near(name, places)}" for name in unknown)
        if not word.startswith("{package}/"):
            continue
        path = package / word.removeprefix("{package}/")
        if not path.exists():
            yield f"{key}: there is no {path}"
        elif number == 0 and not os.access(path, os.X_OK):
            yield f"{key}: {path} can't be executed; chmod +x it, or name what runs it first"


def _class_mistakes(found: Manifest, package: Path, own: Collection[str]) -> Iterator[str]:
    module, _, name = found.plugin.class_.partition(":")
    where = f"plugin.class {found.plugin.class_}"
    if module.partition(".")[0] != package.name:
        yield f"{where}: this package is {package.name}; say {package.name}:{name}"
        return
    tree = _tree(package, module)
    if tree is None:
        yield f"{where}: {_why_not(package, module)}"
        return
    names = _names(tree)
    if name not in names:
        yield f"{where}: {module} has no {name}; {near(name, names)}"
    node = _class_of(tree, name)
    if node is None:
        return
    if not node.bases:
        yield from (f"{where}: {text}" for text in _making_mistakes(node))
    if found.plugin.kind == "hook":
        if not node.bases and "hookimpl" not in ast.dump(node):
            yield f"{where}: no method of it is marked @hookimpl, so nothing would call it"
        return
    known = known_slots()
    for slot, version in found.provided():
        spec = known.get(slot, {}).get(version) if slot not in own else None
        if spec is not None:
            yield from (f"{where}: {text}" for text in _slot_mistakes(node, spec))


def _class_of(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)


def _making_mistakes(node: ast.ClassDef) -> Iterator[str]:
    """Whether the class can be made with its host, and nothing else."""
    if node.decorator_list or node.keywords:
        return
    made = [f for f in node.body if isinstance(f, Function) and f.name in ("__init__", "__new__")]
    if not made:
        yield "it is made with its host: it needs def __init__(self, host)"
    for function in made:
        arguments = function.args
        most = len(arguments.posonlyargs) + len(arguments.args) - 1
        bound = most - len(arguments.defaults) <= 1 and (most >= 1 or arguments.vararg is not None)
        if not bound or None in arguments.kw_defaults:
            yield f"line {function.lineno}: it is made with its host alone: def __init__(self, host)"


def _slot_mistakes(node: ast.ClassDef, spec: SlotSpec) -> Iterator[str]:
    """What keeps a class from filling a slot, as far as it can be read."""
    methods = _names(node)
    if "implementation" in ast.dump(node) or "__getattr__" in methods:
        return
    slot = f"{spec.name}/{spec.version}"
    lacking = sorted(set(spec.methods) - methods)
    # What a class inherits is not read; what it has itself is what would be called.
    if lacking and not node.bases:
        yield f"it provides {slot} and has no method {', '.join(lacking)}"
    for function in node.body:
        if isinstance(function, Function) and function.name in spec.methods:
            yield from _method_mistakes(function, spec.methods[function.name])


def _method_mistakes(function: Function, method: MethodSpec) -> Iterator[str]:
    arguments = [a.arg for a in (*function.args.posonlyargs, *function.args.args)][1:]
    wanted = [] if method.parameter is None else [method.parameter]
    if not function.decorator_list and arguments != wanted:
        right = ", ".join(["self", *wanted])
        yield f"line {function.lineno}: the contract has {function.name}({right})"
    yields = any(isinstance(part, ast.Yield) for part in _own_parts(function))
    is_async = isinstance(function, ast.AsyncFunctionDef)
    if method.stream and is_async and not yields:
        yield f"line {function.lineno}: {function.name} is a stream, and yields nothing"
    if not method.stream and yields:
        yield f"line {function.lineno}: {function.name} is no stream: it returns, and yields nothing"


def _own_parts(function: Function) -> Iterator[ast.AST]:
    """All within a function but what lies within functions inside."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        part = todo.pop()
        yield part
        if not isinstance(part, Function | ast.Lambda):
            todo += ast.iter_child_nodes(part)


def _file(package: Path, module: str) -> Path:
    path = package.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _tree(package: Path, module: str) -> ast.Module | None:
    try:
        return ast.parse(_file(package, module).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _why_not(package: Path, module: str) -> str:
    """Why a module has no tree."""
    file = _file(package, module)
    try:
        ast.parse(file.read_bytes())
    except SyntaxError as error:
        return f"{file}, line {error.lineno}, is no Python: {error.msg}"
    except ValueError as error:
        return f"{file} is no Python: {error}"
    except OSError as error:
        return f"there is no module {module}: {file}: {error.strerror}"
    return f"there is no module {module}"


def _names(tree: ast.Module | ast.ClassDef) -> set[str]:
    """What is defined, imported or assigned there, under a condition or not."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        match node:
            case ast.If(body=body, orelse=otherwise):
                todo += [*body, *otherwise]
            case ast.Try(body=body, handlers=handlers, orelse=otherwise, finalbody=last):
                todo += [*body, *otherwise, *last, *(n for h in handlers for n in h.body)]
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {(a.asname or a.name).partition(".")[0] for a in names}
            case ast.Assign(targets=targets):
                found |= {t.id for t in targets if isinstance(t, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found
