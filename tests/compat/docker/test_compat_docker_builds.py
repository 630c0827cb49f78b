"""One Dockerfile built by Docker Engine's BuildKit and by ours, by one client: what comes out."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests import sample_image
from tests.compat.docker.clients import CLIENTS, plugin
from tests.compat.docker.compare.pair import dockerd
from tests.compat.docker.docker_engine import Engine

pytestmark = pytest.mark.root
_ENGINE = [CLIENTS / "docker.io" / "usr" / "sbin", CLIENTS / "containerd" / "usr" / "bin"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Docker Engine 26, with the sample image; its socket."""
    if not all(place.is_dir() for place in _ENGINE):
        pytest.skip("needs Docker Engine 26 (packaging/clients fetches it)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGONG_DOCKERD", ":".join(map(str, _ENGINE)))
        # Short: a socket lies in it.
        directory = tmp_path_factory.mktemp("d")
        with dockerd(directory) as socket:
            yield socket


LONG_AGO = 1_500_000_000
BIG = """\
# A large one.
ARG TAG=latest
ARG GLOBAL=g
FROM sagong.test/busybox:${TAG} AS tools
ARG X=1
ARG GLOBAL
ENV A=1 B="two words" C=$X
ENV A=2 D=${A:-x} E=${Z:-def} F=${A:+alt} G=\\$A H="$B"
RUN <<EOF
env | grep -E '^[A-H]=' | sort > /env
echo "$X $GLOBAL" > /args
echo bob:x:777:778::/:/bin/sh >> /etc/passwd
mkdir -p /o/p
echo z > /o/p/z
ln -s p/z /o/l
mkfifo /o/fifo
touch /o/own
chown 8:9 /o/p
chown 5:6 /o/own
chmod 4755 /o/p/z
ls /tmp > /none
EOF
FROM tools AS child
RUN echo "[$X][$GLOBAL]" > /inherited
ARG X=2
RUN echo $X >> /inherited; rm /none; rm -r /o/p; mkdir /o/p
COPY --chown=bob a.txt /by/name
COPY --chown=900 --chmod=600 a.txt /by/number
COPY --chown=:55 many/f[12].txt /by/group/
ENV OVER=env
ARG OVER=arg
RUN mkdir /vol; touch /vol/old
VOLUME /vol
RUN touch /vol/new; rm /vol/old; echo $OVER > /over
ENV OVER=again
RUN echo $OVER >> /over; hostname >> /over
COPY nothing* /never/
COPY dir/link a.txt /same/
USER bob
WORKDIR /w/x
RUN touch here; pwd > /w/x/where; id -u >> where
USER 0
WORKDIR ../y
COPY dir links/
COPY dir/dlink/c.log ./
ADD t.tar unpacked/
RUN mkdir -p /there/sub /at && chmod 2770 /there && chown 5:6 /there && ln -s at /to
COPY dir /there
COPY many dir /to/
COPY a.txt /at/
RUN mkdir /usr/up && ln -s usr/up /up && chmod 1777 /usr/up
ADD implied.tar /
COPY <<ONE <<"TWO" /docs/
expanded $A
ONE
raw $A
TWO
RUN --mount=type=bind,target=/ctx,rw --mount=type=tmpfs,target=/t \\
    touch /ctx/made && ls /ctx/many > /listed && ls -d /t >> /listed
FROM scratch
COPY --from=child /by /by
COPY --from=child /w /w
COPY --from=child /vol /vol
COPY --from=child /there /kept/there
COPY --from=child /at /kept/at
COPY --from=child /same /over /all/
COPY --from=child /up /u/up
COPY --from=child /usr/up /usr/up
COPY --from=child /docs /inherited /listed /args /env /all/
COPY --from=tools /o /o
COPY --from=1 /o/p/ /pp/
COPY --from=0 /o/l /l
COPY --link --chown=3:4 --chmod=640 dir /linked/in/dir
COPY dir/empty /emp/ty
COPY ../a.txt dir/../../many/f1.txt /outside/
LABEL a=b "c d"="e f" long="x\\
y"
EXPOSE 80 443/tcp 53/udp 1000-1002
VOLUME /v1 /v2
VOLUME ["/v3"]
USER 1:2
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=2s --retries=4 --start-period=1s CMD echo $A && true
SHELL ["/bin/sh", "-ec"]
CMD echo hi
ENTRYPOINT ["/e"]
ONBUILD RUN echo on
WORKDIR /end
"""


