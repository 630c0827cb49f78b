"""Docker's buildx as a client: bake, what it asks about Dockerfiles, and its experimental ways."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compat.docker.clients import Plugin, plugin
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = pytest.mark.root
PLAIN = ("--progress", "plain")
EXPERIMENTAL = {"BUILDX_EXPERIMENTAL": "1"}


@pytest.fixture
def buildx(docker: Engine) -> Plugin:
    """The command line that builds by buildx."""
    return plugin(docker, "docker-buildx")


def baked(place: Path, text: str) -> Path:
    """A context with such a file of bake's."""
    (place / "docker-bake.hcl").write_text(text.replace("BASE", IMAGE))
    (place / "f").write_text("f")
    return place


TARGETS = """\
group "default" { targets = ["upper", "beside"] }
target "lower" {
  dockerfile-inline = "FROM BASE\\nENV OF=lower\\nRUN echo low > /low\\nONBUILD RUN echo trig"
}
target "files" {
  dockerfile-inline = "FROM scratch\\nCOPY f /f"
}
target "upper" {
  contexts = { under = "target:lower", c = "target:files" }
  tags = ["bake:upper"]
  dockerfile-inline = <<EOT
FROM under
COPY --from=c / /c
RUN --mount=from=c,target=/m ls /m; cat /low; echo $OF
EOT
}
target "_common" {
  contexts = { under = "target:lower" }
  args = { V = "given" }
}
target "beside" {
  inherits = ["_common"]
  name = "beside-${n}"
  matrix = { n = ["1", "2"] }
  tags = ["bake:beside-${n}"]
  labels = { n = n }
  dockerfile-inline = "FROM under AS x\\nARG V\\nFROM x\\nRUN echo v=$V"
}
"""


def test_targets_are_built_of_targets(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    place = baked(tmp_path, TARGETS)
    told = ("--set", "beside-2.args.V=set")
    out = buildx.ok("buildx", "bake", *PLAIN, "--no-cache", *told, cwd=place)
    for text in (" low\n", " lower\n", " trig\n", " v=given\n", " v=set\n", "1/3] FROM under"):
        assert text in out, out
    # A command that ran is none from the cache, though the image that it mounts was here.
    mounted = next(line.split()[0] for line in out.splitlines() if line.endswith(" f"))
    assert f"{mounted} CACHED" not in out and f"{mounted} DONE" in out, out
    assert docker.inspect("bake:upper")["Config"]["Env"].count("OF=lower") == 1
    assert docker.inspect("bake:beside-2")["Config"]["Labels"]["n"] == "2"


SEVERAL = """\
target "each" {
  platforms = ["linux/amd64", "linux/arm64"]
  dockerfile-inline = "FROM scratch\\nARG TARGETARCH\\nCOPY f /$TARGETARCH"
}
target "all" {
  contexts = { each = "target:each" }
  platforms = ["linux/amd64", "linux/arm64"]
  dockerfile-inline = "FROM each\\nCOPY --from=each / /copied/"
  output = ["type=local,dest=out"]
}
"""


@pytest.mark.parametrize("more", [{}, EXPERIMENTAL])
def test_targets_of_several_platforms_are_built_of_such(
    buildx: Plugin, tmp_path: Path, more: dict[str, str]
) -> None:
    buildx.ok("buildx", "bake", *PLAIN, "all", cwd=baked(tmp_path, SEVERAL), more=more)
    found = {str(p.relative_to(tmp_path / "out")) for p in tmp_path.glob("out/**/*") if p.is_file()}
    assert found == {
        f"linux_{arch}/{where}{arch}" for arch in ("amd64", "arm64") for where in ("", "copied/")
    }


def test_results_are_solved_again(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    # The client gives its result back as a graph of its own making, for a debugger to begin from.
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo made > /made\n")
    buildx.ok("build", "-t", "again:1", ".", cwd=tmp_path, more=EXPERIMENTAL)
    assert docker.ok("run", "--rm", "again:1", "cat", "/made") == "made"


def test_dockerfiles_are_asked_about(buildx: Plugin, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("ARG G=g\nFROM scratch AS a\nFROM a AS b\nARG H=h\n")
    ask = ("buildx", "build", "--print")
    targets = buildx.ok(*ask, "targets", ".", cwd=tmp_path, more=EXPERIMENTAL)
    assert "TARGET      DESCRIPTION\na           \nb (default) \n" in targets
    outline = buildx.ok(*ask, "outline", ".", cwd=tmp_path, more=EXPERIMENTAL)
    said = "TARGET: b\n\nBUILD ARG   VALUE   DESCRIPTION\nG           g       \nH           h"
    assert said in outline
