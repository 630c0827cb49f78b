"""A manifest in words: what a plugin may, one right a line, with its reason."""

from __future__ import annotations

from sagong.manifest import EVERY, Capability, Manifest, SeccompGroup

__all__ = ["rights_in_words"]


def rights_in_words(found: Manifest) -> list[str]:
    """A manifest in words, one right a line."""
    rights, limits = found.rights, found.limits
    lines = [f"{found.plugin.name} {found.plugin.version}: {found.plugin.summary}"]
    lines += [f"provides {slot}/{version}" for slot, version in found.provided()]
    for slot, use in found.used_slots():
        what = ", ".join(use.methods) or "everything"
        where = {"": "", EVERY: " of every provider"}.get(use.instance, f" of {use.instance}")
        lines.append(f"calls {slot}/{use.version}{where}: {what} ({use.why})")
    lines += [f"hears {slot}/{h.version} ({h.why})" for slot, h in found.hears.items()]
    lines += [f"listens on {x.address} ({x.why})" for x in found.listens.values()]
    lines += [f"capability {c.name}{_holder(c)} ({c.why})" for c in rights.capabilities]
    lines.append(f"network {rights.network.mode} {rights.network.why}".rstrip())
    lines += [f"may {p.access} {p.path} ({p.why})" for p in rights.paths]
    lines += [f"device {d.path} ({d.why})" for d in rights.devices]
    lines += [f"system calls of group {s.group}{_holder(s)} ({s.why})" for s in rights.seccomp]
    if found.companion is not None:
        lines.append(f"companion outside the sandbox ({found.companion.why})")
    if found.deputy is not None:
        lines.append(f"deputy, a process of its own inside the sandbox ({found.deputy.why})")
    cores = f"{limits.cpu:g} cores" if limits.cpu else "all cores"
    sizes = f"memory {limits.memory}, {limits.pids} pids, {limits.files} files, {cores}"
    lines.append(f"limits: {sizes}")
    return lines


def _holder(right: Capability | SeccompGroup) -> str:
    holders = {"plugin": "", "deputy": ", held by the deputy alone", "both": ", the deputy's, too"}
    return holders[right.holder]
