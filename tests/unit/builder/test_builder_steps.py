"""What single instructions do to an image's config, where copies land, and how arguments are seen."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sagong.errors import InvalidArgument, NotFound
from sagong.model import oci
from sagong_builder.arguments import Arguments, Scope
from sagong_builder.context import Archive, Entry, Kind, Tree
from sagong_builder.copying import (
    Landing,
    Owner,
    destination,
    kept_name,
    label,
    members,
    owner_of,
    select,
)
from sagong_builder.dockerfile import Expander, parse
from sagong_builder.draft import Draft, same_step, step_key
from sagong_builder.metadata import CHANGES, working_directory
from sagong_builder.modes import read_mode
from sagong_builder.mounting import read_mounts
from sagong_builder.repositories import GitSource, git_source
from sagong_builder.wording import change_words, copy_words, run_words

LINUX = oci.Platform(os="linux", architecture="amd64")


def changed(*lines: str) -> tuple[Draft, list[str]]:
    """The draft after some instructions, and what each says that it did."""
    draft, scope = Draft.scratch(LINUX), Scope(Arguments({}, {}))
    draft.config["Env"] = ["PATH=/bin"]
    said = []
    for instruction in parse("\n".join(("FROM x", *lines)).encode()).stages[0].instructions:
        expander = Expander({**scope.values(), **draft.environment})
        said.append(CHANGES[instruction.keyword](draft, instruction, expander, scope))
    return draft, said


@pytest.mark.parametrize(
    ("line", "key", "value", "said"),
    [
        ('CMD ["a", "b"]', "Cmd", ["a", "b"], 'CMD ["a" "b"]'),
        ("CMD a b", "Cmd", ["/bin/sh", "-c", "a b"], 'CMD ["/bin/sh" "-c" "a b"]'),
        ("ENV a=1 b='x y'", "Env", ["PATH=/bin", "a=1", "b=x y"], "ENV a=1 b=x y"),
        ("LABEL a=1 'b c'=2", "Labels", {"a": "1", "b c": "2"}, "LABEL a=1 b c=2"),
        ("USER app:grp", "User", "app:grp", "USER app:grp"),
        ('VOLUME ["/a", "/b"]', "Volumes", {"/a": {}, "/b": {}}, "VOLUME [/a /b]"),
        (
            "EXPOSE 81/udp 80 90-91",
            "ExposedPorts",
            {"80/tcp": {}, "81/udp": {}, "90/tcp": {}, "91/tcp": {}},
            "EXPOSE 80 81/udp 90-91",
        ),
        ("STOPSIGNAL SIGKILL", "StopSignal", "SIGKILL", "STOPSIGNAL SIGKILL"),
        ("ONBUILD RUN x", "OnBuild", ["RUN x"], "ONBUILD RUN x"),
        ('SHELL ["/bin/ash", "-e"]', "Shell", ["/bin/ash", "-e"], "SHELL [/bin/ash -e]"),
        (
            "HEALTHCHECK --interval=1m30s --retries=3 CMD x",
            "Healthcheck",
            {"Test": ["CMD-SHELL", "x"], "Interval": 90 * 10**9, "Retries": 3},
            'HEALTHCHECK &{["CMD-SHELL" "x"] "1m30s" "0s" "0s" "0s" \'\\x03\'}',
        ),
    ],
)
def test_an_instruction_changes_the_config(line: str, key: str, value: Any, said: str) -> None:
    draft, comments = changed(line)
    assert draft.config[key] == value
    assert comments == [said]


def test_an_entrypoint_drops_the_inherited_command_but_not_the_stages_own() -> None:
    assert not changed('ENTRYPOINT ["a"]')[0].config["Cmd"]
    assert changed('CMD ["c"]', 'ENTRYPOINT ["a"]')[0].config["Cmd"] == ["c"]


def test_values_of_one_env_see_what_stood_before_it() -> None:
    draft, _ = changed("ENV a=1", "ENV a=2 b=$a")
    assert draft.environment["b"] == "1"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 80/foo", "invalid proto: foo"),
        ("STOPSIGNAL FOO", "invalid signal: FOO"),
        ("HEALTHCHECK --interval=x CMD y", "invalid duration"),
        ("HEALTHCHECK --retries=-1 CMD y", "--retries cannot be negative"),
        ("ENV $nothing=1", "ENV names can not be blank"),
    ],
)
def test_a_bad_value_is_refused(line: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        changed(line)
    assert said in refusal.value.message


def test_working_directories_add_up() -> None:
    draft = Draft.scratch(LINUX)
    for line in ("WORKDIR a", "WORKDIR ../b/", "WORKDIR ./c"):
        instruction = parse(f"FROM x\n{line}".encode()).stages[0].instructions[0]
        draft.config["WorkingDir"] = working_directory(draft, instruction, Expander({}))
    assert draft.config["WorkingDir"] == "/b/c"


def test_a_document_is_found_again_by_what_the_step_was() -> None:
    draft, _ = changed("ENV a=1")
    step = draft.note("ENV a=1")
    document = draft.document(step, "container", "2026-01-01T00:00:00Z", empty=True)
    assert json.loads(document)["container_config"] == draft.step_config(step)
    assert draft.step_config(step) != draft.step_config(draft.note("ENV a=2"))
    (entry,) = json.loads(document)["history"]
    assert entry["created_by"] == "/bin/sh -c #(nop)  ENV a=1"
    assert entry["empty_layer"]


def test_a_history_in_other_words_knows_what_the_step_was() -> None:
    draft, _ = changed("ENV a=1")
    step = draft.note("COPY file:1 in /a ", single=True)
    raw = draft.document(
        step, "", "2026-01-01T00:00:00Z", told="COPY a /a # buildkit", buildkit=True
    )
    (entry,) = json.loads(raw)["history"]
    assert (entry["created_by"], entry["comment"]) == (
        "COPY a /a # buildkit",
        "buildkit.dockerfile.v0",
    )
    assert same_step(entry, step)
    assert not same_step(entry, draft.note("COPY file:2 in /a ", single=True))
    # Builds without these words write the step itself, and so did those of before.
    (other,) = json.loads(draft.document(step, "", ""))["history"]
    assert same_step(other, step)
    assert step_key(other) == step_key(entry)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("COPY --from=x --chown=$u --chmod=640 a b$u /d/", "COPY --chown=me --chmod=640 a bme /d/"),
        ("COPY --parents a /d/", "COPY --parents a /d/"),
        ("ADD --checksum=sha256:1 a /d/", "ADD a /d/"),
        ("COPY <<one b <<'two' /d/\n1\none\n2\ntwo", "COPY b <<one <<two /d/"),
    ],
)
def test_copies_are_told_in_buildkits_words(line: str, said: str) -> None:
    instruction = parse(f"FROM x\n{line}".encode()).stages[0].instructions[0]
    assert copy_words(instruction, Expander({"u": "me"})) == f"{said} # buildkit"


def test_other_steps_are_told_in_buildkits_words() -> None:
    assert run_words(["/bin/sh", "-c", "x"], {}) == "RUN /bin/sh -c x # buildkit"
    assert run_words(["x"], {"a": "1", "b": ""}) == "RUN |2 a=1 b= x # buildkit"
    assert change_words("ENV a=1") == "ENV a=1"
    assert change_words("EXPOSE 80 1-2/udp") == "EXPOSE [80/tcp 1/udp 2/udp]"


# Arguments.


def test_arguments_are_seen_where_they_are_declared() -> None:
    made = parse(b"ARG tag=1\nARG unused\nFROM x:$tag\nARG tag\nARG own=2\nARG none\n")
    arguments = Arguments({"own": "given", "HTTP_PROXY": "p", "nobody": "x"}, {})
    for instruction in made.arguments:
        arguments.declare_global(instruction, "\\")
    scope = Scope(arguments)
    for instruction in made.stages[0].instructions:
        for name, value in instruction.pairs:
            scope.declare(name, value)
    assert arguments.origin("\\").word("x:$tag") == "x:1"
    assert scope.values() == {"tag": "1", "own": "given"}
    assert scope.seen({"own": "from the environment"}) == {"tag": "1"}
    assert scope.passed({}) == {"HTTP_PROXY": "p", "tag": "1", "own": "given"}
    assert arguments.unconsumed(arguments.given) == ["nobody"]


def test_proxies_have_names_of_both_cases_where_arguments_win() -> None:
    arguments = Arguments({"http_proxy": "p", "x": "1"}, {})
    assert Scope(arguments).passed({}) == {"http_proxy": "p"}
    assert Scope(arguments, win=True).passed({}) == {"http_proxy": "p", "HTTP_PROXY": "p"}


def test_arguments_win_over_what_the_environment_was() -> None:
    environment = {"a": "env", "b": "env"}
    scope = Scope(Arguments({}, {}), win=True)
    scope.declare("a", "arg")
    scope.declare("b", None)
    assert scope.visible(environment) == {"a": "arg", "b": "env"}
    assert scope.passed(environment) == {"a": "arg"}
    scope.set_environment("a")
    assert scope.visible(environment) == environment


# Copies.


def archive(tmp_path: Path, **files: str) -> Archive:
    """An archive of text files; names have `__` for a slash."""
    path = tmp_path / "content"
    tree, raw = Tree(), b""
    for name, text in files.items():
        entry = Entry(Kind.FILE, 0o640, uid=5, gid=6, size=len(text), offset=len(raw))
        tree.put(name.replace("__", "/"), entry)
        raw += text.encode()
    path.write_bytes(raw)
    return Archive(path, path.open("rb"), tree)


@pytest.mark.parametrize(
    ("directory", "word", "path"),
    [
        ("/", "x", "/x"),
        ("/w", "x/", "/w/x/"),
        ("/w", ".", "/w/"),
        ("/w", "/a/../b", "/b"),
        ("/w", "../../..", "/"),
        ("/", "/", "/"),
    ],
)
def test_destinations(directory: str, word: str, path: str) -> None:
    assert destination(directory, word) == path


def test_a_directorys_content_is_copied_and_files_by_their_names(tmp_path: Path) -> None:
    source = archive(tmp_path, d__a="1", d__e__b="2", f="3")
    items = [*select(source, "d"), *select(source, "f")]
    found = {m.name: (m.uid, m.mode) for m, _ in members(items, Landing("/t/"), Owner(7, 8, None))}
    assert found["t/a"] == (7, 0o640)
    assert set(found) == {"t/a", "t/e", "t/e/b", "t/f"}


def test_a_directory_that_is_made_of_another_is_as_old(tmp_path: Path) -> None:
    (item,) = select(archive(tmp_path, d__a="1"), "d")
    landing = Landing("/t/u/", new=("/t", "/t/u"), mtime=77.0)
    times = {m.name: m.mtime for m, _ in members([item], landing, Owner(7, 8, None))}
    assert times["t/u"] == 77.0
    assert times["t"] > 1e9


def test_what_an_archive_does_not_name_is_not_made_anew(tmp_path: Path) -> None:
    (item,) = select(archive(tmp_path, f="x"), "f")
    for named in (False, True):
        unpacked = archive(tmp_path, usr__lib__a="1")
        if named:
            unpacked.tree.put("usr", Entry(Kind.DIRECTORY, 0o700))
        one = replace(item, unpacked=unpacked)
        names = [m.name for m, _ in members([one], Landing("/"), Owner())]
        assert names == ["usr", "usr/lib/a"][not named :]


def test_patterns_parents_and_exclusions(tmp_path: Path) -> None:
    source = archive(tmp_path, d__a="1", d__b="2", e__a="3")
    assert [i.name for i in select(source, "*/a")] == ["a", "a"]
    assert [i.name for i in select(source, "*/a", parents=True)] == ["d/a", "e/a"]
    assert [i.name for i in select(source, "d/./a", parents=True)] == ["a"]
    (directory,) = select(source, "d", excludes=["**/b"])
    names = [m.name for m, _ in members([directory], Landing("/t"), Owner())]
    assert names == ["t/a"]


@pytest.mark.parametrize(
    ("word", "path", "kept"),
    [
        ("a/b", "a/b", "a/b"),
        ("/a/./b", "a/b", "b"),
        ("a*/./c/**/e", "a1/c/d/e", "c/d/e"),
        ("./a/b", "a/b", "a/b"),
        ("a/b/.", "a/b", "a/b"),
        ("a/./.hidden", "a/.hidden", ".hidden"),
    ],
)
def test_parents_are_kept_below_the_pivot(word: str, path: str, kept: str) -> None:
    assert kept_name(word, path) == kept


def test_what_is_copied_is_known_by_its_name(tmp_path: Path) -> None:
    tree = Tree()
    for name in ("a", "b", "d/a"):
        tree.put(name, Entry(Kind.FILE, 0o644))
    archive = Archive(tmp_path, (tmp_path / "f").open("wb+"), tree)
    labels = [label(select(archive, word)) for word in ("a", "b", "d/a", "d")]
    assert labels[0] == labels[2]
    assert len(set(labels)) == 3


def test_what_leaves_the_context_or_is_not_there(tmp_path: Path) -> None:
    source = archive(tmp_path, a="1")
    with pytest.raises(InvalidArgument, match=r"forbidden path outside the build context: \.\./x"):
        select(source, "../x")
    with pytest.raises(NotFound, match="stat nope: file does not exist"):
        select(source, "nope")


def test_a_hard_link_stays_one(tmp_path: Path) -> None:
    source = archive(tmp_path, d__a="1")
    entry = source.tree.get("d/a")
    assert entry is not None
    source.tree.put("d/b", entry)
    found = [(m.type, m.linkname) for m, _ in members(select(source, "d"), Landing("/"), Owner())]
    assert found == [(tarfile.REGTYPE, ""), (tarfile.LNKTYPE, "a")]


PASSWD, GROUP = b"root:x:0:0::/:\napp:x:1000:1001::/:\n", b"root:x:0:\napp:x:1002:\n"


def test_owners_by_name_and_by_number() -> None:
    assert owner_of("app", "", PASSWD, GROUP) == Owner(1000, 1002)
    owner = owner_of("5:app", "0750", PASSWD, GROUP)
    assert (owner.uid, owner.gid) == (5, 1002)
    assert owner.change is not None and owner.change(0o4666, False) == 0o750
    assert owner_of("5", "", PASSWD, GROUP) == Owner(5, 5)
    with pytest.raises(InvalidArgument, match="can't find uid for user nobody: no such user"):
        owner_of("nobody", "", PASSWD, GROUP)
    with pytest.raises(InvalidArgument, match="invalid chmod parameter"):
        owner_of("", "10000", PASSWD, GROUP)


@pytest.mark.parametrize(
    "text",
    [
        "u+x",
        "go-w",
        "a=r",
        "u=rwX,go=rX",
        "a+X",
        "u=g",
        "g=u,o=",
        "ug+s,o-rwx",
        "u-x+w",
        "+t",
        "a=rws",
    ],
)
def test_modes_change_as_chmod_changes_them(tmp_path: Path, text: str) -> None:
    change = read_mode(text)
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    for mode in (0o644, 0o755, 0o600, 0o124, 0o4711, 0o2070, 0o1777, 0):
        for path in (tmp_path / "d", tmp_path / "f"):
            path.chmod(mode)
            before = os.umask(0)
            subprocess.run(["chmod", text, str(path)], check=True)
            os.umask(before)
            assert oct(change(mode, path.is_dir())) == oct(path.stat().st_mode & 0o7777), (
                mode,
                path,
            )


@pytest.mark.parametrize("text", ["64a", "u", "z+x", "u+x,", "rwx", "u=rw;x", "+x" * 99])
def test_a_mode_that_is_none_is_said(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid chmod parameter"):
        read_mode(text)


# Mounts and repositories.


def test_mounts_are_read_and_what_is_unknown_is_refused() -> None:
    draft = Draft.scratch(
        LINUX,
    )
    draft.config["WorkingDir"] = "/w"
    line = "RUN --mount=type=cache,id=x,target=c,sharing=locked,mode=0700 --mount=target=/b,rw make"
    run = parse(f"FROM x\n{line}".encode()).stages[0].instructions[0]
    cache, bind = read_mounts(run, Expander({}), draft)
    assert (cache.kind, cache.id, cache.target, cache.sharing, cache.mode) == (
        "cache", "x", "/w/c", "locked", 0o700,
    )  # fmt: skip
    assert (bind.kind, bind.target, bind.writable) == ("bind", "/b", True)
    # Without a target a mount is where the command is done; of other types' fields most do nothing.
    for good, facts in (
        ("type=cache", ("cache", "/w", True)),
        ("type=tmpfs,id=1,ro", ("tmpfs", "/w", False)),
        ("type=bind,id=1,env=x", ("bind", "/w", False)),
    ):
        run = parse(f"FROM x\nRUN --mount={good} x".encode()).stages[0].instructions[0]
        (mount,) = read_mounts(run, Expander({}), draft)
        assert (mount.kind, mount.target, mount.writable) == facts
    for bad in (
        "type=foo,target=/x",
        "type=tmpfs,target=/x,required",
        "type=bind,target=/x,size=1",
        "type=bind,target=/x,mode=1",
        "type=bind,target=/x,sharing=private",
        "type=secret,id=x,from=y",
        "target=/x,nope=1",
        "target",
        "target=/x/..",
    ):
        run = parse(f"FROM x\nRUN --mount={bad} x".encode()).stages[0].instructions[0]
        with pytest.raises(InvalidArgument):
            read_mounts(run, Expander({}), draft)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("https://x/y.git#main:sub/dir", GitSource("https://x/y.git", "main", "sub/dir")),
        ("github.com/a/b", GitSource("https://github.com/a/b")),
        ("git@host:a/b", GitSource("git@host:a/b")),
        (
            "https://x/y.git?tag=v1&subdir=/d&keep-git-dir&submodules=false#refs/tags/v1",
            GitSource("https://x/y.git", "refs/tags/v1", "d", keep=True, submodules=False),
        ),
        (
            "https://x/y.git?branch=b&commit=0a1b",
            GitSource("https://x/y.git", "refs/heads/b", commit="0a1b"),
        ),
        ("git@host:a?ref=b&checksum=0a", GitSource("git@host:a", "b", commit="0a")),
        ("https://x/y.tar.gz", None),
        ("Dockerfile", None),
    ],
)
def test_git_contexts(text: str, source: GitSource | None) -> None:
    assert git_source(text) == source


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("what=x", "unexpected query"),
        ("ref=", "has no value"),
        ("ref=a&ref=b", "multiple values"),
        ("tag=a&branch=a", "conflicts with tag"),
        ("ref=a#b", "ref conflicts"),
        ("subdir=a#:b", "subdir conflicts"),
        ("submodules=maybe", "invalid submodules value"),
    ],
)
def test_what_contradicts_in_a_git_url_is_said(query: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        git_source(f"https://x/y.git?{query}")


@pytest.mark.parametrize("text", ["https://x/y.git#--upload-pack=x", "git://ext::sh -c x"])
def test_a_repository_is_no_option_and_no_helper(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid git context"):
        git_source(text)
