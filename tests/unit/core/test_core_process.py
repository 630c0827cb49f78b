"""What a plugin's process does before it attends the kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sagong.process import Launch, import_all


def _launch(class_: str, **settings: object) -> Launch:
    return Launch(
        unit="u",
        plugin="p",
        class_=class_,
        generation=1,
        kernel="",
        bus="",
        data="",
        run="",
        root="",
        settings=settings,
    )


def test_a_class_imports_what_its_settings_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_plugin.py").write_text(
        "def __getattr__(name):\n    from lazy_class import Lazy\n    return Lazy\n"
    )
    (tmp_path / "lazy_class.py").write_text(
        "class Lazy:\n"
        "    @staticmethod\n"
        "    def imports(settings):\n"
        "        if settings['part']:\n"
        "            import lazy_part\n"
    )
    (tmp_path / "lazy_part.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    import_all(_launch("lazy_plugin:Lazy", part=False))
    assert "lazy_class" in sys.modules and "lazy_part" not in sys.modules
    import_all(_launch("lazy_plugin:Lazy", part=True))
    assert "lazy_part" in sys.modules


@pytest.mark.parametrize(("settings", "there"), [({}, True), ({"enabled": False}, False)])
def test_the_node_imports_the_kubelet_only_where_there_are_pods(
    settings: dict[str, object], there: bool
) -> None:
    code = (
        "import sys, sagong_node\n"
        f"sagong_node.Node.imports({settings!r})\n"
        "before = set(sys.modules)\n"
        "import sagong_node.plugin\n"
        f"assert ('sagong_node.pods.kubelet' in before) is {there}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
