"""BuildKit's protocol: a client by grpcio that does what buildx does, over `/session` and `/grpc`."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from tests.compat.docker.docker_engine import IMAGE, Engine
from tests.system.builder.buildx import Buildx, generated

pytestmark = pytest.mark.root
BASE = f"FROM {IMAGE}\n"


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    """The client's code."""
    return generated(tmp_path_factory.mktemp("generated"))


@pytest.fixture
def buildx(docker: Engine, tmp_path: Path, protocol: dict[str, ModuleType]) -> Buildx:
    """A client."""
    (tmp_path / "sockets").mkdir()
    return Buildx(docker.socket, tmp_path / "sockets", protocol)


def written(tmp_path: Path, dockerfile: str, **files: str) -> Path:
    """A context; `__` stands for a dot."""
    place = tmp_path / "context"
    for name, text in {"Dockerfile": dockerfile, **files}.items():
        path = place / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def test_a_build_with_its_progress(docker: Engine, buildx: Buildx, tmp_path: Path) -> None:
    place = written(
        tmp_path,
        "# syntax=docker/dockerfile:1\n"
        + BASE
        + "ARG V\nCOPY a.txt d /\nRUN cat /a.txt /e; echo $V\n",
        a__txt="A\n",
        **{"d/e": "E\n"},
    )
    (place / "big").write_bytes(b"x" * (3 << 20))
    outcome = buildx.build(place, tags=("docker.io/library/bk:1",), build_arg__V="given")
    assert outcome.error is None
    assert outcome.output == "A\nE\ngiven\n"
    assert docker.inspect("bk:1")["Id"] == outcome.image
    steps = outcome.vertexes
    assert steps["[3/3] RUN cat /a.txt /e; echo given"].HasField("completed")
    assert "[internal] load build definition from Dockerfile" in steps
    again = buildx.build(place, build_arg__V="given")
    assert again.vertexes["[3/3] RUN cat /a.txt /e; echo given"].cached
    assert again.image == outcome.image


def test_the_context_is_asked_for_only_if_it_is_used(buildx: Buildx, tmp_path: Path) -> None:
    place = written(tmp_path, BASE + "RUN true\n", secret__txt="s")
    assert buildx.build(place).error is None
    assert buildx.lent.sent == ["dockerfile:Dockerfile"]


def test_a_client_may_lend_no_context(buildx: Buildx, tmp_path: Path) -> None:
    text = f"FROM {IMAGE} AS one\n{BASE}ARG d=/etc\nCOPY --from=one $d/passwd /p\n"
    outcome = buildx.build(written(tmp_path, text + "ADD <<a /a\nb\na\n"), lends=("dockerfile",))
    assert outcome.error is None, outcome.error
    outcome = buildx.build(written(tmp_path, f"{BASE}COPY f /\n"), lends=("dockerfile",))
    assert 'no access allowed to dir "context"' in str(outcome.error)


def test_a_session_may_travel_in_a_call(buildx: Buildx, tmp_path: Path) -> None:
    buildx.in_call = True
    place = written(tmp_path, BASE + "COPY big f /\nRUN cat /f; wc -c < /big\n", f="F\n")
    (place / "big").write_bytes(b"x" * (3 << 20))
    outcome = buildx.build(place, no_cache="")
    assert outcome.error is None, outcome.error
    assert outcome.output == f"F\n{3 << 20}\n"


def test_triggers_have_stages_that_nobody_else_needs(buildx: Buildx, tmp_path: Path) -> None:
    place = written(
        tmp_path,
        f"{BASE}RUN echo other > /o\n".replace(IMAGE, f"{IMAGE} AS other", 1)
        + f"FROM {IMAGE} AS parent\nONBUILD COPY --from=other /o /\nONBUILD RUN <<E\ncat /o\nE\n"
        "FROM parent\nRUN true\n",
    )
    outcome = buildx.build(place, no_cache="")
    assert outcome.error is None, outcome.error
    assert "other\n" in outcome.output


