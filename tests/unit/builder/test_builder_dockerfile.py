"""Dockerfiles as they are read: statements, flags, here-documents, stages, and what is refused."""

from __future__ import annotations

import pytest

from sagong.errors import InvalidArgument
from sagong_builder.checks import check_dockerfile
from sagong_builder.dockerfile import Dockerfile, Instruction, parse, syntax_of
from sagong_builder.dockerfile.stages import parse_lines


def only(text: str) -> Instruction:
    """The instruction after a FROM."""
    (found,) = parse(f"FROM x\n{text}\n".encode()).stages[0].instructions
    return found


def refused(text: str) -> str:
    """What is said of a Dockerfile that is none."""
    with pytest.raises(InvalidArgument) as refusal:
        parse(text.encode())
    return refusal.value.message


def test_a_line_goes_on_over_comments_and_empty_lines_with_a_warning() -> None:
    made = parse(b"FROM x\nRUN a \\\n# no\n\n  && b\n")
    assert made.stages[0].instructions[0].words == ("a   && b",)
    assert "Empty continuation line found in:\n    RUN a   && b" in made.warnings[0]


def test_two_escape_characters_at_the_end_continue_nothing() -> None:
    made = parse(b"FROM x\nRUN echo \\\\\nRUN b\n")
    assert [i.words for i in made.stages[0].instructions] == [("echo \\\\",), ("b",)]


def test_the_escape_directive_frees_the_backslash() -> None:
    made = parse(b"# escape=`\nFROM x\nRUN dir c:\\ `\n  /s\n")
    assert made.stages[0].instructions[0].words == ("dir c:\\   /s",)
    assert made.escape == "`"


def test_a_directive_behind_a_comment_is_a_comment() -> None:
    assert parse(b"# hello\n# escape=`\nFROM x\n").escape == "\\"


def test_a_here_document_is_the_script_of_run() -> None:
    run = only("RUN <<EOF\necho $x\n  indented\nEOF")
    assert run.heredocs[0].content == "echo $x\n  indented\n"
    assert run.heredocs[0].expand


def test_several_here_documents_and_quoted_names() -> None:
    copy = only("COPY <<a.txt <<-'B' /dest/\nA\na.txt\n\tB$\n\tB")
    assert [(h.name, h.content, h.expand) for h in copy.heredocs] == [
        ("a.txt", "A\n", True),
        ("B", "B$\n", False),
    ]


@pytest.mark.parametrize("line", ["RUN echo '<<EOF'", 'RUN ["<<EOF"]', "RUN a <<<EOF", "USER <<E"])
def test_shifts_in_quotes_are_no_here_documents(line: str) -> None:
    assert only(line).heredocs == ()


@pytest.mark.parametrize(
    ("word", "name", "expand"),
    [
        ("<< EOF", "EOF", True),
        ("3<<EOF", "EOF", True),
        ("<<'two words'", "two words", False),
        ('<<E"O"F', "EOF", False),
        ("<<it\\'s", "it's", True),
        ("<<$A", "$A", True),
    ],
)
def test_names_of_here_documents(word: str, name: str, expand: bool) -> None:
    (document,) = only(f"RUN {word}\nx\n{name}").heredocs
    assert (document.name, document.content, document.expand) == (name, "x\n", expand)


def test_a_shell_test_is_no_json_and_may_have_a_here_document() -> None:
    run = only("RUN [ -e /x ] || cat <<EOF\ny\nEOF")
    assert run.shell and run.heredocs[0].content == "y\n"


def test_a_trigger_has_its_here_document_with_it() -> None:
    trigger = only("ONBUILD  RUN <<EOF\necho 1\nEOF")
    assert trigger.words == ("RUN <<EOF\necho 1\nEOF",)
    assert parse_lines(trigger.words)[0].heredocs[0].content == "echo 1\n"


def test_lines_of_another_system_end_where_they_should_and_documents_are_kept() -> None:
    text = b"# escape=`\r\nFROM x\r\nRUN a `\r\n  b\r\nCOPY <<EOF /f\r\ny\r\nEOF\r\n"
    run, copy = parse(text).stages[0].instructions
    assert run.words == ("a   b",)
    assert copy.heredocs[0].content == "y\r\n"


def test_spaces_are_quoted_by_json_alone() -> None:
    assert only('COPY ["a b", "c d/"]').words == ("a b", "c d/")
    assert only('COPY "a b" c').words == ('"a', 'b"', "c")
    assert only('EXPOSE ["80"]').words == ('["80"]',)


def test_flags_are_unquoted_and_unescaped() -> None:
    assert only("COPY --chown='a b' --from=x\\ y c d").flags == {
        "chown": ("a b",),
        "from": ("x y",),
    }


@pytest.mark.parametrize(
    ("head", "frontend"),
    [
        ("# syntax = docker/dockerfile:1 // old\n", "docker/dockerfile:1"),
        ("#!/usr/bin/env build\n# syntax=a/b\n", "a/b"),
        ("// syntax=a/b\n", "a/b"),
        ("\n# syntax=a/b\n", ""),
    ],
)
def test_the_frontend_that_is_asked_for(head: str, frontend: str) -> None:
    assert syntax_of(f"{head}FROM x\n".encode()) == frontend


@pytest.mark.parametrize(
    ("text", "words", "shell"),
    [
        ('RUN ["a", "b c"]', ("a", "b c"), False),
        ("RUN ['a', 'b']", ("['a', 'b']",), True),
        ("CMD", (), True),
        ('ENTRYPOINT ["x"]', ("x",), False),
        ("HEALTHCHECK NONE", ("NONE",), False),
        ("HEALTHCHECK CMD curl x", ("CMD-SHELL", "curl x"), True),
    ],
)
def test_commands_in_both_forms(text: str, words: tuple[str, ...], shell: bool) -> None:
    found = only(text)
    assert (found.words, found.shell) == (words, shell)


