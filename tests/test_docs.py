"""What users can name stands in the documentation, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from sagong import contracts, errors
from sagong.cli import VERBS
from sagong.config import Config, UnitConfig
from sagong.contract import slot_of
from sagong.manifest import Manifest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/*.md")])


def page(name: str) -> str:
    return (ROOT / "docs/reference" / name).read_text()


def generator() -> ModuleType:
    """What writes the pages that are generated."""
    path = ROOT / "packaging/generate_reference.py"
    spec = importlib.util.spec_from_file_location("generate_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(generator().PAGES))
def test_generated_pages_are_what_the_code_says(name: str) -> None:
    written = generator().written(name)
    assert page(name) == written, "run packaging/generate_reference.py"


def structs(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """A struct and those that lie in its fields."""
    inner = [t for f in msgspec.structs.fields(kind) for t in generator().tables_of(f.type)]
    return [kind, *(s for one in inner for s in structs(one))]


def test_every_setting_of_a_plugin_is_described() -> None:
    silent = [
        f"{plugin}: {kind.__name__}.{field.encode_name}"
        for plugin, package in generator().own_plugins()
        for settings in generator().settings_of(package)
        for kind in structs(settings)
        for field in msgspec.structs.fields(kind)
        if f"`{field.encode_name}`" not in (kind.__doc__ or "")
    ]
    assert silent == [], "say in the struct's words what each of its fields is"


def linked(path: Path) -> set[Path]:
    """Pages of this repository that a page leads to."""
    links = re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", path.read_text())
    return {(path.parent / link).resolve() for link in links if "://" not in link}


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_a_readme_leads_to_every_page(readme: str) -> None:
    reached, new = set(), {ROOT / readme}
    while new:
        reached |= new
        new = {p for path in new for p in linked(path) if p.exists()} - reached
    parts = ("tutorial", "how-to", "reference", "explanation")
    pages = {page for part in parts for page in (ROOT / "docs" / part).glob("*.md")}
    assert sorted(str(page.relative_to(ROOT)) for page in pages - reached) == []


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_is_described(verb: str) -> None:
    assert f"\n## {verb}\n" in page("commands.md"), "run packaging/generate_reference.py"


def test_every_method_of_every_slot_is_listed() -> None:
    text = page("contracts.md")
    for protocol in contracts.protocols():
        if not protocol.__module__.startswith("sagong."):
            continue  # a slot of the tests' own
        spec = slot_of(protocol)
        assert f"\n## {spec.name}/{spec.version}\n" in text
        section = text.split(f"\n## {spec.name}/{spec.version}\n")[1].split("\n## ")[0]
        missing = [name for name in spec.methods if f"| `{name}` |" not in section]
        assert missing == [], f"{spec.name}: run packaging/generate_reference.py"


def test_every_error_code_is_listed() -> None:
    codes = {getattr(errors, n).code for n in errors.__all__ if hasattr(getattr(errors, n), "code")}
    assert [code for code in sorted(codes) if f"| `{code}` |" not in page("errors.md")] == []


@pytest.mark.parametrize("kind", [Config, UnitConfig])
def test_every_setting_is_listed(kind: type[msgspec.Struct]) -> None:
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    assert [name for name in names if f"| `{name}` |" not in page("configuration.md")] == []


def test_every_table_of_a_manifest_is_described() -> None:
    names = [field.encode_name for field in msgspec.structs.fields(Manifest)]
    text = page("manifest.md")
    assert [name for name in names if f"[{name}" not in text] == []


def test_every_plugin_is_listed() -> None:
    own = {p.parent.name.removeprefix("sagong_") for p in ROOT.glob("*s/sagong_*/plugin.toml")}
    text = page("configuration.md")
    assert [name for name in sorted(own) if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (path.parent / link).exists()] == []
