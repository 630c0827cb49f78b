"""`--log-driver` and `--log-opt`: what they may be, as Docker says it, and the log they make. Pure.

Docker looks at most of them when a container starts; here a wrong one is told when it is made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sagong.contracts.runtime import LogSpec
from sagong.errors import InvalidArgument, SagongError
from sagong_docker.body import HostConfig
from sagong_docker.log_tags import Value, tag_text
from sagong_docker.resources import size_of
from sagong_docker.settings import Settings

__all__ = ["LogOwner", "asks_image", "check_driver", "check_log", "effective", "log_spec"]

_ROTATION = ("max-file", "max-size", "compress")
_ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
# What Docker itself does with any driver's output.
_OF_ALL = frozenset(("mode", "max-buffer-size"))
_KNOWN = {
    "json-file": _OF_ALL.union(_ROTATION, _ATTRIBUTES),
    "local": _OF_ALL.union(_ROTATION),
}
# Docker's own that this engine has not. Docker, too, refuses one that can't be set up at the start.
_ABSENT = frozenset(("awslogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog"))
_DEFAULTS = {"local": {"max-size": "20m", "max-file": "5", "compress": "true"}}
_UNKNOWN_OPTION = {
    "json-file": "unknown log opt '{}' for json-file log driver",
    "local": "unknown log opt '{}' for log driver local",
}
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_NEEDS_MORE = "compress cannot be true when max-file is less than 2 or max-size is not set"


def effective(host: HostConfig, settings: Settings) -> tuple[str, dict[str, str]]:
    """Driver and options, with the engine's own for what was not given."""
    given = host.log_config
    driver = (given.type if given else "") or settings.log_driver
    options = dict((given.config if given else None) or {})
    return driver, {**settings.log_options, **options} if driver == settings.log_driver else options


def check_log(host: HostConfig, settings: Settings) -> None:
    """Raise what is wrong with them."""
    driver, options = effective(host, settings)
    if driver == "none" or driver in _ABSENT:
        return
    if driver not in _KNOWN:
        raise InvalidArgument(
            f'error looking up logging plugin {driver}: plugin "{driver}" not found'
        )
    for complaint in _complaints(driver, options):
        raise InvalidArgument(complaint)


def check_driver(document: Mapping[str, Any]) -> None:
    """Refuse the start of a container, by its HostConfig, whose output nobody here would take."""
    driver = (document.get("LogConfig") or {}).get("Type", "")
    if driver in _ABSENT:
        raise SagongError(
            "failed to create task for container: failed to initialize logging driver: "
            f"{driver}: this engine has json-file, local and none"
        )


def _complaints(driver: str, options: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(set(options) - _KNOWN[driver]):
        yield _UNKNOWN_OPTION[driver].format(name)
    mode = options.get("mode", "") or "blocking"
    if mode not in ("blocking", "non-blocking"):
        yield f"logger: logging mode not supported: {mode}"
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            yield "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        if _size(options["max-buffer-size"]) is None:
            yield (
                f"error parsing option max-buffer-size: invalid size: '{options['max-buffer-size']}'"
            )
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(name, ""))
        except re.error as error:
            yield f"invalid {name}: {options[name]}: {error}"
    yield from _of_rotation(driver, options)


def _of_rotation(driver: str, options: Mapping[str, str]) -> Iterator[str]:
    size, files = options.get("max-size"), options.get("max-file", "1")
    if size is not None:
        if _size(size) is None:
            yield f"invalid size: '{size}'"
        if driver == "json-file" and not _size(size):
            yield "max-size must be a positive number"
    if not re.fullmatch(r"[+-]?[0-9]+", files):
        yield f'strconv.Atoi: parsing "{files}": invalid syntax'
    if int(files) < 1:
        yield "max-file cannot be less than 1"
    compress = options.get("compress", "true" if driver == "local" else "false")
    if compress not in _BOOLEANS:
        yield f'strconv.ParseBool: parsing "{compress}": invalid syntax'
    if driver == "json-file" and _BOOLEANS[compress] and (size is None or int(files) < 2):
        yield _NEEDS_MORE
    if driver == "local" and files == "1" and "max-file" in options and _BOOLEANS[compress]:
        yield "compression cannot be enabled when max file count is 1"


def _size(text: str) -> int | None:
    try:
        found = size_of(text)
    except InvalidArgument:
        return None
    return None if found < 0 else found


def asks_image(host: HostConfig, settings: Settings) -> bool:
    """Whether what is written into the log depends on the image, which is looked up then."""
    _, options = effective(host, settings)
    return any(options.get(name) for name in _ATTRIBUTES)


@dataclass(frozen=True)
class LogOwner:
    """Whose log it is: what tags and attributes of its lines may tell.

    Labels and variables are its image's and its own; `args` is what it executes.
    """

    id: str
    name: str
    image: str
    image_id: str
    args: tuple[str, ...]
    labels: Mapping[str, str]
    environment: tuple[str, ...]


def log_spec(owner: LogOwner, host: HostConfig, settings: Settings) -> LogSpec:
    """What the runtime is asked for; the options have been checked."""
    driver, given = effective(host, settings)
    if driver == "none":
        return LogSpec(driver=driver)
    options = {**_DEFAULTS.get(driver, {}), **given}
    files = int(options.get("max-file", "1"))
    return LogSpec(
        driver=driver,
        max_size=size_of(options.get("max-size", "0")),
        max_files=files,
        tag=tag_text(options.get("tag", ""), _facts(owner, options)),
        attributes=tuple(sorted(_attributes(owner, options).items())),
        compress=files > 1 and _BOOLEANS[options.get("compress", "false")],
    )


def _facts(owner: LogOwner, options: Mapping[str, str]) -> dict[str, Value]:
    """The fields of Docker's templates of tags."""
    return {
        "Command": " ".join(owner.args),
        "Config": options,
        "ContainerArgs": owner.args[1:],
        "ContainerEntrypoint": "".join(owner.args[:1]),
        "ContainerEnv": owner.environment,
        "ContainerID": owner.id,
        "ContainerImageID": owner.image_id,
        "ContainerImageName": owner.image,
        "ContainerLabels": owner.labels,
        "ContainerName": f"/{owner.name}",
        "DaemonName": "docker",
        "FullID": owner.id,
        "Hostname": os.uname().nodename,
        "ID": owner.id[:12],
        "ImageFullID": owner.image_id,
        "ImageID": owner.image_id[:12],
        "ImageName": owner.image,
        "Name": owner.name,
    }


def _attributes(owner: LogOwner, options: Mapping[str, str]) -> dict[str, str]:
    """Labels and variables that each line of the log is to have, by name or by expression."""
    environment = dict(e.partition("=")[::2] for e in owner.environment if "=" in e)
    found: dict[str, str] = {}
    for option, known in (("labels", owner.labels), ("env", environment)):
        names = [name.strip() for name in options.get(option, "").split(",")]
        found |= {name: known[name] for name in names if name in known}
        expression = options.get(f"{option}-regex", "")
        if expression:
            pattern = re.compile(expression)
            found |= {k: v for k, v in known.items() if pattern.search(k)}
    return found
