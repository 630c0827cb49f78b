"""Docker's build checks by their names, and what a build or its Dockerfile wants of them. Pure.

Source: the page "Build checks" of docs.docker.com.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sagong.errors import InvalidArgument

__all__ = ["RULES", "CheckOptions", "url_of"]

# What each is about.
RULES = {
    "ConsistentInstructionCasing": "All commands within the Dockerfile should use the same casing "
    "(either upper or lower)",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "DuplicateStageName": "Stage names should be unique",
    "ExposeInvalidFormat": "IP address and host-port mapping should not be used in EXPOSE "
    "instruction. This will become an error in a future release",
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "InvalidDefaultArgInFrom": "Default value for global ARG results in an empty or invalid base "
    "image name",
    "InvalidDefinitionDescription": "Comment for build stage or argument should follow the format: "
    "`# <arg/stage name> <description>`. If this is not intended to be a description comment, add an "
    "empty line or comment between the instruction and the comment.",
    "JSONArgsRecommended": "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended "
    "behavior related to OS signals",
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "MaintainerDeprecated": "The MAINTAINER instruction is deprecated, use a label instead to define "
    "an image author",
    "MultipleInstructionsDisallowed": "Multiple instructions of the same type should not be used in "
    "the same stage",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "RedundantTargetPlatform": "Setting platform to predefined $TARGETPLATFORM in FROM is redundant "
    "as this is the default behavior",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "StageNameCasing": "Stage names should be lowercase",
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "UndefinedVar": "Variables should be defined before their use",
    "WorkdirRelativePath": "Relative workdir without an absolute workdir declared within the build "
    "can have unexpected results if the base image changes",
}
# These are looked at only where they are asked for.
_EXPERIMENTAL = frozenset(("InvalidDefinitionDescription",))
_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


def url_of(check: str) -> str:
    """The page about a check."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", check)
    return f"{_PAGES}{'-'.join(words).lower()}/"


@dataclass(frozen=True)
class CheckOptions:
    """`skip` and `experimental` are names of checks, or `all`; with `error` findings end the build."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def read(cls, text: str) -> CheckOptions:
        """The directive `check`, or the argument BUILDKIT_DOCKERFILE_CHECK."""
        found: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in text.split(";"))):
            name, equals, value = part.partition("=")
            if not equals or name.strip() not in ("skip", "experimental", "error"):
                raise InvalidArgument(f'invalid check option "{part[:100]}"')
            found[name.strip()] = value.strip()
        wanted = found.get("error", "false").lower()
        if wanted not in ("1", "t", "true", "0", "f", "false"):
            raise InvalidArgument(f'failed to parse check option "error={wanted[:50]}"')
        return cls(
            _names(found.get("skip", "")),
            _names(found.get("experimental", "")),
            wanted in ("1", "t", "true"),
        )

    def wants(self, check: str) -> bool:
        """Whether a check is to be told of."""
        if check in _EXPERIMENTAL:
            return bool({check, "all"} & self.experimental)
        return not {check, "all"} & self.skip


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())
