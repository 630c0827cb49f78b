"""Docker's buildx as a client: builds, what they are given, what they give, and how they end."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from platform import machine
from typing import IO, Any, cast

import pytest
from tests import sample_image
from tests.compat.docker.clients import Plugin, plugin
from tests.compat.docker.docker_engine import IMAGE, Engine
from tests.conformance.image_registry_server import running_registry

pytestmark = pytest.mark.root
PLAIN = ("--progress", "plain")


@pytest.fixture
def buildx(docker: Engine) -> Plugin:
    """The command line that builds by buildx."""
    return plugin(docker, "docker-buildx")


def written(place: Path, **files: str) -> Path:
    """A context; `__` stands for a dot."""
    for name, text in files.items():
        path = place / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("BASE", IMAGE))
    return place


STAGES = """\
FROM BASE AS base
ARG V=1
ENV A=$V
RUN echo one > /one

FROM base AS other
RUN false

FROM base
WORKDIR /work
COPY a.txt d ./
RUN cat a.txt /one; echo $V $A
"""


def test_builds_are_shown_as_dockers(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    assert "running" in buildx.ok("buildx", "inspect")
    place = written(tmp_path / "c", Dockerfile=STAGES, a__txt="A\n", **{"d/e": "E", "d/x.log": ""})
    written(place, __dockerignore="*.log\n**/*.log\n", **{"d/big": "x" * 3_000_000})
    out = buildx.ok("build", *PLAIN, "-t", "bx:1", "--build-arg", "V=2", ".", cwd=place)
    for line in (
        "[internal] load build definition from Dockerfile",
        f"[base 1/2] FROM {IMAGE}",
        "[base 2/2] RUN echo one > /one",
        "[internal] load build context",
        "[stage-2 1/3] WORKDIR /work",
        "[stage-2 2/3] COPY a.txt d ./",
        "[stage-2 3/3] RUN cat a.txt /one; echo 2 2",
        "exporting to image",
        "naming to docker.io/library/bx:1",
    ):
        assert line in out, out
    assert "other" not in out, "a stage that nobody needs is not built"
    for line in (" A\n", " one\n", " 2 2\n"):
        assert line in out
    assert docker.ok("run", "--rm", "bx:1", "ls").split() == ["a.txt", "big", "e"]
    iid, facts = tmp_path / "iid", tmp_path / "facts"
    words = ("--iidfile", str(iid), "--metadata-file", str(facts), "--build-arg", "V=2")
    again = buildx.ok("build", *PLAIN, *words, ".", cwd=place)
    assert again.count("CACHED") == 5, again
    assert iid.read_text() == docker.inspect("bx:1")["Id"]
    assert json.loads(facts.read_text())["containerimage.config.digest"] == iid.read_text()
    # Of a context that was sent before, only what is new comes: names, and the file that changed.
    (place / "a.txt").write_text("B\n")
    changed = buildx.ok("build", *PLAIN, ".", cwd=place)
    assert "transferring context: 3.0" in out
    assert re.search(r"load build context\n#\d+ transferring context: \d{2,3}B ", changed), changed
    assert " B\n" in changed
    base = f"FROM {IMAGE}\nONBUILD RUN echo trig\n".encode()
    buildx.ok("build", "-t", "onbuild:1", "-", stdin=base)
    child = b"FROM onbuild:1\nRUN env | grep HOSTNAME || echo unnamed\n"
    out = buildx.ok("build", *PLAIN, "--no-cache", "-", stdin=child)
    assert "[2/2] RUN echo trig\n" in out and "[3/2] RUN env" in out and " unnamed\n" in out


def test_failures_point_into_the_dockerfile(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    place = written(
        tmp_path,
        run="FROM BASE\nRUN echo hi && \\\n  exit 7\nRUN true\n",
        word="FROM BASE\nRUNN x\n",
        copy="FROM BASE\nCOPY nope /\n",
        platform="FROM --platform=$NONE BASE\n",
        late="FROM BASE\nRUN exit 7\nFROM BASE\nRUN --mount=type=x true\n",
        syntax="# syntax=ghcr.io/x/y\n{}\n",
    )
    said = buildx.fails("build", *PLAIN, "-f", "run", ".", cwd=place)
    assert " > [2/3] RUN echo hi &&   exit 7:\n" in said
    assert "   2 | >>> RUN echo hi && \\\n   3 | >>>   exit 7\n   4 |     RUN true\n" in said
    assert said.rstrip().endswith(
        'ERROR: failed to solve: process "/bin/sh -c echo hi &&   exit 7" did not complete '
        "successfully: exit code: 7"
    )
    said = buildx.fails("build", "-f", "word", ".", cwd=place)
    assert "word:2\n" in said and "   2 | >>> RUNN x\n" in said
    assert "ERROR: failed to solve: dockerfile parse error on line 2: unknown instruction" in said
    assert "   2 | >>> COPY nope /\n" in buildx.fails("build", "-f", "copy", ".", cwd=place)
    for words, text in (
        (("-f", "none", "."), "failed to read dockerfile: open none: no such file or directory"),
        (("-f", "run", "--target", "x", "."), 'target stage "x" could not be found'),
        (("-f", "run", "--cache-to", "type=nope", "."), 'unknown cache exporter: "nope"'),
        (("-f", "late", "."), 'unsupported mount type "x"'),
        (("-f", "platform", "."), "empty platform value from expression $NONE"),
        (("-f", "syntax", "."), "frontend ghcr.io/x/y is not known"),
        (("-f", "run", "--allow", "security.insecure", "."), "security.insecure is not allowed"),
        (("-f", "run", "--sbom=true", "."), "sbom can't be attested"),
    ):
        assert text in buildx.fails("build", *words, cwd=place)
    assert docker.ok("ps", "-aq") == ""


def test_results_go_where_they_are_wanted(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    text = "FROM scratch\nCOPY --chmod=640 f /d/f\nCOPY --chown=5:6 f /d/g\n"
    place = written(tmp_path, Dockerfile=text, f="F" * 700_000)
    (place / "f").chmod(0o604)
    words = (
        f"type=local,dest={tmp_path}/out", f"type=tar,dest={tmp_path}/out.tar", "type=docker,name=bx:2",
    )  # fmt: skip
    buildx.ok("build", *(w for word in words for w in ("--output", word)), ".", cwd=place)
    assert (tmp_path / "out/d/f").read_text() == "F" * 700_000
    assert (tmp_path / "out/d/f").stat().st_mode & 0o7777 == 0o640
    with tarfile.open(tmp_path / "out.tar") as tar:
        found = {m.name: (m.mode, m.uid, m.gid, m.size) for m in tar if m.isfile()}
    assert found == {"d/f": (0o640, 0, 0, 700_000), "d/g": (0o604, 5, 6, 700_000)}
    assert docker.inspect("bx:2")["RootFS"]["Layers"]
    archive = tmp_path / "docker.tar"
    buildx.ok("build", "--output", f"type=docker,dest={archive},name=bx:3", ".", cwd=place)
    assert "Loaded image: bx:3" in docker.ok("load", "-i", str(archive))
    assert docker.inspect("bx:3")["Id"] == docker.inspect("bx:2")["Id"]


CROSS = """\
FROM --platform=$BUILDPLATFORM BASE AS build
ARG TARGETARCH
RUN echo $TARGETARCH > /made
FROM scratch
COPY --from=build /made /
"""


def test_one_build_for_several_platforms(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    place = written(tmp_path / "c", Dockerfile=CROSS)
    build = ("build", *PLAIN, "--platform", "linux/arm64,linux/amd64")
    out = buildx.ok(*build, "--output", f"type=local,dest={tmp_path}/out", ".", cwd=place)
    assert "[linux/arm64 build 2/2] RUN" in out and "[linux/amd64 stage-1 1/1] COPY" in out
    for arch in ("amd64", "arm64"):
        assert (tmp_path / f"out/linux_{arch}/made").read_text() == f"{arch}\n"
    archive = tmp_path / "out.tar"
    buildx.ok(*build, "--output", f"type=oci,dest={archive},name=x:1", ".", cwd=place)
    with tarfile.open(archive) as tar:

        def document(name: str) -> dict[str, Any]:
            found: dict[str, Any] = json.load(cast(IO[bytes], tar.extractfile(name)))
            return found

        (top,) = document("index.json")["manifests"]
        assert top["annotations"]["io.containerd.image.name"] == "docker.io/library/x:1"
        index = document("blobs/sha256/" + top["digest"].removeprefix("sha256:"))
        assert [e["platform"]["architecture"] for e in index["manifests"]] == ["arm64", "amd64"]
    with running_registry(tmp_path) as host:
        facts = tmp_path / "facts"
        name = f"{host}/several:1"
        buildx.ok(*build, "--push", "-t", name, "--metadata-file", str(facts), ".", cwd=place)
        digest = json.loads(facts.read_text())["containerimage.digest"]
        told = buildx.ok("buildx", "imagetools", "inspect", name)
        assert digest in told and told.count("Platform:") == 2
        assert docker.inspect(name)["Architecture"] == {"x86_64": "amd64"}.get(machine(), "arm64")
        # Its images stay for as long as the name does, and go with it to where it is pushed.
        docker.ok("image", "prune", "-f")
        docker.ok("tag", name, f"{host}/one:1")
        assert digest in docker.ok("push", name)
        assert digest not in docker.ok("push", f"{host}/one:1")
        docker.ok("rmi", name, f"{host}/one:1")


CONTEXTS = """\
FROM BASE AS one
RUN false
FROM BASE AS two
COPY --from=named . /named/
COPY --from=one /bin/busybox /one
RUN --mount=from=named,target=/m ls /named /m; head -c4 /one
"""


def test_contexts_of_every_kind(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    place = written(tmp_path / "c", Dockerfile=CONTEXTS, f="in the context\n")
    written(tmp_path / "n", o="other\n", skipped="", __dockerignore="skipped\n.dockerignore\n")
    words = (
        "--build-context",
        f"named={tmp_path}/n",
        "--build-context",
        f"one=docker-image://{IMAGE}",
    )
    out = buildx.ok("build", *PLAIN, *words, ".", cwd=place)
    assert "[context named] load from client" in out
    assert out.count(" o\n") == 2 and "skipped" not in out.split("RUN")[-1]
    dockerfile = f"FROM {IMAGE}\nCOPY f /\nRUN cat /f\n".encode()
    assert " in the context\n" in buildx.ok(
        "build", *PLAIN, "-f", "-", ".", cwd=place, stdin=dockerfile
    )
    repository = written(
        tmp_path / "g", Dockerfile="FROM BASE\nCOPY f /\nRUN cat /f\n", f="of git\n"
    )
    git = ("git", "-c", "user.name=n", "-c", "user.email=e@x", "-C", str(repository))
    for step in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-qm", "m")):
        subprocess.run([*git, *step], check=True, capture_output=True)
    packed = subprocess.run([*git, "archive", "HEAD"], check=True, capture_output=True).stdout
    assert " of git\n" in buildx.ok("build", *PLAIN, "-", stdin=packed)


KEYS = """\
FROM BASE
RUN --mount=type=secret,id=s,mode=0444 cat /run/secrets/s; ls -l /run/secrets/s | cut -c1-10
RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo agent
RUN --mount=type=cache,target=/c echo x >> /c/f; wc -l < /c/f
RUN --mount=type=tmpfs,target=/t mount | grep ' /t '
RUN grep -w gw /etc/hosts; ulimit -n; df /dev/shm | tail -1; ls /sys/class/net
"""


def test_what_commands_are_lent(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    place = written(tmp_path, Dockerfile=KEYS, secret="hush\n")
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL
    )
    try:
        words = (
            "--secret", "id=s,src=secret", "--ssh", f"default={tmp_path}/agent", "--network", "none",
            "--add-host", "gw:host-gateway", "--ulimit", "nofile=77:77", "--shm-size", "3m",
        )  # fmt: skip
        docker.wait_until((tmp_path / "agent").exists)
        out = buildx.ok("build", *PLAIN, "--no-cache", *words, ".", cwd=place)
    finally:
        agent.terminate()
        agent.wait()
    for text in (" hush\n", " -r--r--r--\n", " agent\n", " 1\n", " 77\n", " 3072 ", " lo\n"):
        assert text in out, out
    gateway = json.loads(docker.ok("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0][
        "Gateway"
    ]
    assert f" {gateway}\tgw\n" in out
    assert "eth0" not in out and "tmpfs on /t" in out
    assert "cached mount" in buildx.ok("buildx", "du", "--verbose")
    assert "Total:" in buildx.ok("buildx", "prune", "-af")
    assert buildx.ok("buildx", "du").split()[-2:] == ["Total:", "0B"]


def test_an_image_is_pushed_and_serves_as_cache(
    docker: Engine, buildx: Plugin, tmp_path: Path
) -> None:
    text = f"FROM {IMAGE}\nRUN echo cached > /c\nRUN cat /c\n"
    with running_registry(tmp_path) as host:
        name = f"{host}/some/image:1"
        out = buildx.ok("build", *PLAIN, "--push", "-t", name, "-", stdin=text.encode())
        assert f"pushing manifest for {name}@sha256:" in out
        docker.ok("rmi", name)
        docker.ok("image", "prune", "-f")
        out = buildx.ok("build", *PLAIN, "--cache-from", name, "-", stdin=text.encode())
        assert out.count("CACHED") == 3, out
        missing = ("--cache-from", f"{host}/no/such:1")
        assert "CACHED" in buildx.ok("build", *PLAIN, *missing, "-", stdin=text.encode())
        # With mode=max steps of stages that are not in the result serve, too.
        text = f"FROM {IMAGE} AS a\nRUN echo {tmp_path} > /x\nFROM scratch\nCOPY --from=a /x /\n"
        cache = f"type=registry,ref={host}/cache"
        buildx.ok("build", "--cache-to", f"{cache},mode=max", "-", stdin=text.encode())
        docker.ok("rmi", *docker.ok("images", "-q", f"{host}/cache").split())
        docker.ok("image", "prune", "-f")
        out = buildx.ok("build", *PLAIN, "--cache-from", cache, "-", stdin=text.encode())
        assert out.count("CACHED") == 3, out


LOCAL = """\
FROM files AS kept
FROM layout AS made
RUN echo {} > /x
FROM scratch
COPY --from=made /x /
COPY --from=kept /f /
"""


def test_a_directory_is_a_base_a_cache_and_a_result(
    docker: Engine, buildx: Plugin, tmp_path: Path
) -> None:
    sample = sample_image.build(tmp_path / "sample")
    place = written(tmp_path / "c", Dockerfile=LOCAL.format(tmp_path), **{"files/f": "F"})
    contexts = (
        "--build-context",
        "files=files",
        "--build-context",
        f"layout=oci-layout://{sample.oci_layout}",
    )
    cache = tmp_path / "cache"
    words = ("build", *PLAIN, *contexts, ".")
    out = ("--output", "type=oci,tar=false,dest=out")
    before = set(docker.ok("images", "-aq").split())
    buildx.ok(*words, *out, "--cache-to", f"type=local,dest={cache},mode=max", cwd=place)
    docker.ok("image", "prune", "-f")
    assert set(docker.ok("images", "-aq").split()) <= before
    told = buildx.ok(*words, "--cache-from", f"type=local,src={cache}", "-t", "dir:1", cwd=place)
    assert told.count("CACHED") == 5 and "RUN echo" in told, told
    assert docker.inspect("dir:1")["RootFS"]["Layers"]
    index = json.loads((place / "out" / "index.json").read_bytes())
    (top,) = index["manifests"]
    blobs = place / "out" / "blobs" / "sha256"
    assert all(hashlib.sha256(p.read_bytes()).hexdigest() == p.name for p in blobs.iterdir())
    assert (blobs / top["digest"].removeprefix("sha256:")).exists()
    (blobs / top["digest"].removeprefix("sha256:")).unlink()
    lost = ("--build-context", f"layout=oci-layout://{place}/out", "--no-cache")
    assert "not found" in buildx.fails(*words[:-1], *lost, ".", cwd=place)


def test_files_are_dated_as_the_build_is(buildx: Plugin, tmp_path: Path) -> None:
    text = "ARG SOURCE_DATE_EPOCH=1600000000\nFROM scratch\nCOPY f /d/f\n"
    place = written(tmp_path / "c", Dockerfile=text, f="F")
    words = (".", "--output", f"type=tar,dest={tmp_path}/o.tar")
    for more, wanted in (((), 1600000000), (("--build-arg", "SOURCE_DATE_EPOCH=1"), 1)):
        digests = set()
        for _ in range(2):
            buildx.ok("build", "--no-cache", *more, *words, cwd=place)
            digests.add(hashlib.sha256((tmp_path / "o.tar").read_bytes()).hexdigest())
        with tarfile.open(tmp_path / "o.tar") as tar:
            assert {(m.name, m.mtime) for m in tar} == {("d", wanted), ("d/f", wanted)}
        assert len(digests) == 1
    (place / "Dockerfile").write_text(text.replace("1600000000", "never"))
    assert "invalid SOURCE_DATE_EPOCH: never" in buildx.fails("build", *words, cwd=place)


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_layers_are_dated_as_the_build_is(
    docker: Engine, buildx: Plugin, tmp_path: Path, kind: str
) -> None:
    text = "FROM BASE\nRUN mkdir /d; echo x > /d/x; ln /d/x /l; rm /etc/passwd\nCOPY f /d/\n"
    place, out = written(tmp_path / "c", Dockerfile=text, f="F"), tmp_path / "o.tar"
    words = ("build", "--no-cache", "--provenance", "false", ".", "--output")
    found = []
    for _ in range(2):
        output = f"type={kind},dest={out},rewrite-timestamp=true"
        buildx.ok(*words, output, cwd=place, more={"SOURCE_DATE_EPOCH": "1600000000"})
        found.append(hashlib.sha256(out.read_bytes()).hexdigest())
    assert found[0] == found[1]
    times, links = list[dict[str, float]](), dict[str, str]()
    with tarfile.open(out) as tar:
        (top,) = json.load(cast(IO[bytes], tar.extractfile("index.json")))["manifests"]
        manifest = _blob(tar, top["digest"])
        lower = _blob(tar, manifest["config"]["digest"])["rootfs"]["diff_ids"][:-2]
        assert lower == docker.inspect(IMAGE)["RootFS"]["Layers"], "the base's stay as they are"
        for one in manifest["layers"][-2:]:
            with tarfile.open(fileobj=_stored(tar, one["digest"])) as layer:
                times.append({m.name: m.mtime for m in layer})
                links |= {m.name: m.linkname for m in layer.getmembers() if m.islnk()}
    assert {"d", "d/x", "l", "etc/.wh.passwd"} <= set(times[0]) and "d/f" in times[1]
    assert links in ({"l": "d/x"}, {"d/x": "l"})
    assert max(t for one in times for t in one.values()) == 1600000000


def _stored(tar: tarfile.TarFile, digest: str) -> IO[bytes]:
    return cast(IO[bytes], tar.extractfile("blobs/" + digest.replace(":", "/")))


def _blob(tar: tarfile.TarFile, digest: str) -> Any:
    return json.load(_stored(tar, digest))


def test_images_tell_how_they_were_made(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    place = written(tmp_path / "c", Dockerfile="FROM BASE\nARG V\nRUN echo $V > /v\n")
    words = ("build", "--build-arg", "V=1", "--provenance=mode=max", ".")
    with running_registry(tmp_path) as host:
        name = f"{host}/told:1"
        notes = ("--annotation", "a=b", "--annotation", "index:c=d")
        buildx.ok(*words, *notes, "--push", "-t", name, cwd=place)
        # The client pushes the name again behind the builder: it is the same.
        index = json.loads(buildx.ok("buildx", "imagetools", "inspect", "--raw", name))
        image, told = index["manifests"]
        assert index["annotations"] == {"c": "d"}
        assert told["annotations"]["vnd.docker.reference.digest"] == image["digest"]
        raw = buildx.ok("buildx", "imagetools", "inspect", "--raw", f"{name}@{image['digest']}")
        assert json.loads(raw)["annotations"] == {"a": "b"}
        shown = ("buildx", "imagetools", "inspect", "--format", "{{json .Provenance}}", name)
        said = json.loads(buildx.ok(*shown))["SLSA"]
        assert said["invocation"]["parameters"]["args"]["build-arg:V"] == "1"
        assert "sagong.test/busybox@latest" in said["materials"][0]["uri"]
        docker.ok("rmi", name)
        docker.ok("pull", name)
        out = (
            "--output",
            f"type=oci,dest={tmp_path}/o.tar",
            "--output",
            f"type=local,dest={tmp_path}/o",
        )
        buildx.ok(*words, *out, cwd=place)
        statement = json.loads((tmp_path / "o" / "provenance.json").read_text())
        digest = hashlib.sha256(b"1\n").hexdigest()
        assert {"name": "v", "digest": {"sha256": digest}} in statement["subject"]
        docker.ok("load", "-i", str(tmp_path / "o.tar"))
        docker.ok("rmi", name)
    kept = buildx.fails("build", "--annotation", "a=b", "--output", "type=image", ".", cwd=place)
    assert "annotations go out with --push" in kept


def _building(buildx: Plugin, place: Path) -> subprocess.Popen[bytes]:
    """A build whose command runs."""
    begun = subprocess.Popen(
        ["docker", "build", *PLAIN, "--no-cache", "."],
        cwd=place,
        env=buildx.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert begun.stdout is not None
    for line in begun.stdout:
        if line.rstrip().endswith(b" begun"):
            return begun
    raise AssertionError("the build ended")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes_takes_its_build_along(
    docker: Engine, buildx: Plugin, tmp_path: Path, how: signal.Signals
) -> None:
    place = written(tmp_path, Dockerfile="FROM BASE\nRUN echo begun; sleep 600\n")
    begun = _building(buildx, place)
    begun.send_signal(how)
    said = begun.communicate(timeout=60)[0].decode()
    if how == signal.SIGINT:
        assert "CANCELED" in said and "context canceled" in said
    docker.wait_until(lambda: not docker.ok("ps", "-aq"))


def test_stages_are_made_beside_each_other(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    # Each waits for the other: in a cache that both have one makes a file, the other takes it away.
    both = f"--mount=type=cache,id={tmp_path},target=/c"
    wait = f"RUN {both} until [ -e /c/go ]; do sleep 0.05; done; rm /c/go; echo 1 > /1"
    go = f"RUN {both} until touch /c/go && sleep 0.2 && ! [ -e /c/go ]; do :; done; echo 2 > /2"
    text = f"FROM BASE AS one\n{wait}\nFROM BASE AS two\n{go}\nFROM scratch\n"
    place = written(tmp_path, Dockerfile=text + "COPY --from=one /1 /\nCOPY --from=two /2 /\n")
    buildx.ok("build", "--no-cache", "--output", f"type=local,dest={tmp_path}/out", ".", cwd=place)
    assert [(tmp_path / "out" / n).read_text() for n in "12"] == ["1\n", "2\n"]
    # The one that fails does so when the other one runs.
    runs = f"RUN {both} touch /c/runs; sleep 600"
    fails = f"RUN {both} until [ -e /c/runs ]; do sleep 0.05; done; exit 3"
    bad = f"FROM BASE AS a\n{runs}\nFROM BASE AS b\n{fails}\nFROM a\n"
    (place / "Dockerfile").write_text(bad.replace("BASE", IMAGE) + "COPY --from=b /x /\n")
    said = buildx.fails("build", *PLAIN, "--no-cache", ".", cwd=place)
    assert f"[a 2/2] {runs}\n" in said and "CANCELED" in said
    assert said.rstrip().endswith("did not complete successfully: exit code: 3")
    assert docker.ok("ps", "-aq") == ""


def test_builds_beside_each_other(docker: Engine, buildx: Plugin, tmp_path: Path) -> None:
    place = written(tmp_path, Dockerfile="FROM BASE\nARG N\nCOPY . /all\nRUN echo $N > /n\n", f="f")

    def build(number: int) -> None:
        name = f"beside:{number}"
        buildx.ok("build", "-t", name, "--build-arg", f"N={number}", ".", cwd=place)

    with ThreadPoolExecutor(4) as all_:
        list(all_.map(build, range(4)))
    made = [docker.ok("run", "--rm", f"beside:{n}", "cat", "/n", "/all/f") for n in range(4)]
    assert made == [f"{n}\nf" for n in range(4)]
