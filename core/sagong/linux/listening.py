"""Where a process listens, as the tables of network namespaces in /proc tell (proc_pid_net(5))."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator

__all__ = ["listening"]

_LISTEN, _UNCONNECTED = "0A", "07"
# What a socket of each table has while others may come: a state, and nobody at the other end.
_TABLES = (("tcp", _LISTEN), ("tcp6", _LISTEN), ("udp", _UNCONNECTED), ("udp6", _UNCONNECTED))
_ACCEPTS = 0x10000  # __SO_ACCEPTCON of a Unix socket


def listening(pid: int) -> tuple[str, ...]:
    """As `tcp:HOST:PORT`, `udp:HOST:PORT` and `unix:PATH`, each once; OSError if it is gone."""
    own = _sockets(pid)
    # What it was given may be of our namespace.
    found = [(*_of_network(of, own), *_of_unix(of, own)) for of in (pid, os.getpid())]
    return tuple(dict.fromkeys(address for addresses in found for address in addresses))


def _sockets(pid: int) -> set[str]:
    """Inode numbers of its sockets."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue  # closed meanwhile
        if match := re.fullmatch(r"socket:\[(\d+)\]", link):
            found.add(match[1])
    return found


def _rows(pid: int, table: str) -> Iterator[list[str]]:
    try:
        with open(f"/proc/{pid}/net/{table}") as file:
            next(file, None)
            yield from (line.split() for line in file)
    except FileNotFoundError:
        return  # a kernel without IPv6


def _of_network(pid: int, own: set[str]) -> Iterator[str]:
    for table, state in _TABLES:
        for row in _rows(pid, table):
            if row[3] == state and row[9] in own:
                yield f"{table.removesuffix('6')}:{_address(row[1])}"


def _address(text: str) -> str:
    """Of `0100007F:1F90`: words of 32 bits in the machine's order, and a port."""
    words, _, port = text.partition(":")
    parts = [int(words[at : at + 8], 16) for at in range(0, len(words), 8)]
    raw = struct.pack(f"={len(parts)}I", *parts)
    if len(parts) == 1:
        return f"{socket.inet_ntop(socket.AF_INET, raw)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, raw)}]:{int(port, 16)}"


def _of_unix(pid: int, own: set[str]) -> Iterator[str]:
    for row in _rows(pid, "unix"):
        if row[6] in own and len(row) > 7 and int(row[3], 16) & _ACCEPTS:
            yield f"unix:{row[7]}"