def test_what_is_made_of_nothing_is_of_its_platform(buildx: Buildx, tmp_path: Path) -> None:
    place = written(tmp_path, "FROM scratch\nENV a=b\n")
    images = {buildx.build(place, platform=f"linux/{arch}").image for arch in ("arm64", "s390x")}
    assert len(images) == 2


def test_names_that_commands_see(buildx: Buildx, tmp_path: Path) -> None:
    place = written(
        tmp_path,
        BASE + "ARG TARGETSTAGE\nRUN hostname; grep -c given /etc/hosts; echo $TARGETSTAGE\n",
    )
    outcome = buildx.build(place, no_cache="", hostname="given")
    assert outcome.output == "given\n1\ndefault\n", outcome.error


def test_ignored_files_are_not_sent(buildx: Buildx, tmp_path: Path) -> None:
    place = written(
        tmp_path,
        BASE + "COPY . /all/\nRUN cd /all; echo *\n",
        __dockerignore="*.log\n",
        a__log="",
        **{"ä+b": ""},
    )
    outcome = buildx.build(place, no_cache="")
    assert outcome.output == "Dockerfile ä+b\n"
    assert "context:a.log" not in buildx.lent.sent


def test_secrets_agents_and_caches_of_commands(buildx: Buildx, tmp_path: Path) -> None:
    place = written(
        tmp_path,
        BASE + "RUN --mount=type=secret,id=s cat /run/secrets/s; echo\n"
        "RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=other echo [$S]\n"
        "RUN --mount=type=secret,id=s,env=S,target=/s echo $S $(cat /s)\n"
        "RUN ls -d /run/secrets /c 2>/dev/null; echo gone $S\n"
        "RUN --mount=type=cache,target=/c touch /c/kept\n"
        "RUN --mount=type=cache,target=/c ls /c\n"
        "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo agent\n",
    )
    buildx.lent.secrets = {"s": b"hush"}
    outcome = buildx.build(place, no_cache="")
    assert outcome.error is None, outcome.error
    assert outcome.output == "hush\n[hush]\nhush hush\ngone\nkept\nagent\n"
    bad = written(tmp_path, BASE + "RUN --mount=type=secret,id=nope,required=true true\n")
    refused = buildx.build(bad, no_cache="").error
    assert refused is not None
    assert "secret nope: not found" in refused.details()


def test_of_a_context_only_what_is_copied_is_sent(buildx: Buildx, tmp_path: Path) -> None:
    text = (
        f"{BASE}ARG N=1\nCOPY a/x c*.go /\nRUN --mount=source=b,target=/b cat /b/y /x /c1.go; ls /\n"
        f"FROM {IMAGE} AS unneeded\nCOPY big /\n"
    )
    files = {"a/x": "x\n", "a/z": "", "b/y": "y\n", "c1.go": "c\n", "big": "", "n1/f": "", "d": ""}
    place = written(tmp_path, text, **files)
    outcome = buildx.build(place, target="0", no_cache="")
    assert outcome.error is None, outcome.error
    assert outcome.output.startswith("y\nx\nc\n")
    sent = {
        name.removeprefix("context:") for name in buildx.lent.sent if name.startswith("context:")
    }
    assert sent == {"a", "a/x", "b", "b/y", "c1.go"}
    # What a variable may name is not known before: all of the directory above it comes.
    (place / "Dockerfile").write_text(f"{BASE}ARG N=1\nCOPY n$N/f /\nCOPY a/x /x\nRUN ls /f\n")
    assert buildx.build(place, no_cache="").output == "/f\n"


def test_a_trigger_that_wants_more_of_the_context_gets_it(buildx: Buildx, tmp_path: Path) -> None:
    text = f"FROM {IMAGE} AS parent\nONBUILD COPY b /\nFROM {IMAGE} AS first\nCOPY a /\n"
    place = written(tmp_path, text + "FROM parent\nCOPY --from=first /a /\nRUN cat /a /b\n",
                    a="A\n", b="B\n")  # fmt: skip
    outcome = buildx.build(place, no_cache="")
    assert outcome.output == "A\nB\n", outcome.error


