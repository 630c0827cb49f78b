"""Processes of a container as `docker top` is told them."""

from __future__ import annotations

import pwd

from sagong.contracts.runtime import ProcessFacts

__all__ = ["shown_process"]


_COUNTED = (
    "group",
    "session",
    "foreground",
    "flags",
    "priority",
    "nice",
    "threads",
    "processor",
)


def shown_process(facts: ProcessFacts) -> tuple[int, tuple[tuple[str, str], ...]]:
    """(pid, fields by name); a program without arguments shows its name, as ps does it."""
    shown = {
        "uid": str(facts.user),
        "user": _login(facts.user),
        "ppid": str(facts.parent),
        "state": facts.state,
        "tty": str(facts.tty),
        "seconds": str(facts.cpu),
        "started": str(facts.started),
        "command": " ".join(facts.args) or f"[{facts.name}]",
        "name": facts.name,
        "vsz": str(facts.virtual),
        "rss": str(facts.resident),
    }
    counted = {name: str(getattr(facts, name)) for name in _COUNTED}
    return facts.pid, (*shown.items(), *counted.items())


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
