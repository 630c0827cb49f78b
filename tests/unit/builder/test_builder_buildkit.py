"""What BuildKit's clients are told and may ask: titles, failures, graphs, kept contexts, questions."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from platform import machine

import pytest

from sagong.contracts.builder import BuildRequest, Surroundings
from sagong.errors import Aborted, Cancelled, InvalidArgument, Unimplemented
from sagong.model.oci import Platform
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.contexts import left_out
from sagong_builder.buildkit.exporting import CacheTo, caches_of, exporters_of
from sagong_builder.buildkit.failures import failure
from sagong_builder.buildkit.filters import matching
from sagong_builder.buildkit.frontend import read_options
from sagong_builder.buildkit.graphs import image_of, naming
from sagong_builder.buildkit.notes import read_notes
from sagong_builder.buildkit.outline import answer, answer_unread, found_in
from sagong_builder.buildkit.protobuf import decode, encode
from sagong_builder.buildkit.provenance import (
    Attesting,
    Material,
    predicate,
    read_attesting,
)
from sagong_builder.buildkit.results import Made
from sagong_builder.buildkit.syntax import check_frontend
from sagong_builder.dockerfile import Expander, parse, syntax_of
from sagong_builder.dockerfile.lint import Base, Known, failure_of, findings
from sagong_builder.dockerfile.rules import RULES, url_of
from sagong_builder.kept import KeptContext, KeptContexts
from sagong_builder.origins import key_of
from sagong_builder.reading import covers, grouped, readings
from sagong_builder.sources import inside
from sagong_builder.titles import Titles, borrows

IMAGE = "sha256:" + "5" * 64


def test_images_that_files_come_of_are_counted_as_stages() -> None:
    for text, counted in (
        (b"FROM a\nCOPY --from=b /x /\n", True),
        (b"FROM a\nRUN --mount=from=b,target=/x true\n", True),
        (b"FROM a\nCOPY x /\nRUN --mount=type=cache,target=/x true\n", False),
        (b"FROM a AS b\nFROM a\nCOPY --from=b /x /\nCOPY --from=0 /x /\n", False),
    ):
        assert borrows(parse(text)) == counted, text


def test_steps_are_counted_by_stages() -> None:
    lines = "\n".join(f"RUN echo {n} $V '$V' $W" for n in range(9))
    made = parse(f"FROM a AS x\nENV V=v\n{lines}\nWORKDIR /w\nFROM x\nCOPY . .\n".encode())
    first = Titles(made.stages[0], several=True, own=True)
    assert first.origin("a") == "[x  1/11] FROM a"
    shown = [first.of(i, {"V": "v"}) for i in made.stages[0].instructions]
    assert shown[0] == "", "what changes the config alone is no step"
    assert shown[1] == "[x  2/11] RUN echo 0 v '$V' $W"
    assert shown[-1] == "[x 11/11] WORKDIR /w"
    other = Titles(made.stages[0], several=True, own=True, platform="linux/arm64")
    assert other.origin("a") == "[linux/arm64 x  1/11] FROM a"
    second = Titles(made.stages[1], several=True, own=False)
    assert second.origin("x") == ""
    assert second.of(made.stages[1].instructions[0], {}) == "[stage-1 1/1] COPY . ."
    work = parse(
        b'FROM a\nWORKDIR "/a b"\nWORKDIR ..\nCOPY <<\'Q\' /$V $W\nx\nQ\nRUN "$V"\n'
    ).stages[0]
    shapes = Titles(work, several=False, own=True)
    assert [shapes.of(i, {"V": "v"}, "/a b") for i in work.instructions] == [
        "[1/5] WORKDIR /a b",
        "",  # leads to /: counted, and no step
        "[2/5] COPY <<Q /v ",
        '[3/5] RUN "v"',
    ]
    document = parse(b"FROM a\nRUN <<E\n one\ntwo\nE\n").stages[0]
    assert Titles(document, several=False, own=True).of(document.instructions[0], {}) == (
        "[1/2] RUN <<E (one...)"
    )
    lent = parse(b"FROM a\nRUN --mount=type=secret,id=i,env=T echo $T $V\n").stages[0]
    line = Titles(lent, several=False, own=True).of(lent.instructions[0], {"T": "t", "V": "v"})
    assert line.endswith("echo **** v"), "a secret's variable is not what another has"


def test_dockers_frontend_is_this_one_and_others_are_refused() -> None:
    pinned = f"docker/dockerfile:1.4@sha256:{'a' * 64}"
    known = ("", "docker/dockerfile", "docker/dockerfile:1", "docker/dockerfile:1.7-labs", pinned)
    for name in (
        *known,
        "docker.io/docker/dockerfile-upstream:master",
        "m.corp/x/docker/dockerfile:1",
    ):
        check_frontend(name)
    for name in ("docker/dockerfile:2", "ghcr.io/some/frontend", "other/dockerfile:1", "x/y arg"):
        with pytest.raises(Unimplemented, match="runs no frontends of images"):
            check_frontend(name)
    assert syntax_of(b"#  SYNTAX = a/b:c\n# escape=`\nno Dockerfile at all {\n") == "a/b:c"
    assert syntax_of(b"FROM x\n# syntax=a/b\n") == ""


def test_failures_carry_the_lines_around_the_place() -> None:
    raw = b"".join(b"RUN line %d\n" % n for n in range(1, 401))
    code = {"code": "7", "lines": "50-51"}
    told = failure(
        Aborted("The command 'sh -c x' returned a non-zero code: 7", detail=code), "D", raw
    )
    assert told.message == 'process "sh -c x" did not complete successfully: exit code: 7'
    (detail,) = told.details
    assert detail.type_url == "github.com/moby/buildkit/errdefs.Source+json"
    source = json.loads(detail.value)
    lines = base64.b64decode(source["info"]["data"]).split(b"\n")
    assert lines[49] == b"RUN line 50" and lines[0] == b""
    assert [(r["start"]["line"], r["end"]["line"]) for r in source["ranges"]] == [
        (50, 50),
        (51, 51),
    ]
    assert failure(InvalidArgument("x"), "D", raw).details == ()
    assert failure(Cancelled("y"), "D", raw).status == 1


def test_a_result_can_be_named_to_another_build() -> None:
    graph = decode(m.Definition, encode(naming(IMAGE)))
    assert image_of(graph) == IMAGE
    options = {
        f"context:base::linux/{machine()}": "input:t",
        "context:Other": "local:d",
        "no-cache": "A,b",
    }
    wish = read_options("dockerfile.v0", options, Surroundings(), "id", {"t": IMAGE})
    based = ("base", f"linux/{machine()}", f"docker-image://{IMAGE}")
    assert wish.named == (("Other", "", "local:d"), based)
    assert wish.at("").named == wish.named and wish.at("linux/s390x").named == wish.named[:1]
    assert wish.request.cache and wish.anew == {"a", "b"}
    assert not read_options("", {"no-cache": ""}, Surroundings(), "id").request.cache
    with pytest.raises(InvalidArgument, match="invalid input u for base"):
        read_options("", {"context:base": "input:u"}, Surroundings(), "id")
    for ops in ([], [b""], [encode(m.Op(inputs=[m.Input("sha256:0")]))]):
        with pytest.raises(Unimplemented):
            image_of(m.Definition(ops=ops))


def test_exporters_are_numbered_or_refused() -> None:
    request = m.SolveRequest(
        exporters=[m.ExporterSpec("local"), m.ExporterSpec("moby", {"name": "x"})]
    )
    assert [(e.number, e.kind) for e in exporters_of(request)] == [(0, "local"), (1, "moby")]
    assert exporters_of(m.SolveRequest()) == []
    for kind, attrs, said in (
        ("gha", {}, 'exporter "gha" could not be found'),
        ("moby", {"annotation.a": "b"}, "annotations go out with --push"),
    ):
        with pytest.raises(Unimplemented, match=said):
            exporters_of(m.SolveRequest(exporters=[m.ExporterSpec(kind, attrs)]))


def test_caches_are_sent_where_they_can_be() -> None:
    def asked(kind: str, **attrs: str) -> list[CacheTo]:
        options = m.CacheOptions(exports=[m.CacheOptionsEntry(kind, attrs)])
        return caches_of(m.SolveRequest(cache=options))

    assert asked("inline") == caches_of(m.SolveRequest()) == []
    assert asked("registry", ref="r/c", mode="max") == [CacheTo("registry", "r/c", every=True)]
    assert asked("local", dest="d", **{"ignore-error": "true"}) == [
        CacheTo("local", "d", optional=True)
    ]
    with pytest.raises(InvalidArgument, match="needs ref="):
        asked("registry")
    with pytest.raises(Unimplemented, match='unknown cache exporter: "gha"'):
        asked("gha")


def test_results_of_several_platforms_travel_together() -> None:
    wish = read_options("", {"platform": "linux/arm64,linux/amd64"}, Surroundings(), "id")
    assert wish.several and wish.platforms == ("linux/arm64", "linux/amd64")
    options = {"platform": "linux/arm,linux/arm/v7", "build-arg:BUILDKIT_SANDBOX_HOSTNAME": "h"}
    options |= {"context:x": "docker-image:scratch", "context:y": "local:y"}
    wish = read_options("", options, Surroundings(), "id")
    assert wish.platforms == ("linux/arm/v7",) and wish.hostname == "h"
    assert [source for _, _, source in wish.named] == ["docker-image://scratch", "local:y"]
    made = Made({"linux/amd64": "a", "linux/arm64": "b"}, several=True)
    result = decode(m.Result, encode(made.result({"linux/amd64": "1", "linux/arm64": "2"})))
    told = json.loads(result.metadata["refs.platforms"])["Platforms"]
    assert told[0] == {"ID": "linux/amd64", "Platform": {"architecture": "amd64", "os": "linux"}}
    assert Made.of(result, {"1": "a", "2": "b"}) == made
    turned = Made({"linux/s390x": "b", "linux/amd64": "a"}, several=True)
    told = decode(m.Result, encode(turned.result({"linux/amd64": "1", "linux/s390x": "2"})))
    assert list(Made.of(told, {"1": "a", "2": "b"}).images) == ["linux/s390x", "linux/amd64"]
    assert made.mine(Platform(architecture="arm64", os="linux")) == "b"
    assert made.mine(Platform(architecture="s390x", os="linux")) == "a"
    alone = Made({"": "a"})
    assert Made.of(decode(m.Result, encode(alone.result({"": "1"}))), {"1": "a"}) == alone
    assert Made.of(None, {}).images == {}


def test_cache_records_are_filtered() -> None:
    records = [m.UsageRecord("one", record_type="regular"), m.UsageRecord("two", in_use=True)]

    def found(*filters: str) -> list[str]:
        return [record.id for record in matching(records, filters)]

    assert found() == found("mutable!=true", "immutable") == ["one", "two"]
    assert found("type==regular") == found("id~=^on,private") == ["one"]
    assert found('id=="two",inuse') == ["two"] and found("shared") == []
    assert found("nothing==x") == [] and found("nothing!=x") == ["one", "two"]
    for text in ("id=x", "==", "type==a b;c,,"):
        with pytest.raises(InvalidArgument, match="invalid filter"):
            found(text)


def test_names_of_contexts_are_images_names() -> None:
    assert key_of("docker.io/library/Alpine:latest".lower()) == key_of("alpine") == "alpine"
    assert key_of("alpine:3") == "alpine:3"
    assert key_of("Build") == "build"


@pytest.mark.parametrize(
    ("line", "origins"),
    [
        ("COPY a b", [""]),
        ("COPY --from=x a b", ["x"]),
        ("COPY <<E /f\nx\nE", []),
        ("ADD https://x/y /f", []),
        ("ADD https://x/y z /f/", [""]),
        ("ADD ${repository}#v1 /f/", []),
        (
            "RUN --mount=target=/x --mount=type=cache,target=/c --mount=from=s,target=/y t",
            ["", "s"],
        ),
        ("RUN true", []),
    ],
)
def test_what_the_client_must_send_is_known_before_the_step(line: str, origins: list[str]) -> None:
    (instruction,) = parse(f"FROM a\n{line}\n".encode()).stages[0].instructions
    expander = Expander({"repository": "https://x/y.git"})
    assert [origin for origin, _ in readings(instruction, expander)] == origins


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("COPY a/b /", "a/b"),
        ("COPY ./a//b/ c/*.go /", "a/b c/*.go"),
        ("COPY ../a /../b/../c /", "a c"),
        ("COPY . /", ""),
        ("COPY bin/$ARCH/x /", "bin"),
        ('COPY ["a b", "c[d]/e", "f/\\"g\\"/h", "/"]', "a b||f"),
        ("COPY --parents a/**/b c/./d /", "a c/d"),
        ("RUN --mount=source=a/b,target=/x true", "a/b"),
        ("RUN --mount=target=/x true", ""),
    ],
)
def test_what_is_read_is_known_before_the_build(line: str, paths: str) -> None:
    (instruction,) = parse(f"FROM a\n{line}\n".encode()).stages[0].instructions
    wanted = paths.split("|") if "|" in paths else paths.split(" ")
    assert [path for _, path in readings(instruction)] == wanted


def test_paths_are_of_what_is_above_them() -> None:
    assert covers(frozenset({"a", "b/c"}), frozenset({"a/x", "a", "b/c/d"}))
    assert not covers(frozenset({"a"}), frozenset({"ab"}))
    assert not covers(frozenset({"a/b"}), frozenset({"a"}))
    assert covers(frozenset({""}), frozenset({"", "x"}))
    assert not covers(frozenset({"a"}), frozenset({""}))
    read = grouped([("", "a"), ("", "b"), ("x", "c"), ("x", "")])
    assert read == {"": {"a", "b"}, "x": {""}}


def test_paths_do_not_lead_out_of_the_context() -> None:
    paths = {
        "../../a": "a",
        "/../a/b": "a/b",
        "a/../../b/": "b/",
        "a/../b": "a/../b",
        ".": ".",
        "..": "",
    }
    assert {path: inside(path) for path in paths} == paths


def test_contexts_are_kept_one_for_each_directory(tmp_path: Path) -> None:
    home, spool = tmp_path / "contexts", tmp_path / "spool"
    spool.mkdir()

    def context(name: str, size: int, used: int) -> KeptContext:
        (spool / name).write_bytes(bytes(size))
        return KeptContext(spool / name, {"f": ((0, used, 1), 0)}, "d")

    kept = KeptContexts(home)
    assert kept.take(("a",), spool / "x") is None and kept.records() == []
    kept.put(("a",), context("one", 9, 9))
    kept.put(("a",), context("two", 10, 10))
    (record,) = KeptContexts(home).records()
    assert (record.kind, record.size, record.uses) == ("source.local", 10, 1)
    # Another process's are the same; who takes one has it alone.
    taken = KeptContexts(home).take(("a",), spool / "taken")
    assert taken is not None and taken.files == {"f": ((0, 10, 1), 0)} and taken.id == record.id
    assert kept.take(("a",), spool / "x") is None
    kept.put(("a",), taken)
    assert kept.records()[0].uses == 2
    kept.put(("a",), context("waste", 64 << 20, 10))
    assert kept.take(("a",), spool / "x") is None, "most of it is written over"
    assert list(spool.iterdir()) == [] and list(home.iterdir()) == []
    kept.put(("b",), context("three", 1, 1))
    assert kept.drop(kept.records()[0].id) and not kept.drop("no")
    for number in range(20):
        kept.put(("n", str(number)), context(f"n{number}", 1, 1))
    assert len(kept.records()) == len(list(home.iterdir())) == 16
    other = KeptContexts(home)
    other._boot = "another"
    assert other.take(("n", "19"), spool / "x") is None, "what the disk may not have got"
    assert list(spool.iterdir()) == []


_BAD = b"""\
# check=skip=MaintainerDeprecated
ARG API_TOKEN
from scratch AS Base
MAINTAINER x
ENV a b
WORKDIR rel
COPY $nope /
CMD echo hi
CMD ["ho"]
EXPOSE 80/TCP 1:2
FROM --platform=linux/amd64 $other as base
RUN x \\
  y
