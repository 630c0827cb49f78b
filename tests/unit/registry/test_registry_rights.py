"""Who may what: rules, passwords, tokens."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import bcrypt
import pytest
from tests.unit.registry.registry_lab import running

from sagong.conformance.registry import asked
from sagong_registry.accounts import Accounts, TooManyFailures, parse
from sagong_registry.gate import Scope, scopes
from sagong_registry.record import AccountRecord
from sagong_registry.rights import Policy, matches
from sagong_registry.settings import Rule
from sagong_registry.tokens import Tokens, key_of

LOG = logging.getLogger("test")
ALL = frozenset(("pull", "push", "delete"))
PULL = frozenset(("pull",))
NONE: frozenset[str] = frozenset()


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def accounts(made: Mapping[str, str], path: str = "") -> Accounts:
    records = {name: AccountRecord(hash=text) for name, text in made.items()}
    return Accounts(lambda: records, path, LOG)


@pytest.mark.parametrize(
    ("pattern", "name", "good"),
    [
        ("*", "a/b", True),
        ("a/*", "a/b/c", True),
        ("a/*", "ab", False),
        ("*/x", "a/x", True),
        ("a.b", "acb", False),
        ("", "a", False),
    ],
)
def test_patterns(pattern: str, name: str, good: bool) -> None:
    assert matches(pattern, name) is good


def test_without_rules_accounts_may_everything_and_others_pull_what_is_public() -> None:
    policy = Policy((), ("library/*",))
    assert policy.actions("alice", "any", "") == ALL
    assert policy.actions("", "any", "") == NONE
    assert policy.actions("", "library/busybox", "") == PULL
    assert policy.actions("", "any", "public") == PULL
    assert policy.actions("", "library/busybox", "private") == NONE


def test_rules_give_each_account_its_own() -> None:
    own = Rule(repositories=("{account}/*",))
    builder = Rule(accounts=("ci",), repositories=("*",), actions=("pull", "push"))
    readers = Rule(accounts=("",), repositories=("open/*",), actions=("pull",))
    policy = Policy((own, builder, readers), ())
    assert policy.actions("alice", "alice/app", "") == ALL
    assert policy.actions("alice", "bob/app", "") == NONE
    assert policy.actions("ci", "bob/app", "") == frozenset(("pull", "push"))
    assert policy.actions("", "open/app", "") == PULL
    assert policy.actions("alice", "open/app", "") == PULL
    assert policy.actions("", "/app", "") == NONE


async def test_passwords_of_the_operator_and_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"# made by hand\nbob:{hashed('b')}\nold:$apr1$x$y\n\n")
    both = accounts({"alice": hashed("a")}, str(path))
    assert both.exist and "alice" in both and "bob" in both and "old" not in both
    for name, password, good in (
        ("alice", "a", True),
        ("alice", "b", False),
        ("bob", "b", True),
        ("nobody", "b", False),
        ("bob", "b" * 100, False),
        ("bob", "\0", False),
    ):
        assert await both.verify(name, password, "peer") is good
    assert await both.verify("alice", "a", "peer")


async def test_a_changed_password_is_taken_and_the_old_one_forgotten(tmp_path: Path) -> None:
    made = {"alice": hashed("old")}
    found = Accounts(lambda: {k: AccountRecord(hash=v) for k, v in made.items()}, "", LOG)
    assert await found.verify("alice", "old", "peer")
    made["alice"] = hashed("new")
    assert not await found.verify("alice", "old", "peer")
    assert await found.verify("alice", "new", "peer")
    del made["alice"]
    assert not await found.verify("alice", "new", "peer") and not found.exist


async def test_guessing_is_stopped_without_locking_out_other_addresses() -> None:
    found = accounts({"alice": hashed("right")})
    for number in range(10):
        assert not await found.verify("alice", str(number), "guesser")
    with pytest.raises(TooManyFailures):
        await found.verify("alice", "right", "guesser")
    assert await found.verify("alice", "right", "elsewhere")


async def test_only_the_loopback_is_open_without_accounts() -> None:
    async with running() as registry:
        assert (await asked(registry.lab, "POST", "/v2/a/blobs/uploads/"))[0] == 202
    async with running(address="0.0.0.0") as registry:
        for target in ("/v2/", "/v2/a/manifests/v1", "/v2/a/tags/list"):
            status, headers, _ = await asked(registry.lab, "GET", target)
            assert status == 401 and headers["www-authenticate"].startswith("Bearer realm=")
        assert (await asked(registry.lab, "POST", "/v2/a/blobs/uploads/"))[0] == 401


def test_lines_that_are_no_accounts_are_numbered() -> None:
    names, wrong = parse("a:$2y$05$x\nb\n:x\n# c\nd:{SHA}x\n")
    assert list(names) == ["a"] and wrong == [2, 3, 5]


def test_a_token_says_what_was_signed_until_it_expires(tmp_path: Path) -> None:
    now = time.time()
    tokens = Tokens(key_of(tmp_path))
    token = tokens.issue("alice", {"a/b": ("pull",)}, now + 10)
    claims = Tokens(key_of(tmp_path)).verify(token, now)
    assert claims is not None
    assert (claims.account, claims.access) == ("alice", {"a/b": ("pull",)})
    assert tokens.verify(token, now + 11) is None
    assert Tokens(b"another key" * 3).verify(token, now) is None


@pytest.mark.parametrize("token", ["", ".", "a.b", "é.é", "x" * 70_000, "e30.", "=.="])
def test_what_is_no_token_is_none(token: str) -> None:
    assert Tokens(b"k" * 32).verify(token, 0.0) is None


def test_no_bit_of_a_token_can_be_changed() -> None:
    tokens = Tokens(b"k" * 32)
    token = tokens.issue("alice", {}, 100.0)
    for at in range(len(token)):
        other = "A" if token[at] != "A" else "B"
        found = tokens.verify(token[:at] + other + token[at + 1 :], 0.0)
        assert found is None or found == tokens.verify(token, 0.0), at


def test_an_identity_is_good_until_the_password_changes() -> None:
    tokens, hashes = Tokens(b"k" * 32), {"alice": "$2b$one", "bob": "$2b$one"}
    token = tokens.identify("alice", hashes["alice"])
    assert tokens.identified(token, hashes.get) == "alice"
    assert Tokens(b"another key" * 3).identified(token, hashes.get) == ""
    assert tokens.identified(f"Ym9i.{token.partition('.')[2]}", hashes.get) == "", "bob's it is not"
    assert tokens.verify(token, 0.0) is None, "it is good at the token server alone"
    assert tokens.identified(tokens.issue("alice", {}, 9e9), hashes.get) == ""
    assert tokens.identified(token, {"alice": "$2b$two"}.get) == ""
    assert tokens.identified(token, dict[str, str]().get) == ""


@pytest.mark.parametrize("token", ["", ".", "a.b", "é.é", "x" * 70_000, "YWxpY2U.", "=.="])
def test_what_is_no_identity_is_nobody_s(token: str) -> None:
    assert Tokens(b"k" * 32).identified(token, {"alice": "$2b$one"}.get) == ""


def test_the_key_is_kept_and_nobody_else_reads_it(tmp_path: Path) -> None:
    assert key_of(tmp_path) == key_of(tmp_path)
    assert (tmp_path / "token.key").stat().st_mode & 0o777 == 0o600


def test_scopes_are_read() -> None:
    texts = ["repository:a/b:pull,push repository(plugin):c:pull", "registry:catalog:*", "junk"]
    assert scopes(texts) == [Scope("a/b", ("pull", "push")), Scope("c", ("pull",))]
    assert scopes(["repository:UPPER:pull", "repository::pull", ":::"]) == []
