"""What names of objects, labels and ports may look like, in upstream's rules and words.

Each check returns the messages of all that is wrong; an empty list means the name is right.
Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from __future__ import annotations

import ipaddress
import random
import re
from typing import Final

__all__ = [
    "check_dns_1035_label",
    "check_dns_label",
    "check_env_name",
    "check_ip",
    "check_label_value",
    "check_path_segment",
    "check_port",
    "check_port_name",
    "check_qualified_name",
    "check_relaxed_env_name",
    "check_subdomain",
    "check_wildcard_subdomain",
    "config_key",
    "generated_name",
    "masked",
]

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = LABEL + "(\\." + LABEL + ")*"
QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_TAIL: Final = 5
_LONGEST_GENERATED: Final = 63 - _TAIL


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(f"(?:{pattern})\\Z", re.ASCII)


def _said(message: str, pattern: str, *examples: str) -> str:
    """Upstream's RegexError, its odd spacing included."""
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


_LABEL_RE, _SUBDOMAIN_RE, _QUALIFIED_RE = _form(LABEL), _form(SUBDOMAIN), _form(QUALIFIED)
_DNS1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_DNS1035_RE = _form(_DNS1035)
_WILDCARD = "\\*\\." + SUBDOMAIN
_WILDCARD_RE = _form(_WILDCARD)
_VALUE = f"({QUALIFIED})?"
_VALUE_RE = _form(_VALUE)
_ENV = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_ENV_RE = _form(_ENV)
_RELAXED_ENV_RE = re.compile(r"[\x20-\x3c\x3e-\x7e]+\Z")
_CONFIG = "[-._a-zA-Z0-9]+"
_CONFIG_RE = _form(_CONFIG)
_PORT_RE = _form("[-a-z0-9]+")

_LABEL_SAID = _said(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_SAID = _said(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character",
    SUBDOMAIN,
    "example.com",
)
_DNS1035_SAID = _said(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character",
    _DNS1035,
    "my-name",
    "abc-123",
)
_WILDCARD_SAID = _said(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, "
    "which must consist of lower case alphanumeric characters, '-' or '.' and end with an "
    "alphanumeric character",
    _WILDCARD,
    "*.example.com",
)
_QUALIFIED_SAID = _said(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character",
    QUALIFIED,
    "MyName",
    "my.name",
    "123-abc",
)
_VALUE_SAID = _said(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character",
    _VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_ENV_SAID = _said(
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', "
    "or '.', and must not start with a digit",
    _ENV,
    "my.env-name",
    "MY_ENV.NAME",
    "MyEnvName1",
)
_CONFIG_SAID = _said(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG,
    "key.name",
    "KEY_NAME",
    "key-name",
)


def _longer(limit: int) -> str:
    return f"must be no more than {limit} characters"


def _checked(name: str, form: re.Pattern[str], said: str, limit: int) -> list[str]:
    wrong = [_longer(limit)] if len(name) > limit else []
    return wrong if form.match(name) else [*wrong, said]


def check_dns_label(name: str) -> list[str]:
    """RFC 1123 labels: namespaces, containers, ports, volumes."""
    if len(name) <= 63 and _LABEL_RE.match(name):
        return []
    said = "must not contain dots" if _SUBDOMAIN_RE.match(name) else _LABEL_SAID
    return _checked(name, _LABEL_RE, said, 63)


def check_subdomain(name: str) -> list[str]:
    """RFC 1123 subdomains: names of most objects."""
    return _checked(name, _SUBDOMAIN_RE, _SUBDOMAIN_SAID, 253)


def check_dns_1035_label(name: str) -> list[str]:
    """RFC 1035 labels: services."""
    return _checked(name, _DNS1035_RE, _DNS1035_SAID, 63)


def check_wildcard_subdomain(name: str) -> list[str]:
    """`*.` and a subdomain: hosts of ingresses."""
    return _checked(name, _WILDCARD_RE, _WILDCARD_SAID, 253)


def check_path_segment(name: str) -> list[str]:
    """Names that need only fit into a path: roles, bindings, signing requests."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{mark}'" for mark in ("/", "%") if mark in name]


def masked(prefix: str) -> str:
    """A generateName as its check wants it: a dash at the end is allowed."""
    return f"{prefix[:-2]}a" if len(prefix) > 1 and prefix.endswith("-") else prefix


def check_qualified_name(name: str) -> list[str]:
    """Keys of labels, annotations, resources: an optional prefix and a slash, then a name."""
    if len(name) <= 63 and _QUALIFIED_RE.match(name):
        return []
    parts = name.split("/")
    wrong: list[str] = []
    if len(parts) > 2:
        return [
            f"a qualified name {_QUALIFIED_SAID}"
            " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    if len(parts) == 2:
        if not parts[0]:
            wrong.append("prefix part must be non-empty")
        else:
            wrong += [f"prefix part {said}" for said in check_subdomain(parts[0])]
    last = parts[-1]
    if not last:
        wrong.append("name part must be non-empty")
    elif len(last) > 63:
        wrong.append(f"name part {_longer(63)}")
    if not _QUALIFIED_RE.match(last):
        wrong.append(f"name part {_QUALIFIED_SAID}")
    return wrong


def check_label_value(value: str) -> list[str]:
    """Values of labels."""
    return _checked(value, _VALUE_RE, _VALUE_SAID, 63)


def check_env_name(name: str) -> list[str]:
    """Strict names of environment variables (envFrom takes only these)."""
    wrong = [] if _ENV_RE.match(name) else [_ENV_SAID]
    return [*wrong, *_dotted(name)]


def check_relaxed_env_name(name: str) -> list[str]:
    """Names of environment variables: printable ASCII without `=`."""
    if not name:
        return ["environment variable name must be at least 1 character"]
    if _RELAXED_ENV_RE.match(name):
        return []
    return [
        "a valid environment variable name must consist only of printable ASCII characters "
        "other than '='"
    ]


def config_key(key: str) -> list[str]:
    """Keys of ConfigMaps and Secrets."""
    wrong = [_longer(253)] if len(key) > 253 else []
    if not _CONFIG_RE.match(key):
        wrong.append(_CONFIG_SAID)
    return [*wrong, *_dotted(key)]


def _dotted(name: str) -> list[str]:
    if name == ".":
        return ["must not be '.'"]
    if name == "..":
        return ["must not be '..'"]
    return ["must not start with '..'"] if name.startswith("..") else []


def check_port(number: int) -> list[str]:
    """Port numbers."""
    return [] if 1 <= number <= 65535 else ["must be between 1 and 65535, inclusive"]


def check_port_name(name: str) -> list[str]:
    """IANA service names: ports of containers."""
    wrong: list[str] = []
    if len(name) > 15:
        wrong.append("must be no more than 15 characters")
    if not _PORT_RE.match(name):
        wrong.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any(mark.islower() for mark in name):
        wrong.append("must contain at least one letter (a-z)")
    if "--" in name:
        wrong.append("must not contain consecutive hyphens")
    if name and (name[0] == "-" or name[-1] == "-"):
        wrong.append("must not begin or end with a hyphen")
    return wrong


def check_ip(text: str) -> list[str]:
    """IP addresses of either family."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []


def generated_name(base: str, chance: random.Random) -> str:
    """generateName with five letters behind it, cut to 63 characters."""
    return base[:_LONGEST_GENERATED] + "".join(chance.choices(_ALPHABET, k=_TAIL))