def test_variables_that_nobody_defines_are_warned_of(buildx: Buildx, tmp_path: Path) -> None:
    place = written(tmp_path, BASE + "ENV PATH=$PAHT:/x\nCOPY f $HOME/\n", f="")
    outcome = buildx.build(place)
    said = [warning.short for update in outcome.updates for warning in update.warnings]
    wanted = "UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?) (line 2)"
    assert said == [wanted.encode()]


def test_what_is_made_is_dated_as_it_is_wanted(
    docker: Engine, buildx: Buildx, tmp_path: Path
) -> None:
    text = f"FROM {IMAGE} AS first\nRUN echo a > /a\nFROM first\nENV B=c\n"
    place = written(tmp_path, text)
    images = {buildx.build(place, build_arg__SOURCE_DATE_EPOCH="1445412480").image for _ in "ab"}
    assert len(images) == 1
    (image,) = images
    assert docker.inspect(image)["Created"] == "2015-10-21T07:28:00Z"
    base = len(docker.ok("history", "-q", IMAGE).split())
    dates = docker.ok("history", "--human=false", "--format", "{{.CreatedAt}}", image).split()
    assert [date.startswith("2015-10-21T") for date in dates] == [True] * 2 + [False] * base
    assert "invalid SOURCE_DATE_EPOCH" in str(
        buildx.build(place, build_arg__SOURCE_DATE_EPOCH="now").error
    )


def test_owners_count_for_what_is_unpacked_and_both_builders_keep_theirs_apart(
    docker: Engine, buildx: Buildx, tmp_path: Path
) -> None:
    place = written(
        tmp_path, BASE + "ADD --chown=7:8 a.tar /a\nCOPY --chown=7:8 d /x/y/\n", **{"d/f": ""}
    )
    with tarfile.open(place / "a.tar", "w") as packed:
        member = tarfile.TarInfo("in")
        member.uid = 3
        packed.addfile(member)
    owners = "stat -c %u:%g /a /a/in /x /x/y"
    classic = docker.docker("build", "-q", str(place), seconds=60).stdout.strip()
    assert docker.ok("run", "--rm", classic, "sh", "-c", owners).split() == [
        "0:0",
        "3:0",
        "0:0",
        "7:8",
    ]
    outcome = buildx.build(place)
    assert outcome.error is None, outcome.error
    assert set(docker.ok("run", "--rm", outcome.image, "sh", "-c", owners).split()) == {"7:8"}


def test_a_cache_with_a_mode_begins_empty_in_a_build_without_a_cache(
    buildx: Buildx, tmp_path: Path
) -> None:
    place = written(
        tmp_path,
        BASE
        + "ARG V\nRUN --mount=type=cache,id=own,target=/c,mode=0773 touch /c/$V; ls /c; echo .\n",
    )
    assert buildx.build(place, build_arg__V="a").output == "a\n.\n"
    assert buildx.build(place, build_arg__V="b", no_cache="").output == "b\n.\n"
    assert buildx.build(place, build_arg__V="c").output == "a\nc\n.\n"


