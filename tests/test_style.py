"""The house's rules that no linter knows: layers of packages, sizes, names, unfinished places."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOTS = [ROOT / name for name in ("core", "plugins", "services")]
FILES = sorted(path for root in ROOTS for path in root.rglob("*.py"))
VAGUE = {"utils", "helpers", "common", "base", "manager", "misc", "util", "helper"}
GENERATED = "enerated by"
LONGEST_FILE, LONGEST_FUNCTION = 600, 60


def name_of(path: Path) -> str:
    """A file's name for messages."""
    return str(path.relative_to(ROOT))


def trees() -> list[tuple[Path, str, ast.Module]]:
    """All files, parsed once."""
    return [(path, text := path.read_text(), ast.parse(text)) for path in FILES]


TREES = trees()


def test_every_module_says_first_what_it_is_for() -> None:
    assert [name_of(p) for p, _, tree in TREES if not ast.get_docstring(tree)] == []


def test_no_file_is_too_long() -> None:
    long = [
        name_of(path)
        for path, text, _ in TREES
        if text.count("\n") > LONGEST_FILE and GENERATED not in text[:600]
    ]
    assert long == []


def test_no_function_is_too_long() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path, text, tree in TREES
        if GENERATED not in text[:600]
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def test_no_file_has_a_vague_name() -> None:
    assert [name_of(path) for path in FILES if path.stem in VAGUE] == []


def test_nothing_is_left_unfinished() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError")
    found = [
        f"{name_of(path)}:{number}"
        for path, text, _ in TREES
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def packages(root: str) -> list[Path]:
    """The packages of plugins or services."""
    return sorted(path for path in (ROOT / root).iterdir() if path.name.startswith("sagong_"))


@pytest.mark.parametrize(
    "package", packages("plugins") + packages("services"), ids=lambda p: p.name
)
def test_a_plugin_imports_no_other_one_and_not_the_kernel(package: Path) -> None:
    found = []
    for path, _, tree in TREES:
        if package not in path.parents:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            else:
                continue
            found += [
                f"{name_of(path)}:{node.lineno} {name}"
                for name in names
                if (name.startswith("sagong_") and name.split(".")[0] != package.name)
                or name.startswith(("sagong.kernel", "sagong.cli", "sagong.process"))
            ]
    assert found == []


@pytest.mark.parametrize(
    "package", packages("plugins") + packages("services"), ids=lambda p: p.name
)
def test_a_plugin_has_manifest_readme_and_one_class(package: Path) -> None:
    from sagong import manifest

    found = manifest.parse((package / "plugin.toml").read_text(), where=package.name)
    assert f"sagong_{found.plugin.name}" == package.name
    assert (package / "README.md").exists()


def test_every_library_has_its_reason() -> None:
    """In ADR 4; what is not there is not needed, or not decided."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[<>=; ]", line)[0] for lines in lists for line in lines}
    told = (ROOT / "docs/adr/0004-dependencies.md").read_text()
    assert [name for name in sorted(wanted) if not re.search(rf"\b{name}\b", told)] == []


def test_core_imports_no_plugin() -> None:
    found = [
        name_of(path)
        for path, text, _ in TREES
        if ROOTS[0] in path.parents and re.search(r"^(import|from) sagong_", text, re.M)
    ]
    assert found == []
