"""Routing by the table."""

from __future__ import annotations

import pytest

from sagong.http import Router

ROUTES = (
    ("GET", "/", "root"),
    ("GET", "/containers/json", "list"),
    ("GET", "/containers/{id}/json", "inspect"),
    ("GET", "/images/json", "images"),
    ("GET", "/images/{name*}/json", "image"),
    ("GET", "/images/{name*}/history", "history"),
    ("POST", "/images/{name*}/push", "push"),
    ("DELETE", "/images/{name*}", "rmi"),
    ("GET", "/api/{path*}", "proxy"),
    ("GET", "/{anything}", "other"),
)


@pytest.mark.parametrize(
    ("method", "path", "handler", "parts"),
    [
        ("GET", "", "root", {}),
        ("GET", "containers/json", "list", {}),
        ("GET", "containers/a/json", "inspect", {"id": "a"}),
        ("GET", "images/json", "images", {}),
        ("GET", "images/r:5/a/b:c/json", "image", {"name": "r:5/a/b:c"}),
        ("GET", "images/json/json", "image", {"name": "json"}),
        ("GET", "images/a/history", "history", {"name": "a"}),
        ("DELETE", "images/a/b/json", "rmi", {"name": "a/b/json"}),
        ("GET", "api/x/y", "proxy", {"path": "x/y"}),
        ("GET", "zzz", "other", {"anything": "zzz"}),
    ],
)
def test_a_path_leads_to_its_handler(
    method: str, path: str, handler: str, parts: dict[str, str]
) -> None:
    segments = tuple(p for p in path.split("/") if p)
    match = Router(ROUTES).find(method, segments)
    assert match is not None and (match.handler, match.parts) == (handler, parts)


def test_a_path_without_pattern_leads_nowhere_and_knows_its_methods() -> None:
    router = Router(ROUTES)
    assert router.find("GET", ("containers", "a", "b", "c")) is None
    assert router.methods(("images", "a", "push")) == ("POST", "DELETE")
