"""Who may do what with which repository. Pure.

An *action* is pull, push or delete. Rules of the configuration grant them; whoever may nothing by a
rule may still pull what is public.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from sagong_registry.settings import Rule

__all__ = ["ACTIONS", "ANONYMOUS", "Policy", "matches"]

ACTIONS = frozenset(("pull", "push", "delete"))
ANONYMOUS = ""
_EVERYTHING = (Rule(),)


class Policy:
    """The rules; `public` are patterns of repositories that everybody may pull."""

    def __init__(self, rules: tuple[Rule, ...], public: tuple[str, ...]) -> None:
        self._rules = rules or _EVERYTHING
        self._public = public

    def is_public(self, repository: str, visibility: str) -> bool:
        """Whether it can be pulled without an account."""
        if visibility:
            return visibility == "public"
        return any(matches(pattern, repository) for pattern in self._public)

    def actions(self, account: str, repository: str, visibility: str) -> frozenset[str]:
        """What an account, or nobody in particular, may do."""
        granted = {
            action
            for rule in self._rules
            if _speaks_of(rule.accounts, account)
            and any(matches(p.replace("{account}", account), repository) for p in rule.repositories)
            for action in rule.actions
        }
        if self.is_public(repository, visibility):
            granted.add("pull")
        return frozenset(granted)


def _speaks_of(accounts: Iterable[str], account: str) -> bool:
    return any(name in (ANONYMOUS, account) or (name == "*" and account) for name in accounts)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern, in which `*` stands for any characters, is of the name."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")))
