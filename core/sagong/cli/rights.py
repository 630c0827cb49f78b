"""A manifest in words: what a plugin may, one right a line, with its reason."""

from __future__ import annotations

from collections.abc import Iterator

from sagong.bus.admission import CONNECTIONS
from sagong.manifest import (
    EVERY,
    Capability,
    Limits,
    Manifest,
    PathRight,
    SeccompGroup,
    size_bytes,
)

__all__ = ["rights_in_words"]


def rights_in_words(found: Manifest) -> list[str]:
    """A manifest in words, one right a line."""
    rights = found.rights
    lines = [f"{found.plugin.name} {found.plugin.version}: {found.plugin.summary}"]
    lines += [f"provides {slot}/{version}" for slot, version in found.provided()]
    lines += _bus_in_words(found)
    unset = "no address until one is configured"
    lines += [f"listens on {x.address or unset} ({x.why})" for x in found.listens.values()]
    lines += [f"capability {c.name}{_holder(c)} ({c.why})" for c in rights.capabilities]
    if found.plugin.kind == "hook":
        lines.append("all else is as with the unit that it is loaded into")
    else:
        lines.append(f"network {rights.network.mode} {rights.network.why}".rstrip())
    lines += [f"may {p.access} {p.path}{_manner(p)} ({p.why})" for p in rights.paths]
    lines += [f"device {d.path} ({d.why})" for d in rights.devices]
    lines += [f"system calls of group {s.group}{_holder(s)} ({s.why})" for s in rights.seccomp]
    if found.companion is not None:
        lines.append(f"companion outside the sandbox ({found.companion.why})")
    if found.deputy is not None:
        lines.append(f"deputy, a process of its own inside the sandbox ({found.deputy.why})")
    return lines if found.plugin.kind == "hook" else [*lines, *_limits_in_words(found.limits)]


def _bus_in_words(found: Manifest) -> Iterator[str]:
    """What it calls, hears and streams from, and which API objects it may touch."""
    for slot, use in found.used_slots():
        what = ", ".join(use.methods) or "everything"
        where = {"": "", EVERY: " of every provider"}.get(use.instance, f" of {use.instance}")
        yield f"calls {slot}/{use.version}{where}: {what} ({use.why})"
        for rule in use.rules:
            groups = ", ".join(group or "core" for group in rule.groups)
            yield f"  may {', '.join(rule.verbs)} {', '.join(rule.resources)} of {groups}"
    for slot, hears in found.hears.items():
        yield f"hears {slot}/{hears.version} ({hears.why})"
    for slot, streams in found.streams.items():
        yield f"connects to byte streams of {slot} ({streams.why})"
    for slot, hook in found.hooks.items():
        yield f"is loaded into {slot} ({hook.why})"


def _limits_in_words(limits: Limits) -> Iterator[str]:
    cores = f"{limits.cpu:g} cores" if limits.cpu else "all cores"
    sizes = f"memory {limits.memory}, {limits.pids} pids, {limits.files} files, {cores}"
    disk = limits.disk if size_bytes(limits.disk) else "unlimited"
    yield f"limits: {sizes}, tmp {limits.tmp}, own directories {disk}"
    who = "the kernel or a provider that it calls" if limits.cpu else "the kernel"
    yield f"bus: {CONNECTIONS} connections; who floods {who} has 1 % of a core for 1 to 16 seconds"


def _manner(path: PathRight) -> str:
    words = [word for word in ("shared", "optional") if getattr(path, word)]
    return f", {', '.join(words)}" if words else ""


def _holder(right: Capability | SeccompGroup) -> str:
    holders = {"plugin": "", "deputy": ", held by the deputy alone", "both": ", the deputy's, too"}
    return holders[right.holder]