FROM --platform=$TARGETPLATFORM base AS scratch
WORKDIR rel
"""


def test_variables_of_images_are_known_where_these_are() -> None:
    made = parse(
        b"FROM a AS one\nCOPY $GIVEN $FOO /\nARG FOO\nRUN $PATHS\n"
        b"FROM one\nCOPY $FOO $FO /\nFROM b\nCOPY $X /\n"
    )
    assert [f.short for f in findings(made, known=Known({0: Base(("GIVEN",))}))] == [
        "UndefinedVar: Usage of undefined variable '$FOO' (line 2)",
        "UndefinedVar: Usage of undefined variable '$FO' (did you mean $FOO?) (line 6)",
    ]
    assert findings(made) == []


def test_checks_of_what_cannot_be_read_tell_where_and_what_is_before() -> None:
    raw = b"FROM scratch AS Bad\nMAINTAINER me\nNONSENSE\n"
    with pytest.raises(InvalidArgument) as fault:
        parse(raw, "Dockerfile")
    before = parse(raw[: raw.index(b"NONSENSE")], "Dockerfile")
    told = answer_unread(before, raw, "Dockerfile", fault.value)
    document = json.loads(told["result.json"])
    assert [w["ruleName"] for w in document["warnings"]] == [
        "StageNameCasing",
        "MaintainerDeprecated",
    ]
    assert document["buildError"] == {
        "message": "dockerfile parse error on line 3: unknown instruction: NONSENSE",
        "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]},
    }
    assert told["result.statuscode"] == b"1"
    assert b"WARNING: StageNameCasing" in told["result.txt"]


def test_a_comment_spares_one_instruction() -> None:
    text = "FROM scratch\n# check=skip=MaintainerDeprecated // known\nMAINTAINER a\nMAINTAINER b\n"
    text = (
        f"# check=experimental=all\n{text}# check=skip=all\nARG key=x\nWORKDIR a\nARG key_file=x\n"
    )
    found = findings(parse(text.encode()))
    assert [(f.line, f.check) for f in found] == [
        (5, "MaintainerDeprecated"),
        (8, "WorkdirRelativePath"),
    ]


def test_checks_may_know_images_and_what_the_context_has_not() -> None:
    made = parse(
        b"FROM a AS one\nCOPY d/f.log /\nADD a.log http://h.test/b.log $V.log /\n"
        b"COPY --from=one a.log /\nCOPY . /\nCOPY d/f.txt /\nFROM one\nCOPY x.log /\n"
    )
    ignored = left_out(b"**/*.log\n")
    found = findings(made, known=Known({0: Base(("V",), "linux/arm64", "linux/amd64")}, ignored))
    assert [f.short for f in found] == [
        'InvalidBaseImagePlatform: Base image a was pulled with platform "linux/arm64", expected '
        '"linux/amd64" for current build (line 1)',
        'CopyIgnoredFile: Attempting to Copy file "d/f.log" that is excluded by .dockerignore (line 2)',
        'CopyIgnoredFile: Attempting to Add file "a.log" that is excluded by .dockerignore (line 3)',
        'CopyIgnoredFile: Attempting to Copy file "x.log" that is excluded by .dockerignore (line 8)',
    ]
    same = Known({0: Base(("V",), "linux/arm/v7", "linux/arm/v6")})
    assert findings(made, known=same) == []
    everything = left_out(b"*\n")
    assert everything is not None and everything(".") and everything("a")
    some = left_out(b"a\n")
    assert some is not None and not some(".") and some("a/b")
    assert left_out(b"*\n!a\n") is None and left_out(b"# none\n") is None and left_out(None) is None


def test_what_is_better_written_otherwise_is_found() -> None:
    found = [(finding.line, finding.check) for finding in findings(parse(_BAD))]
    assert found == [
        (2, "SecretsUsedInArgOrEnv"),
        (3, "ConsistentInstructionCasing"), (3, "FromAsCasing"), (3, "StageNameCasing"),
        (5, "LegacyKeyValueFormat"),
        (6, "WorkdirRelativePath"),
        (7, "UndefinedVar"),
        (8, "JSONArgsRecommended"), (8, "MultipleInstructionsDisallowed"),
        (10, "ExposeInvalidFormat"), (10, "ExposeProtoCasing"),
        (11, "DuplicateStageName"), (11, "FromAsCasing"), (11, "FromPlatformFlagConstDisallowed"),
        (11, "InvalidDefaultArgInFrom"), (11, "UndefinedArgInFrom"),
        (14, "RedundantTargetPlatform"), (14, "ReservedStageName"),
        (15, "WorkdirRelativePath"),
    ]  # fmt: skip
    good = b'ARG V=1\nFROM a:$V AS b\nARG PUBLIC_KEY\nWORKDIR /x\nFROM b\nWORKDIR y\nCMD ["c"]\n'
    assert findings(parse(good)) == []
    assert findings(parse(b"# check=skip=all\n" + _BAD.partition(b"\n")[2])) == []
    told = answer("frontend.lint", parse(_BAD), BuildRequest(id="i"))
    assert told["result.statuscode"] == b"1"
    assert b"Dockerfile:12\n" not in told["result.txt"]
    assert (
        b"dockerfile/rule/stage-name-casing/\nStage name 'Base' should be lowercase\nDockerfile:3\n"
        in (told["result.txt"])
    )
    assert answer("frontend.lint", parse(good), BuildRequest(id="i"))["result.statuscode"] == b"0"


def test_checks_are_chosen_and_may_end_the_build() -> None:
    text = b"# about x\nARG y\nFROM a AS b\nCMD c\nFROM a\nRUN d \\\n\n  e\n"
    made = parse(text)
    assert [f.short for f in findings(made)] == [
        "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior "
        "related to OS signals (line 4)",
        "NoEmptyContinuation: Empty continuation line (line 8)",
    ]
    found, fatal = found_in(made, BuildRequest(id="i"))
    assert ([f.check for f in found], fatal) == (["NoEmptyContinuation"], False), "b is not built"
    wanted = "skip=NoEmptyContinuation;experimental=InvalidDefinitionDescription;error=true"
    given = (("BUILDKIT_DOCKERFILE_CHECK", wanted),)
    found, fatal = found_in(made, BuildRequest(id="i", arguments=given))
    assert [f.detail for f in found] == [
        "Comment for ARG should follow the format: `# y <description>`"
    ]
    assert fatal and failure_of(found).message.endswith("rules: InvalidDefinitionDescription")
    assert found[0].url.endswith("/rule/invalid-definition-description/")
    told = answer("frontend.lint", made, BuildRequest(id="i", arguments=given))
    assert (
        json.loads(told["result.json"])["buildError"]["location"]["ranges"][0]["start"]["line"] == 2
    )
    assert findings(parse(b"ARG A\nARG B=${A:?given}\nFROM $B\n")) == [], "the build says it"
    for wrong in ("nope", "skip=a;x=b", "error=perhaps"):
        with pytest.raises(InvalidArgument, match="check option"):
            findings(parse(b"# check=" + wrong.encode() + b"\nFROM a\n"))
    assert all(url_of(check).islower() or "https" in url_of(check) for check in RULES)
    assert url_of("JSONArgsRecommended").endswith("/json-args-recommended/")


def test_a_dockerfile_is_asked_about() -> None:
    made = parse(
        b"ARG G=g\nFROM a AS x\nARG H=$G-h\nRUN --mount=type=secret,id=s,required --mount=type=ssh t\n"
        b"FROM b AS y\nARG I\nFROM x\n"
    )
    given = BuildRequest(id="i", arguments=(("G", "given"),))
    outline = json.loads(answer("frontend.outline", made, given)["result.json"])
    assert [(a["name"], a.get("value")) for a in outline["args"]] == [
        ("G", "given"),
        ("H", "given-h"),
    ]
    assert outline["secrets"][0]["required"] and outline["ssh"][0]["name"] == "default"
    targets = json.loads(answer("frontend.targets", made, given)["result.json"])["targets"]
    assert [(t.get("name"), t["base"], t.get("default")) for t in targets] == [
        ("x", "a", None), ("y", "b", None), (None, "x", True),
    ]  # fmt: skip
    with pytest.raises(Unimplemented, match="unsupported request nothing"):
        answer("nothing", made, given)


def test_notes_go_out_where_they_can() -> None:
    notes = read_notes({"annotation.a": "b", "annotation-index.c.d": "e", "name": "x"})
    assert (notes.manifest, notes.index) == ((("a", "b"),), (("c.d", "e"),))
    assert not read_notes({"name": "x"})
    for name in ("annotation-manifest-descriptor.a", "annotation-manifest[linux/arm64].a"):
        with pytest.raises(Unimplemented, match="for all platforms"):
            read_notes({name: "b"})
    with pytest.raises(InvalidArgument, match="invalid annotation"):
        read_notes({"annotationx": "b"})


def test_provenance_says_what_it_may() -> None:
    assert read_attesting({"attest:provenance": "mode=min,inline-only=true"}) is None
    assert read_attesting({}) is None and read_attesting({"attest:provenance": ""}) == Attesting()
    wanted = read_attesting({"attest:provenance": "mode=max,builder-id=here"})
    assert wanted == Attesting(full=True, builder="here")
    with pytest.raises(Unimplemented, match="sbom can't be attested"):
        read_attesting({"attest:sbom": ""})
    with pytest.raises(InvalidArgument, match='invalid provenance mode "x"'):
        read_attesting({"attest:provenance": "mode=x"})
    options = {"build-arg:KEY": "v", "target": "t", "context": "https://h/r.git", "vcs:source": "s"}
    materials = [Material("h:5/a:1", "sha256:0", "linux/amd64")]
    for attesting, given in ((Attesting(), {}), (wanted, {"build-arg:KEY": "v"})):
        said = predicate(attesting, options, "ref", "linux/amd64", (0.0, 1.5), materials)
        invocation = said["invocation"]
        assert invocation["parameters"]["args"] == {"target": "t", **given}
        assert invocation["configSource"] == {"uri": "https://h/r.git", "entryPoint": "Dockerfile"}
        assert said["metadata"]["completeness"]["parameters"] == bool(given)
    assert said["materials"] == [
        {"uri": "pkg:docker/h%3A5/a@1?platform=linux%2Famd64", "digest": {"sha256": "0"}}
    ]
    assert said["metadata"]["buildFinishedOn"] == "1970-01-01T00:00:01.500000Z"
    assert json.dumps(said).count('"vcs": {"source": "s"}') == 1
