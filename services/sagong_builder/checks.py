"""What can be told to be wrong before anything is done: nobody waits for long to hear of it. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator

from sagong.errors import InvalidArgument, SagongError
from sagong.model.numbers import natural
from sagong_builder.dockerfile import Dockerfile, Instruction
from sagong_builder.mounting import check_mounts

__all__ = ["check_dockerfile", "check_trigger", "located"]


@contextlib.contextmanager
def located(instruction: Instruction) -> Iterator[None]:
    """Errors of an instruction tell its lines, if nobody told more."""
    try:
        yield
    except SagongError as error:
        if instruction.line:
            error.detail.setdefault("lines", f"{instruction.line}-{instruction.last}")
        raise


def check_dockerfile(dockerfile: Dockerfile, named: Container[str] = ()) -> None:
    """All stages, those that are not needed too; `named` are further contexts."""
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            with located(instruction):
                _check(instruction)
                origin = instruction.flag("from")
                if "$" in origin:
                    raise InvalidArgument(
                        "variable expansion is not supported for --from, define a new stage with FROM "
                        "using ARG from global scope as a workaround"
                    )
                number = natural(origin)
                if number is not None and number >= stage.number:
                    own = number == stage.number
                    why = "refers to current build stage" if own else "invalid stage index"
                    raise InvalidArgument(f"invalid from flag value {origin[:9]}: {why}")
                if origin not in named and _is_later(dockerfile, origin, stage.number):
                    raise InvalidArgument(
                        f'cannot copy from stage "{origin[:100]}", it needs to be defined before '
                        f'current stage "{stage.name or stage.number}"'
                    )


def _is_later(dockerfile: Dockerfile, name: str, number: int) -> bool:
    later = dockerfile.find(name)
    return later is not None and later.number > number and dockerfile.find(name, number) is None


def check_trigger(instruction: Instruction) -> None:
    """An instruction of a base image's ONBUILD."""
    if instruction.keyword in ("FROM", "MAINTAINER", "ONBUILD"):
        raise InvalidArgument(f"{instruction.keyword} isn't allowed as an ONBUILD trigger")
    _check(instruction)


def _check(instruction: Instruction) -> None:
    if instruction.keyword != "RUN":
        return
    check_mounts(instruction)
    network, security = instruction.flag("network"), instruction.flag("security", "sandbox")
    if network not in ("", "default", "none", "host"):
        raise InvalidArgument(f'{_where(instruction)}invalid network mode "{network[:50]}"')
    if security not in ("sandbox", "insecure"):
        raise InvalidArgument(f'{_where(instruction)}security "{security[:50]}" is not valid')
    if security == "insecure":
        raise InvalidArgument("entitlement security.insecure is not allowed")


def _where(instruction: Instruction) -> str:
    return f"dockerfile parse error on line {instruction.line}: " if instruction.line else ""
