"""Selectors: string and object forms, what matches, upstream's refusals."""

from __future__ import annotations

import pytest

from sagong.errors import InvalidArgument
from sagong.model import selectors
from sagong.model.k8s.meta_v1 import LabelSelector, LabelSelectorRequirement

LABELS = {"app": "web", "tier": "a", "generation": "4", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier in (a, b)", True),
        ("app!=web", False),
        ("app notin (web,db)", False),
        ("missing notin (x)", True),
        ("missing!=x", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("generation>3", True),
        ("generation<3", False),
        ("app>3", False),
        ("empty=", True),
        ("empty in (,x)", True),
        ("empty in ()", True),
        ("example.com/x=1", False),
        ("in in (in)", False),
    ],
)
def test_a_label_selector_matches(text: str, matches: bool) -> None:
    assert selectors.parse_labels(text).matches(LABELS) is matches


def test_a_selector_has_a_canonical_string() -> None:
    text = "b in (z,y), a=1,!c,d,e!=2,f>3"
    assert str(selectors.parse_labels(text)) == "a=1,b in (y,z),!c,d,e!=2,f>3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("!a=", "found '=', expected: ',' or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!=", "found '!=', expected: !, identifier, or 'end of string'"),
        ("!(", "unable to parse requirement: found '(', expected: identifier"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (b,=)", "unable to parse requirement: found '=', expected: ',', or identifier"),
        (
            "a/b/c=1",
            'unable to parse requirement: <nil>: Invalid value: "a/b/c": a qualified name must '
            "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
            "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS "
            "subdomain prefix and '/' (e.g. 'example.com/MyName')",
        ),
    ],
)
def test_a_broken_selector_is_refused_in_upstreams_words(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        selectors.parse_labels(text)
    assert refused.value.message == said


def test_wrong_values_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="a valid label must be an empty string or consist"):
        selectors.parse_labels("a=b/c")
    with pytest.raises(InvalidArgument, match="the value must be an integer"):
        selectors.parse_labels("a>b")


def test_the_object_form_matches() -> None:
    document = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}],
    }
    assert selectors.from_object(document).matches(LABELS)
    struct = LabelSelector(
        match_labels={"app": "web"},
        match_expressions=[LabelSelectorRequirement(key="tier", operator="DoesNotExist")],
    )
    assert not selectors.from_object(struct).matches(LABELS)


@pytest.mark.parametrize(
    ("operator", "values", "said"),
    [
        ("In", [], "for 'in', 'notin' operators, values set can't be empty"),
        ("NotIn", [], "for 'in', 'notin' operators, values set can't be empty"),
        ("Exists", ["x"], 'Invalid value: []string{"x"}: values set must be empty for exists'),
        ("DoesNotExist", ["x"], "values set must be empty for exists and does not exist"),
        ("Gt", ["1"], '"Gt" is not a valid label selector operator'),
    ],
)
def test_wrong_expressions_are_refused(operator: str, values: list[str], said: str) -> None:
    document = {"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}
    with pytest.raises(InvalidArgument) as refused:
        selectors.from_object(document)
    assert said in refused.value.message


def test_a_plain_map_is_a_selector() -> None:
    found = selectors.from_labels({"app": "web", "tier": "a"})
    assert found.matches(LABELS) and not found.matches({"app": "web"})
    assert selectors.from_labels(None).empty and not found.empty
    assert not selectors.NOTHING.empty


def test_no_object_selects_nothing_and_an_empty_one_everything() -> None:
    assert not selectors.from_object(None).matches({})
    assert selectors.from_object({}).matches({})


def test_field_selectors() -> None:
    fields = {"metadata.name": "a", "status.phase": "Running", "spec.x": "a,b=c"}
    assert selectors.parse_fields("metadata.name=a,status.phase!=Failed").matches(fields)
    assert selectors.parse_fields(r"spec.x=a\,b\=c").matches(fields)
    assert not selectors.parse_fields("metadata.name==b").matches(fields)
    assert selectors.parse_fields("metadata.name=a").required("metadata.name") == "a"
    others = selectors.parse_fields("spec.x=b,metadata.name!=a,")
    assert [term.field for term in others.terms] == ["metadata.name", "spec.x"]
    assert (others.required("metadata.name"), others.required("spec.x")) == (None, "b")
    assert str(selectors.parse_fields(r"spec.x=a\,b")) == r"spec.x=a\,b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "invalid selector: 'x'; can't understand 'x'"),
        ("a=b\\", 'invalid field selector: invalid escape sequence: "\\"'),
        ("a=b\\c", 'invalid field selector: invalid escape sequence: "\\c"'),
        ("a=b=c", "invalid field selector: unescaped character in value: '='"),
    ],
)
def test_broken_field_selectors_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        selectors.parse_fields(text)
    assert refused.value.message == said
