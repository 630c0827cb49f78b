"""Names and ids of Docker's objects: random ones, and what is allowed. Pure but for chance."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Container

from sagong.errors import InvalidArgument

__all__ = ["check_name", "check_volume_name", "new_id", "random_name"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")

# The sea and its weather; then people who built, charted, sailed or computed.
_ADJECTIVES = """
anchored azure billowing brave breezy brisk briny bright buoyant calm candid clear coastal
cordial crested curious deft drifting eager early ebbing even faithful fleet floating foamy
fresh gentle glad gleaming grand hardy helpful hopeful jolly keen kindly lasting lively lucid
lunar mellow merry misty modest nimble northern open patient placid quiet rapid ready rolling
sailing salty serene silver sincere smooth snug sober solar southern spry starlit steady still
stout sunny swift tidal tidy tranquil trim true vivid warm watchful wavy western willing
windward wise zesty
"""
_SURNAMES = """
abel agnesi amundsen anning avicenna babbage barents bartik bering boole bose bougainville
brahmagupta cabral cannon cantor cartier cavendish clarke cook cray curie dampier darwin
descartes dirac drake earhart eratosthenes erickson euclid euler faraday fermat fibonacci
franklin galileo galois gauss germain goodall halley hamilton hawking henson hilbert hopper
hubble hudson humboldt huygens hypatia ibn_battuta jang_yeongsil jemison joliot kepler
khwarizmi kilby knuth kovalevskaya lamarr laplace leibniz lovelace magellan maury maxwell
mcclintock meitner mendel mercator mirzakhani nansen napier newton nightingale noether pascal
pasteur perlman planck polo ptolemy ramanujan ride ritchie sejong shackleton shannon slocum
snow sutherland tasman tesla thompson torvalds turing vespucci vaughan volta wing wu yalow
yi_sunsin zheng_he zuse
"""


def check_volume_name(name: str) -> None:
    """Refuse what is no name of a volume, in Docker's words."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric "
            "characters"
        )
    if not _NAME.match(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )


def new_id() -> str:
    """64 hexadecimal digits, the first twelve never digits alone (they would look like a pid)."""
    while (made := secrets.token_hex(32))[:12].isdigit():
        continue
    return made


def random_name(taken: Container[str]) -> str:
    """A free name of an adjective and a surname."""
    for attempt in range(1000):
        name = f"{random.choice(_ADJECTIVES.split())}_{random.choice(_SURNAMES.split())}"
        if attempt > 5:
            name += str(random.randrange(10 ** min(attempt // 5, 8)))
        if name not in taken:
            return name
    return secrets.token_hex(16)


def check_name(name: str) -> str:
    """A container's name without its slash; InvalidArgument says what is allowed."""
    bare = name.removeprefix("/")
    if not _NAME.match(bare):
        raise InvalidArgument(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return bare