def test_directories_of_which_all_is_excluded_are_made(buildx: Buildx, tmp_path: Path) -> None:
    place = written(
        tmp_path,
        BASE + "COPY --exclude=* d* /n/\nRUN ls -A /n; echo .\n",
        **{"d1/f": "", "d2/g": ""},
    )
    outcome = buildx.build(place)
    assert outcome.output == ".\n", outcome.error


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("FOO x\n", {}, "dockerfile parse error on line 2: unknown instruction: FOO"),
        (
            "RUN exit 9\n",
            {},
            'process "/bin/sh -c exit 9" did not complete successfully: exit code: 9',
        ),
        ("COPY nope /\n", {}, 'failed to calculate checksum of ref context: "/nope": not found'),
        ("RUN true\n", {"source": "x/y"}, "frontend x/y is not known"),
        ("RUN true\n", {"requestid": "frontend.none"}, "unsupported request frontend.none"),
        ("RUN true\n", {"filename": "Other"}, "failed to read dockerfile: open Other"),
    ],
)
def test_what_fails_is_told(
    docker: Engine, buildx: Buildx, tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    outcome = buildx.build(written(tmp_path, BASE + text), **options)
    assert outcome.error is not None
    assert said in outcome.error.details()
    assert docker.ok("ps", "-aq") == ""


def test_options_of_the_frontend(docker: Engine, buildx: Buildx, tmp_path: Path) -> None:
    place = written(
        tmp_path,
        "FROM other AS a\nRUN ls /sys/class/net; grep named /etc/hosts; ulimit -n\nFROM a\nRUN false\n",
    )
    outcome = buildx.build(
        place,
        no_cache="",
        target="a",
        label__k="v",
        context__other=f"docker-image://{IMAGE}",
        force_network_mode="none",
        add_hosts="named=1.2.3.4",
        ulimit="nofile=77:77",
        tags=("opt:1",),
    )
    assert outcome.error is None, outcome.error
    assert outcome.output == "lo\n1.2.3.4\tnamed\n77\n"
    assert docker.inspect("opt:1")["Config"]["Labels"]["k"] == "v"


def test_a_context_from_standard_input(buildx: Buildx, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, raw in (("Dockerfile", f"{BASE}COPY f /\nRUN cat /f\n".encode()), ("f", b"up\n")):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    buildx.lent.uploads = {"/abc": buffer.getvalue()}
    outcome = buildx.build(tmp_path, context="http://buildkit-session/abc", no_cache="")
    assert outcome.error is None, outcome.error
    assert outcome.output == "up\n"


def test_a_fetched_context_may_have_a_dockerfile_of_the_clients(
    buildx: Buildx, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, raw in (("Dockerfile", b"FROM nothing\n"), ("sub/f", b"below\n")):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    buildx.lent.uploads = {"/abc": buffer.getvalue()}
    place = written(tmp_path, BASE + "COPY . /c/\nRUN cat /c/f\n")
    outcome = buildx.build(
        place,
        context="http://buildkit-session/abc",
        dockerfilekey="dockerfile",
        contextsubdir="sub",
        no_cache="",
    )
    assert outcome.error is None, outcome.error
    assert outcome.output == "below\n"


def test_credentials_are_asked_of_the_client(buildx: Buildx, tmp_path: Path) -> None:
    outcome = buildx.build(written(tmp_path, "FROM 127.0.0.1:1/x/y:1\n"))
    assert outcome.error is not None
    assert buildx.lent.asked == ["127.0.0.1:1"]


def test_a_client_that_goes_takes_its_build_along(
    docker: Engine, buildx: Buildx, tmp_path: Path, protocol: dict[str, Any]
) -> None:
    place = written(tmp_path, BASE + "RUN echo begun; sleep 600\n")
    buildx.lent.directories = {"context": place, "dockerfile": place}
    with buildx.session() as session:
        with buildx.channel() as channel:
            control = protocol["control_grpc"].ControlStub(channel)
            request = protocol["control"].SolveRequest(
                Ref="goes", Session=session, Frontend="dockerfile.v0",
                FrontendAttrs={"no-cache": ""}, ExporterDeprecated="moby",
            )  # fmt: skip
            solving = control.Solve.future(request)
            for update in control.Status(protocol["control"].StatusRequest(Ref="goes")):
                if any(log.msg == b"begun\n" for log in update.logs):
                    break
            solving.cancel()
    docker.wait_until(lambda: not docker.ok("ps", "-aq"))


def test_who_is_there_and_what_is_kept(buildx: Buildx, protocol: dict[str, Any]) -> None:
    control = protocol["control"]
    with buildx.channel() as channel:
        stub = protocol["control_grpc"].ControlStub(channel)
        assert stub.Info(control.InfoRequest()).buildkitVersion.package == "sagong"
        before = {record.ID for record in stub.DiskUsage(control.DiskUsageRequest()).record}
        pruned = {record.ID for record in stub.Prune(control.PruneRequest(all=True))}
        # What a build that was given up before has left may come in between; nothing is left of all.
        assert pruned >= before and not stub.DiskUsage(control.DiskUsageRequest()).record
        # By this clients find out whether a history is kept at all.
        probe = control.BuildHistoryRequest(ActiveOnly=True, Ref="nothing", EarlyExit=True)
        assert list(stub.ListenBuildHistory(probe)) == []


def test_builds_that_ended_are_remembered(
    docker: Engine, buildx: Buildx, protocol: dict[str, Any], tmp_path: Path
) -> None:
    place = written(tmp_path, BASE + "ARG V\nRUN echo said $V\n")
    outcome = buildx.build(place, build_arg__V="so")
    assert buildx.build(place, build_arg__V="so", target="none").error is not None
    control, content = protocol["control"], protocol["content"]
    with buildx.channel() as channel:
        stub = protocol["control_grpc"].ControlStub(channel)
        now = control.BuildHistoryRequest(EarlyExit=True, Limit=2)
        listening = stub.ListenBuildHistory(now)
        assert "buildkit-current-timestamp" in dict(listening.initial_metadata())
        failed, done = (event.record for event in listening)
        assert failed.FrontendAttrs["target"] == "none" and failed.error.message
        assert done.FrontendAttrs["build-arg:V"] == "so" and done.HasField("CompletedAt")
        assert done.numTotalSteps == len(outcome.vertexes)
        assert done.Result.ResultDeprecated.digest == outcome.image
    # Of a builder that is replaced, or killed, the next one tells the same.
    docker.instance.run("swap", "builder")
    pid = docker.instance.pid("builder")
    os.kill(pid, signal.SIGKILL)
    docker.instance.wait_ready(gone=pid)
    with buildx.channel() as channel:
        stub = protocol["control_grpc"].ControlStub(channel)
        assert [event.record.Ref for event in stub.ListenBuildHistory(now)] == [
            failed.Ref,
            done.Ref,
        ]
        updates = list(stub.Status(control.StatusRequest(Ref=done.Ref)))
        assert b"".join(log.msg for u in updates for log in u.logs) == b"said so\n"
        said = done.Result.Attestations[0]
        blobs = protocol["content_grpc"].ContentStub(channel)
        info = blobs.Info(content.InfoRequest(digest=said.digest)).info
        read = content.ReadContentRequest(digest=said.digest, offset=2)
        raw = b"".join(piece.data for piece in blobs.Read(read))
        assert len(raw) == info.size - 2 == said.size - 2
        assert json.loads(b"{\n"[:2] + raw)["buildType"] == "https://mobyproject.org/buildkit@v1"
        stub.UpdateBuildHistory(control.UpdateBuildHistoryRequest(Ref=done.Ref, Delete=True))
        one = control.BuildHistoryRequest(EarlyExit=True, Ref=done.Ref)
        assert list(stub.ListenBuildHistory(one)) == []
        with pytest.raises(grpc.RpcError):
            blobs.Info(content.InfoRequest(digest=said.digest))


def test_a_graph_of_nothing_is_solved_and_listeners_hear_of_it(
    buildx: Buildx, protocol: dict[str, Any]
) -> None:
    control = protocol["control"]
    with buildx.channel() as channel:
        stub = protocol["control_grpc"].ControlStub(channel)
        listening = stub.ListenBuildHistory(control.BuildHistoryRequest(ActiveOnly=True))
        listening.initial_metadata()
        request = control.SolveRequest(Ref="nothing-at-all", Definition=control.Definition())
        assert stub.Solve(request, timeout=60) == control.SolveResponse()
        told = [next(listening) for _ in range(2)]
        listening.cancel()
    assert [(event.type, event.record.Ref) for event in told] == [
        (0, "nothing-at-all"),
        (1, "nothing-at-all"),
    ]


def test_a_connection_that_is_not_upgraded_is_refused(docker: Engine) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(docker.socket))
        peer.sendall(b"POST /grpc HTTP/1.1\r\nHost: d\r\n\r\n")
        assert peer.recv(200).startswith(b"HTTP/1.1 400 ")
