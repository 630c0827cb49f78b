"""Dockerfiles: from text to stages of instructions. Pure; what is read here comes from strangers."""

from sagong_builder.dockerfile.expansion import Expander
from sagong_builder.dockerfile.instructions import Instruction
from sagong_builder.dockerfile.source import syntax_of
from sagong_builder.dockerfile.stages import Dockerfile, Stage, parse

__all__ = ["Dockerfile", "Expander", "Instruction", "Stage", "parse", "syntax_of"]
