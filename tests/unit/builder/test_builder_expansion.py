"""Variables and quotes of Dockerfiles."""

from __future__ import annotations

import pytest

from sagong.errors import InvalidArgument
from sagong_builder.dockerfile import Expander

VARIABLES = {
    "x": "a b",
    "file": "foo.tar.gz",
    "empty": "",
    "path": "/a/b",
    "star": "a**",
    "넓다": "wide",
}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("$x", "a b"),
        ("${x}y", "a by"),
        ("'$x'", "$x"),
        ('"$x"', "a b"),
        (r"\$x", "$x"),
        (r'"\$x\"\n"', r'$x"\n'),
        ("$nothing", ""),
        ("${nothing:-d $x}", "d a b"),
        ("${empty:-d}${empty-e}", "d"),
        ("${x:+y}${empty:+n}${empty+set}", "yset"),
        ("${file%.*}", "foo.tar"),
        ("${file%%.*}", "foo"),
        ("${file#*.}", "tar.gz"),
        ("${file##*.}", "gz"),
        ("${file/o/0}", "f0o.tar.gz"),
        ("${file//o/0}", "f00.tar.gz"),
        ("${file/f?o/X}", "X.tar.gz"),
        ("100$", "100$"),
        ("${nothing:-${empty:-${x}}}", "a b"),
        ("a\\", "a"),
        ("${nothing:-{d}}", "{d}"),
        ("${file:-{d}}", "foo.tar.gz}"),
        ("${nothing:-'}'}", "}"),
        ("${file#foo\\}}", "foo.tar.gz"),
        ("${path//\\//\\/}", "\\/a\\/b"),
        ("${star%%\\**}", "a"),
        ("${empty/$empty/d}${file/$empty/d}", "ddfoo.tar.gz"),
        ("$넓다!", "wide!"),
    ],
)
def test_a_word_is_expanded(text: str, word: str) -> None:
    assert Expander(VARIABLES).word(text) == word


def test_values_become_several_words_where_they_may() -> None:
    assert Expander(VARIABLES).words("$x '$x' \"$x\"") == ["a", "b", "$x", "a b"]


def test_a_here_document_keeps_its_quotes() -> None:
    # Backslashes escape whatever comes behind them.
    assert Expander(VARIABLES, "`").text("\"$x\" '$x' \\$x \\n\\\\") == "\"a b\" 'a b' $x n\\"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${x", "missing ':' in substitution"),
        ("${}", "bad substitution"),
        ("${nothing:?not set}", "nothing: not set"),
        ("${x~y}", "unsupported modifier (~) in substitution"),
        ("'x", "unexpected end of statement while looking for matching single-quote"),
        ('"x', "double-quote"),
        ("${x:-y", "missing '}'"),
        ("${x/y", "missing '/'"),
        ("${x:#y}", "unsupported modifier (:#) in substitution"),
        ("${x#\\y}", "invalid escape '\\y'"),
        ("${nothing:?}", "nothing: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
    ],
)
def test_what_can_not_be_expanded_is_said(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        Expander(VARIABLES).word(text)
    assert said in refusal.value.message
    assert f'failed to process "{text}"' in refusal.value.message


def test_a_strangers_pattern_and_nesting_are_bounded() -> None:
    with pytest.raises(InvalidArgument, match="too long"):
        Expander({"x": "a" * 10_000}).word("${x//a*b*c*d*e*f/}")
    with pytest.raises(InvalidArgument, match="nested deeper"):
        Expander({}).word("${x:-" * 100 + "}" * 100)
