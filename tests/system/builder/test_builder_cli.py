"""`docker build` of the docker command line, without BuildKit: what people see, and what they get."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker as docker_py
import pytest

from tests import sample_image
from tests.compat.docker.docker_engine import IMAGE, Engine
from tests.ports import free_port
from tests.system.instance import REPOSITORY, environment

pytestmark = pytest.mark.root

BASE = f"FROM {IMAGE}\n"


class Place:
    """A directory to build, and the engine."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory

    def write(self, **files: str) -> None:
        """Files of the context; `__` stands for a dot."""
        for name, text in files.items():
            path = self.directory / name.replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def build(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """`docker build`; the last word is the context unless one is given."""
        last = (
            ()
            if "-" in words[-1:] or any(w.startswith("http") for w in words[-1:])
            else (str(self.directory),)
        )
        return self.engine.docker("build", *words, *last, stdin=stdin, seconds=60)

    def ok(self, *words: str, stdin: bytes | None = None) -> str:
        """What a build that goes well prints."""
        done = self.build(*words, stdin=stdin)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def wrong(self, text: str, *words: str) -> str:
        """What is said of a Dockerfile that can't be built."""
        self.write(Dockerfile=text)
        done = self.build(*words)
        assert done.returncode != 0, done.stdout
        return done.stderr


@pytest.fixture
def place(docker: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty context."""
    monkeypatch.setattr(Engine, "environment", _classic(Engine.environment))
    return Place(docker, tmp_path)


def _classic(before: Any) -> Any:
    return lambda self: {**before(self), "DOCKER_BUILDKIT": "0"}


def test_a_build_looks_like_dockers(place: Place) -> None:
    place.write(Dockerfile=f"{BASE}ARG V=1\nRUN echo out; echo err >&2\nCMD x\n")
    shown = place.ok("--build-arg", "nobody=1", "-t", "look:1", "-t", "look:2")
    shown = re.sub(r"[0-9a-f]{12}", "ID", shown)
    for line in (
        f"Step 1/4 : FROM {IMAGE}\n ---> ID\nStep 2/4 : ARG V=1\n",
        "Step 3/4 : RUN echo out; echo err >&2\n ---> Running in ID\n",
        "out\n",
        "\x1b[91merr\n\x1b[0m",
        " ---> Removed intermediate container ID\n ---> ID\n",
        "[Warning] One or more build-args [nobody] were not consumed\n",
        "Successfully built ID\nSuccessfully tagged look:1\nSuccessfully tagged look:2\n",
    ):
        assert line in shown
    again = place.ok("-t", "look:1")
    assert again.count(" ---> Using cache\n") == 3


def test_the_image_runs(place: Place) -> None:
    place.write(
        Dockerfile=f'{BASE}COPY run.sh /bin/run\nRUN chmod 755 /bin/run\nENTRYPOINT ["run"]\n'
        'CMD ["default"]\nWORKDIR /work\nUSER app\n',
        run__sh="#!/bin/sh\necho $1 $(pwd) $(id -un)\n",
    )
    place.ok("-t", "runs:1")
    assert place.engine.ok("run", "--rm", "runs:1") == "default /work app"
    assert place.engine.ok("run", "--rm", "runs:1", "given") == "given /work app"


def test_quiet_prints_the_id_and_iidfile_keeps_it(place: Place) -> None:
    place.write(Dockerfile=f"{BASE}ENV a=1\n")
    shown = place.ok("-q", "--iidfile", str(place.directory / "id"))
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", shown)
    assert (place.directory / "id").read_text().strip() == shown.strip()


def test_a_command_that_fails_gives_its_code(place: Place) -> None:
    place.write(Dockerfile=f"{BASE}RUN exit 9\n")
    done = place.build()
    assert done.returncode == 9
    assert "The command '/bin/sh -c exit 9' returned a non-zero code: 9" in done.stderr
    # Its container stays to be looked into, unless that is not wanted.
    assert len(place.engine.ok("ps", "-aq").split()) == 1
    place.engine.clear()
    place.build("--force-rm")
    assert place.engine.ok("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("FOO x", (), "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("COPY nope /", (), "COPY failed: file not found in build context or excluded"),
        ("COPY ../x /", (), "COPY failed: forbidden path outside the build context: ../x ()"),
        ("COPY a.txt b.txt /x", (), "must be a directory and end with a /"),
        ("ENV x=${y", (), "failed to process \"${y\": missing ':' in substitution"),
        ("RUN true", ("--target", "x"), 'target stage "x" could not be found'),
        ("USER nobody-here\nRUN true", (), "unable to find user nobody-here"),
        ("COPY --chown=nobody-here a.txt /", (), "can't find uid for user nobody-here"),
        ("RUN true", ("--network", "nope"), "network nope not found"),
        (
            "ADD http://127.0.0.1:1/x /",
            (),
            'Get "http://127.0.0.1:1/x": connection refused',
        ),
    ],
)
def test_errors_have_dockers_words(
    place: Place, text: str, words: tuple[str, ...], said: str
) -> None:
    place.write(a__txt="", b__txt="")
    assert said in place.wrong(BASE + text + "\n", *words)


def test_what_no_build_can_have_is_refused(place: Place) -> None:
    assert 'unsupported isolation: "hyperv"' in place.wrong(BASE, "--isolation", "hyperv")
    said = place.wrong(BASE, "--security-opt", "seccomp=unconfined")
    assert "security options are not supported on linux" in said


def test_dockerfiles_from_elsewhere(place: Place) -> None:
    place.write(**{"sub/Other": f"{BASE}RUN echo by-name\n"})
    assert "by-name\n" in place.ok("-f", str(place.directory / "sub" / "Other"), "--no-cache")
    shown = place.ok("--no-cache", "-", stdin=f"{BASE}RUN echo by-stdin\n".encode())
    assert "by-stdin\n" in shown
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, raw in (
            ("Dockerfile", f"{BASE}COPY f /\nRUN cat /f\n".encode()),
            ("f", b"tar\n"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    assert "tar\n" in place.ok("--no-cache", "-", stdin=buffer.getvalue())


def test_dockerignore_and_wildcards(place: Place) -> None:
    place.write(
        Dockerfile=f"{BASE}COPY . /all/\nCOPY *.c /c/\nRUN cd / && find all c -type f | sort\n",
        __dockerignore="*.log\n!keep.log\nbuild\nDockerfile\n",
        a__c="",
        b__c="",
        x__log="",
        keep__log="",
    )
    (place.directory / "build").mkdir()
    (place.directory / "build" / "out").write_text("")
    shown = place.ok("--no-cache")
    assert "all/.dockerignore\nall/a.c\nall/b.c\nall/keep.log\nc/a.c\nc/b.c\n" in shown


def test_all_stages_are_made_and_only_the_named_image_serves_as_cache(place: Place) -> None:
    place.write(Dockerfile=f"{BASE}RUN echo first\n{BASE}ENV a=1\nRUN echo last\n")
    assert place.ok("-t", "named:1").count("---> Running in") == 2, "nobody needs the first"
    assert place.ok().count("Using cache") == 3
    # What another image was made of does not count: the first stage's is no part of it.
    assert place.ok("--cache-from", "named:1").count("Using cache") == 2
    assert "Using cache" not in place.ok("--cache-from", "other:1")
    saved = place.directory / "named.tar"
    before = place.engine.inspect("named:1")["Id"]
    place.engine.ok("save", "-o", str(saved), "named:1")
    place.engine.ok("rmi", "-f", "named:1")
    place.engine.ok("image", "prune", "-f")
    place.engine.ok("load", "-i", str(saved))
    place.ok("--cache-from", "named:1", "-t", "again:1")
    assert place.engine.inspect("again:1")["Id"] == before, "the end of its history is the image"


def test_what_stands_in_the_way_of_directories_is_said(place: Place) -> None:
    for line in ("WORKDIR /etc/passwd", "WORKDIR /etc/passwd/below"):
        assert "Cannot mkdir: /etc/passwd" in place.wrong(f"{BASE}{line}\n")
    assert "file exists /etc/passwd" in place.wrong(f"{BASE}VOLUME /etc/passwd\n")
    place.write(
        Dockerfile=f"{BASE}RUN ln -s ../there/yet /link\nCOPY f /link/\nRUN ls -F / /there/yet\n"
    )
    place.write(f="f")
    shown = place.ok()
    assert "link@" in shown and "/there/yet:\nf\n" in shown, "the link stays, its end is made"


def test_a_renamed_file_and_another_unpacking_are_other_steps(place: Place) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("inner"))
    (place.directory / "t.tar").write_bytes(packed.getvalue())
    for name, flag in (("one", ""), ("two", "--unpack=false")):
        text = f"{BASE}COPY f-* /d/\nADD {flag} t.tar /u/\nRUN echo $(ls /d /u)\n"
        place.write(Dockerfile=text, **{f"f-{name}": "same"})
        assert f"/d: f-{name} /u: {'t.tar' if flag else 'inner'}" in place.ok()
        (place.directory / f"f-{name}").unlink()
    (place.directory / "t.tar").write_bytes(packed.getvalue()[:600])
    place.write(Dockerfile=f"{BASE}ADD t.tar /u/\n")
    assert place.build().returncode == 0, "what a writer leaves out at the end is no damage"
    (place.directory / "t.tar").write_bytes(b"\x1f\x8b" + packed.getvalue())
    assert place.build().returncode == 0, "gzip that holds no archive is a file"


def test_what_is_fetched_is_not_what_is_unpacked(place: Place, web: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("inner"))
    (place.directory / "t.tar").write_bytes(packed.getvalue())
    (place.directory / "t.tar").chmod(0o600)
    Files.served = {"/t.tar": packed.getvalue()}
    for source, found in (("t.tar", "inner"), (f"{web}/t.tar", "t.tar")):
        place.write(Dockerfile=f"{BASE}ADD {source} /u/\nRUN ls /u\n")
        assert f"\n{found}\n" in place.ok()


def test_files_of_other_stages_keep_their_owners(place: Place) -> None:
    text = f"FROM {IMAGE} AS one\nRUN mkdir /d && touch /d/f && chown 7:8 /d/f\n{BASE}"
    place.write(Dockerfile=text + "COPY --from=one /d/f /f\nCOPY --from=one --chown=9 /d /d\n")
    image = place.ok("-q").strip()
    owners = place.engine.ok("run", "--rm", image, "stat", "-c", "%u:%g", "/f", "/d/f")
    assert owners.split() == ["7:8", "9:9"]


def test_a_command_of_no_words_is_the_images(place: Place) -> None:
    place.write(Dockerfile=f'{BASE}CMD ["echo", "own"]\nRUN []\n')
    assert "\nown\n" in place.ok()


def test_names_in_a_context_do_not_lead_out_of_it(place: Place) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        made = f"{BASE}COPY a b /\nRUN cat /a /b\n"
        for name, text in (("Dockerfile", made), ("../a", "A\n"), ("/b", "B\n")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    assert "A\nB\n" in place.ok("-", stdin=packed.getvalue())


def test_networks_hosts_and_limits_of_commands(place: Place) -> None:
    place.write(
        Dockerfile=f"{BASE}RUN ls /sys/class/net; grep named /etc/hosts; ulimit -n; "
        "df -k /dev/shm | tail -1\n"
    )
    shown = place.ok(
        "--network", "none", "--add-host", "named:1.2.3.4", "--ulimit", "nofile=77:77",
        "--shm-size", "8m",
    )  # fmt: skip
    assert "---> Running in" in shown
    assert "\nlo\n1.2.3.4\tnamed\n77\n" in shown
    assert re.search(r"\s8192\s", shown)
    assert "eth0" in place.ok("--no-cache")
    place.engine.ok("network", "create", "own")
    try:
        assert "eth0" in place.ok("--no-cache", "--network", "own")
    finally:
        place.engine.ok("network", "rm", "own")


def test_an_image_from_somewhere_else_serves_as_cache(place: Place) -> None:
    place.write(Dockerfile=f"{BASE}RUN echo from-cache > /f\nENV a=1\n")
    place.ok("-t", "cached:1")
    archive = place.directory / "saved.tar"
    place.engine.ok("save", "-o", str(archive), "cached:1")
    place.engine.ok("rmi", "cached:1")
    place.engine.ok("load", "-i", str(archive))
    archive.unlink()
    assert " ---> Using cache" not in place.ok("-t", "other:1")
    place.engine.ok("rmi", "other:1")
    shown = place.ok("-t", "other:1", "--cache-from", "cached:1")
    assert shown.count(" ---> Using cache\n") == 2
    assert place.engine.ok("run", "--rm", "other:1", "cat", "/f") == "from-cache"


class Files(BaseHTTPRequestHandler):
    """Serves what the test put into `served`."""

    served: dict[str, bytes] = {}

    def do_GET(self) -> None:
        raw = self.served.get(self.path.partition("?")[0])
        self.send_response(404 if raw is None else 200)
        self.send_header("Content-Length", str(len(raw or b"")))
        self.send_header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
        self.end_headers()
        self.wfile.write(raw or b"")

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def web() -> Iterator[str]:
    """A server of files on the loopback, at a port that no engine chooses for a container."""
    with ThreadingHTTPServer(("127.0.0.1", free_port()), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_and_contexts_from_urls(place: Place, web: str) -> None:
    Files.served = {"/f.txt": b"fetched\n"}
    place.write(Dockerfile=f"{BASE}ADD {web}/f.txt /to/\nRUN cat /to/f.txt; stat -c %a /to/f.txt\n")
    assert "fetched\n600\n" in place.ok()
    assert "with status 404" in place.wrong(f"{BASE}ADD {web}/nope /x\n")
    Files.served["/Dockerfile"] = f"{BASE}RUN echo remote\n".encode()
    assert "remote\n" in place.ok("--no-cache", f"{web}/Dockerfile")


def test_new_layers_are_squashed_into_one(place: Place, web: str) -> None:
    text = f"{BASE}RUN echo a > /a\nRUN echo b > /b && rm /etc/passwd\nCOPY Dockerfile /c\nCMD x\n"
    Files.served = {"/Dockerfile": text.encode()}
    status, said = _post(place, f"/build?remote={web}/Dockerfile&squash=1&t=squashed:1")
    assert status == 200, said
    assert "Successfully tagged squashed:1" in said
    base = place.engine.inspect(IMAGE)["RootFS"]["Layers"]
    image = place.engine.inspect("squashed:1")
    assert image["RootFS"]["Layers"][:-1] == base
    assert image["Config"]["Cmd"] == ["/bin/sh", "-c", "x"]
    shown = place.engine.ok(
        "run", "--rm", "squashed:1", "sh", "-c", "cat /a /b; ls /etc/passwd || true"
    )
    assert shown == "a\nb"


def test_docker_py_builds(place: Place) -> None:
    client = docker_py.DockerClient(f"unix://{place.engine.socket}")
    place.write(Dockerfile=f"{BASE}ARG v\nRUN echo $v\nLABEL a=b\n", f="x")
    with contextlib.closing(client):
        image, log = client.images.build(
            path=str(place.directory), tag="py:1", buildargs={"v": "given"}, rm=True, nocache=True
        )
        assert "given\n" in [line.get("stream") for line in log]
        assert image.labels["a"] == "b"
        with pytest.raises(docker_py.errors.BuildError, match="returned a non-zero code: 3"):
            client.images.build(fileobj=io.BytesIO(f"{BASE}RUN exit 3\n".encode()), forcerm=True)


def repository(place: Place) -> str:
    """A repository that is served as `/repo.git`, tagged `v1`, with a branch `b`; the tag's commit."""
    work = place.directory / "work"
    work.mkdir()
    (work / "d").mkdir()
    (work / "d" / "Dockerfile").write_text(f"{BASE}COPY f /\nRUN cat /f\n")
    (work / "d" / "f").write_text("of git\n")

    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *identity, *words], cwd=work, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    git("tag", "v1")
    git("checkout", "-b", "b")
    (work / "d" / "f").write_text("of the branch\n")
    git("commit", "-a", "-m", "y")
    git("checkout", "-")
    git("update-server-info")
    bare = place.directory / "bare.git"
    git("clone", "--bare", str(work), str(bare))
    subprocess.run(["git", "update-server-info"], cwd=bare, check=True)
    Files.served = {
        f"/repo.git/{path.relative_to(bare)}": path.read_bytes()
        for path in bare.rglob("*")
        if path.is_file()
    }
    return (work / ".git/refs/tags/v1").read_text().strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_git_url_may_ask(place: Place, web: str) -> None:
    commit = repository(place)

    def said(query: str, command: str) -> str:
        place.write(Dockerfile=f"{BASE}ADD {web}/repo.git?{query} /r\nRUN cd /r; {command}\n")
        return place.ok()

    assert "of the branch\n" in said("branch=b", "cat d/f")
    assert "of git\n" in said(f"tag=v1&subdir=d&commit={commit[:9]}", "cat f")
    assert ".git\n" in said("tag=v1&keep-git-dir", "ls -A")
    # A history is packed otherwise each time; the commit is the same.
    assert place.ok().count(" ---> Using cache\n") == 2
    text = f"{BASE}ADD {web}/repo.git?tag=v1&commit=00 /r\n"
    assert "expected checksum to match 00" in place.wrong(text)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_context_from_a_git_repository(place: Place, web: str) -> None:
    repository(place)
    status, said = _post(place, f"/build?remote={web}/repo.git%23v1:d&nocache=1")
    assert status == 200, said
    assert "of git" in said


def _post(place: Place, path: str) -> tuple[int, str]:
    """The command line clones by itself: ask the engine."""
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(place.engine.socket), "-X", "POST",
         f"http://d{path}"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


@contextlib.contextmanager
def begun(place: Place, command: str, **files: str) -> Iterator[subprocess.Popen[bytes]]:
    """A build whose RUN has begun to work."""
    place.write(Dockerfile=f"{BASE}RUN echo begun; {command}\n", **files)
    with subprocess.Popen(
        ["docker", "build", "--no-cache", str(place.directory)],
        env=place.engine.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        for line in client.stdout:
            if line == b"begun\n":
                break
        yield client


def rest(client: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """How a build goes on: its code, output and errors."""
    out, err = client.communicate(timeout=60)
    return client.returncode, out.decode(), err.decode()


def test_a_client_that_goes_takes_its_build_along(place: Place) -> None:
    with begun(place, "sleep 600") as client:
        client.kill()
    wait_for_nothing(place.engine)


def wait_for_nothing(engine: Engine) -> None:
    """Wait until no container is left, and nothing is borrowed any more."""
    engine.wait_until(lambda: not engine.ok("ps", "-aq") and not borrowed(engine))


def borrowed(engine: Engine) -> list[Path]:
    """What builders have noted."""
    return list((engine.instance.paths.data / "plugins" / "builder").glob("work/*/borrowed/*"))


def test_a_swap_takes_no_build_away(place: Place) -> None:
    with begun(place, "sleep 2; echo ended\nCOPY f /g", f="x\n") as client:
        place.engine.instance.run("swap", "builder")
        code, out, err = rest(client)
    assert code == 0, err
    assert "ended\n" in out
    assert "Successfully built" in out
    wait_for_nothing(place.engine)


@pytest.mark.parametrize("unit", ["builder", "image", "node"])
def test_what_dies_in_the_middle_leaves_nothing(place: Place, unit: str) -> None:
    # The builder's death ends the build, however long it takes to find whom to kill.
    command = "sleep 600" if unit == "builder" else "sleep 3; echo ended"
    with begun(place, command) as client:
        os.kill(place.engine.instance.pid(unit), 9)
        code, out, err = rest(client)
    if unit == "builder":
        assert code != 0
        assert "the builder ended before the build did" in err
    else:
        assert code == 0, err
        assert "ended\n" in out
    wait_for_nothing(place.engine)


COMPARED = f"""FROM {IMAGE} AS base
ARG VERSION=1
ENV A=1 B="two words" C=$VERSION
LABEL x=y "a b"="c d"
RUN echo $VERSION > /v && mkdir -p /made
COPY a.txt b.txt /dst/
COPY d /dirdst
COPY --chown=1000:1000 a.txt /owned
WORKDIR /work/$A
USER app
EXPOSE 80 81/udp
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --retries=2 CMD echo ok
MAINTAINER me <me@x>
SHELL ["/bin/sh", "-ec"]
ONBUILD RUN echo hi
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "echo"]
"""


@pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs dockerd to compare with")
def test_the_image_is_what_docker_makes(place: Place) -> None:
    place.write(Dockerfile=COMPARED, a__txt="a", b__txt="bb", **{"d/e": "eee"})
    place.ok("--build-arg", "VERSION=7", "-t", "t:1")
    archive = place.engine.directory
    sample = sample_image.build(archive / "again")
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.builder.peer", sample.docker_archive, place.directory],
        env=environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    peer = json.loads(done.stdout)
    ours = json.loads(place.engine.ok("image", "inspect", "t:1"))[0]
    for key in ("RepoTags", "Author", "Architecture", "Os", "Comment"):
        assert ours[key] == peer["image"][key]
    # Of its containers' configs Docker tells more here, which says nothing; newer ones don't.
    theirs = {**peer["image"]["Config"], "Image": ""}
    assert set(ours["Config"]) <= set(theirs)
    for key, value in theirs.items():
        assert (ours["Config"].get(key) or None) == (value or None), key
    assert len(ours["RootFS"]["Layers"]) == len(peer["image"]["RootFS"]["Layers"])
    lines = place.engine.ok("history", "--no-trunc", "--format", "{{json .}}", "t:1").splitlines()
    assert [facts(line) for line in lines] == [facts(line) for line in peer["history"]]


def facts(line: str) -> tuple[str, str, bool]:
    """What is compared of a line of history: how it was made, without checksums, its size, and
    whether it is an image that is here."""
    entry = json.loads(line)
    how = re.sub(r"(file|dir|multi):[0-9a-f]{64}", r"\1", entry["CreatedBy"])
    # Docker 20 knows no interval of a start.
    how = re.sub(r"(\"0s\" )+(?=')", "", how)
    return how, entry["Size"], entry["ID"].startswith("sha256:")