def context(place: Path) -> Path:
    """Files, links and an archive."""
    texts = {"a.txt": "a\n", "dir/b.txt": "b\n", "dir/sub/c.log": "c\n", "Dockerfile": BIG}
    texts |= {f"many/f{n}.txt": f"{n}\n" for n in range(1, 4)}
    for name, text in texts.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (place / "a.txt").chmod(0o600)
    (place / "dir" / "sub").chmod(0o750)
    (place / "dir" / "empty").mkdir()
    (place / "dir" / "link").symlink_to("../a.txt")
    (place / "dir" / "dlink").symlink_to("sub")
    for path in sorted(place.rglob("*"), reverse=True):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    with tarfile.open(place / "t.tar", "w") as tar:
        tar.add(place / "dir", "dir")
    with tarfile.open(place / "implied.tar", "w") as tar:
        # Of `up` and `tmp` there is no entry: what is there stays as it is.
        tar.add(place / "a.txt", "up/in/a")
        tar.add(place / "a.txt", "tmp/a")
    return place


def listing(path: Path) -> dict[str, tuple[Any, ...]]:
    """What the result's files are."""
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            opened = tar.extractfile(member) if member.isreg() else None
            facts = (member.type, oct(member.mode), member.uid, member.gid, member.linkname)
            # Of what the build has made itself only that it is new.
            age = int(member.mtime) if member.mtime <= LONG_AGO else "new"
            found[member.name] = (*facts, age, opened.read() if opened else b"")
    return found


def test_the_same_dockerfile_makes_the_same_image(
    docker: Engine, theirs: Path, tmp_path: Path
) -> None:
    place = context(tmp_path / "c")
    buildx = plugin(docker, "docker-buildx")
    sockets = {"theirs": theirs, "ours": docker.socket}
    archive = sample_image.build(tmp_path / "sample").docker_archive

    def build(name: str) -> tuple[dict[str, Any], list[str], dict[str, tuple[Any, ...]]]:
        host = {"DOCKER_HOST": f"unix://{sockets[name]}"}
        buildx.ok("load", "-i", str(archive), more=host)
        out = tmp_path / f"{name}.tar"
        words = ("--output", "type=docker,name=same:1", "--output", f"type=tar,dest={out}")
        buildx.ok("build", *words, ".", cwd=place, more=host)
        config = json.loads(buildx.ok("inspect", "same:1", more=host))[0]["Config"]
        form = "{{.CreatedBy}} ({{.Comment}})"
        told = buildx.ok(
            "history", "--no-trunc", "--format", form, "same:1", more=host
        ).splitlines()
        # Docker does not tell of triggers, and of ports otherwise since 28.
        history = [line for line in told if not line.startswith(("ONBUILD", "EXPOSE"))]
        return {key: value for key, value in config.items() if value}, history, listing(out)

    with ThreadPoolExecutor(2) as both:
        made = both.map(build, sockets)
        (their_config, their_history, their_files), (our_config, our_history, our_files) = made
    for config in (their_config, our_config):
        for key in ("Hostname", "Image"):
            config.pop(key, None)
    assert our_config == their_config
    assert our_history == their_history
    assert our_files == their_files


@pytest.mark.parametrize(
    "lines", ["CMD", 'CMD\nENTRYPOINT ["x"]', 'CMD []\nENTRYPOINT ["x"]', "ENTRYPOINT"]
)
def test_commands_without_words_are_the_same(
    docker: Engine, theirs: Path, tmp_path: Path, lines: str
) -> None:
    buildx = plugin(docker, "docker-buildx")
    archive = sample_image.build(tmp_path / "sample").docker_archive
    text = f"FROM {sample_image.NAME}\n{lines}\n"

    def build(socket: Path) -> tuple[Any, Any]:
        host = {"DOCKER_HOST": f"unix://{socket}"}
        buildx.ok("load", "-i", str(archive), more=host)
        buildx.ok("build", "-t", "silent:1", "-", stdin=text.encode(), more=host)
        config = json.loads(buildx.ok("inspect", "silent:1", more=host))[0]["Config"]
        return config.get("Cmd"), config.get("Entrypoint")

    assert build(docker.socket) == build(theirs)
