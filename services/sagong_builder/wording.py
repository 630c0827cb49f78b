"""What an image's history says of a step of a build by buildx: BuildKit's words. Pure.

Source: dockerfile2llb/convert.go and convert_copy.go of BuildKit, `commitToHistory`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sagong_builder.dockerfile import Expander, Instruction
from sagong_builder.metadata import ports_of

__all__ = ["change_words", "copy_words", "run_words"]

_LAYER = " # buildkit"


def run_words(args: Sequence[str], arguments: Mapping[str, str]) -> str:
    """RUN: the arguments of the stage so far, and what is executed."""
    told = [f"|{len(arguments)}", *(f"{n}={v}" for n, v in arguments.items())] if arguments else []
    return "RUN " + " ".join([*told, *args]) + _LAYER


def copy_words(instruction: Instruction, expander: Expander) -> str:
    """ADD and COPY: sources as they are named, without their content."""
    parts = [instruction.keyword]
    if instruction.switch("parents"):
        parts.append("--parents")
    for flag in ("chown", "chmod"):
        if value := instruction.flag(flag):
            parts.append(f"--{flag}={expander.word(value)}")
    bodies = {heredoc.word: f"<<{heredoc.name}" for heredoc in instruction.heredocs}
    *sources, target = instruction.words
    parts += [expander.word(word) for word in sources if word not in bodies]
    parts += [bodies[word] for word in sources if word in bodies]
    return " ".join([*parts, expander.word(target)]) + _LAYER


def change_words(comment: str) -> str:
    """Other instructions: as the classic builder's; EXPOSE names the ports that it has found."""
    keyword, _, rest = comment.partition(" ")
    if keyword != "EXPOSE":
        return comment
    return f"EXPOSE [{' '.join(port for word in rest.split() for port in ports_of(word))}]"