def test_pairs_keep_their_quotes_until_they_are_expanded() -> None:
    assert only("ENV a=1 b='x y' c=z\\ z").pairs == (("a", "1"), ("b", "'x y'"), ("c", "z\\ z"))
    assert only("ENV old style  value").pairs == (("old", "style  value"),)
    assert only("ARG a b=2").pairs == (("a", None), ("b", "2"))


def test_flags_may_be_repeated_only_where_that_means_something() -> None:
    run = only("RUN --mount=type=cache,target=/a --mount=type=tmpfs,target=/b make")
    assert run.flags["mount"] == ("type=cache,target=/a", "type=tmpfs,target=/b")
    assert "duplicate flag specified: --chown" in refused("FROM x\nCOPY --chown=1 --chown=2 a b")
    assert only("COPY --link a b").switch("link")
    assert not only("COPY a b").switch("link")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "failed to parse Dockerfile: file with no instructions"),
        ("\\", "failed to parse Dockerfile: file with no instructions"),
        ("RUN x", "no build stage in current context"),
        ("FROM x\nFOO y", "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("FROM x\n\nRNU y", "line 3: unknown instruction: RNU (did you mean RUN?)"),
        ("FROM x\nFOO y", "line 2: unknown instruction: FOO (did you mean FROM?)"),
        ("FROM x\nSOMETHING y", "line 2: unknown instruction: SOMETHING"),
        ("FROM x\nCOPY a", "COPY requires at least two arguments, but only one was provided"),
        ("FROM x\nCOPY --nope=1 a b", "unknown flag: --nope"),
        ("FROM x\nENV a", "ENV must have two arguments"),
        ("FROM x\nENV a=b c", 'can\'t find = in "c". Must be of the form: name=value'),
        ("FROM x\nCOPY --form=1 a b", "unknown flag: --form (did you mean from?)"),
        ("ARG x", "dockerfile contains no stages to build"),
        ("FROM x\nfoo y", "unknown instruction: foo"),
        ("FROM x\nCOPY a <<EOF\nEOF", "COPY cannot accept a heredoc as a destination"),
        ("FROM x\nCOPY --link=1 a b", "expecting boolean value for flag --link, not: 1"),
        ("FROM x y", "FROM requires either one or three arguments"),
        ("FROM x AS 1y", "name can't start with a number"),
        ("FROM x\nONBUILD FROM y", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM x\nONBUILD ONBUILD RUN y", "Chaining ONBUILD"),
        ("FROM x\nSHELL /bin/sh", "SHELL requires the arguments to be in JSON form"),
        ("FROM x\nHEALTHCHECK FOO", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("FROM x\nWORKDIR", "WORKDIR requires exactly one argument"),
        ("FROM x\nRUN <<EOF\nno end", "unterminated heredoc"),
        ("# escape=x\nFROM y", "invalid escape token 'x' does not match ` or \\"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, said: str) -> None:
    assert said in refused(text)


STAGES = b"""ARG V=1
FROM base:$V AS one
FROM one AS two
FROM other AS unused
FROM scratch AS last
COPY --from=two /a /a
RUN --mount=type=bind,from=0,target=/m true
"""


def needed(made: Dockerfile, target: str) -> list[str]:
    """The stages that a target needs."""
    bases = {stage.number: stage.base for stage in made.stages}
    return [stage.name for stage in made.needed(made.target(target), bases)]


def test_only_the_stages_that_the_target_needs() -> None:
    made = parse(STAGES)
    assert needed(made, "") == ["one", "two", "last"]
    assert needed(made, "two") == ["one", "two"]
    assert needed(made, "2") == ["unused"]


def test_a_target_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InvalidArgument, match='target stage "nope" could not be found'):
        parse(STAGES).target("nope")


def test_a_stage_may_have_the_name_of_the_image_that_it_is_made_of() -> None:
    made = parse(b"FROM x AS x\nFROM x\nCOPY --from=x a b\n")
    assert made.find("x", 0) is None
    assert made.find("x", 1) is made.stages[0]


@pytest.mark.parametrize(
    ("text", "said", "lines"),
    [
        ("RUN --mount=type=x true", 'unsupported mount type "x"', "2-2"),
        ("RUN --network=foo true", 'invalid network mode "foo"', "2-2"),
        ("RUN --security=insecure true", "security.insecure is not allowed", "2-2"),
        ("COPY --from=$x a b", "variable expansion is not supported for --from", "2-2"),
        ("RUN --mount=from=$x,target=/a b", "'from' doesn't support variable expansion", "2-2"),
        ("RUN --mount=typ=bind,target=/a b", "unexpected key 'typ'", "2-2"),
        ("COPY --from=0 a b", "invalid from flag value 0: refers to current", "2-2"),
        ("COPY --from=b \\\n a b", 'cannot copy from stage "b", it needs', "2-3"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_done(text: str, said: str, lines: str) -> None:
    made = parse(f"FROM x AS a\n{text}\nFROM y AS b\n".encode())
    with pytest.raises(InvalidArgument, match=said) as refusal:
        check_dockerfile(made)
    assert refusal.value.detail["lines"] == lines
    check_dockerfile(parse(b"FROM x\nRUN --mount=type=$T true\nCOPY --from=b a b\n"))
    check_dockerfile(parse(b"FROM x\nCOPY --from=b a b\nFROM y AS b\n"), named=("b",))


def test_json_is_of_strings_alone() -> None:
    with pytest.raises(
        InvalidArgument, match="arrays must be comprised of strings only"
    ) as refusal:
        parse(b"FROM x\nCMD [1]\n")
    assert refusal.value.detail["lines"] == "2-2"
