"""`sagong check DIRECTORY`: what an author can do wrong in a manifest, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagong.cli.checking import source_mistakes

MANIFEST = """
[plugin]
name = "odd"
version = "1"
summary = "of a test"
class = "odd_plugin:Odd"
[provides]
scheduler = 1
[uses.objects]
version = 1
methods = ["get"]
why = "reads pods"
rules = [{ verbs = ["get"], groups = [""], resources = ["pods"] }]
[rights]
[limits]
memory = "64M"
"""
CODE = """
class Odd:
    def __init__(self, host): ...
    def place(self, question): ...

class Empty:
    def __init__(self, host): ...

class Asks:
    def __init__(self, host): ...
    def place(self, q): ...

class Yields:
    def __init__(self, host): ...
    def place(self, question):
        yield question

class Unmarked:
    def __init__(self, host): ...
    def refuses(self, pod, node): ...

class Alone:
    def place(self, question): ...

class Inherits(Alone):
    def place(self): ...

class Wants:
    def __init__(self, host, settings): ...
    def place(self, question): ...
"""


RULES = 'rules = [{ verbs = ["get"], groups = [""], resources = ["pods"] }]'


def right(table: str) -> tuple[str, str]:
    """A right more."""
    return "[rights]", f"[rights]\n{table}"


def more(table: str) -> tuple[str, str]:
    """A table more."""
    return "[limits]", f"{table}\n[limits]"


MISTAKES: dict[str, tuple[tuple[str, str], str]] = {
    "no TOML": (('"odd"', "odd"), "not TOML: Invalid value (at line 3"),
    "a table of another name": (("[plugin]", "[plugn]"), "did you mean plugin?"),
    "no name": (('name = "odd"\n', ""), "plugin.name is missing: a text in quotes"),
    "a wrong name": (('"odd"', '"Odd One"'), "lower-case letters, digits and _"),
    "no version": (('version = "1"\n', ""), "plugin.version is missing: a text in quotes"),
    "class and command": (
        ("class =", 'command = ["perl"]\nclass ='),
        "either class (package:Class) or command, not both",
    ),
    "neither": (('class = "odd_plugin:Odd"\n', ""), 'command (["PROGRAM", "WORD"]) is missing'),
    "a class without a package": (("odd_plugin:Odd", "Odd"), "write it as package:Class"),
    "another package": (("odd_plugin:Odd", "even:Odd"), "say odd_plugin:Odd"),
    "no such class": (("odd_plugin:Odd", "odd_plugin:Od"), "has no Od; did you mean Odd?"),
    "no such module": (("odd_plugin:Odd", "odd_plugin.x:Odd"), "there is no module odd_plugin.x"),
    "methods that are missing": (("odd_plugin:Odd", "odd_plugin:Empty"), "has no method place"),
    "a module that is not there": (
        ("odd_plugin:Odd", "odd_plugin.x:Odd"),
        "x.py: No such file or directory",
    ),
    "a class that takes no host": (
        ("odd_plugin:Odd", "odd_plugin:Alone"),
        "it is made with its host: it needs def __init__(self, host)",
    ),
    "a class that wants more than its host": (
        ("odd_plugin:Odd", "odd_plugin:Wants"),
        "line 29: it is made with its host alone: def __init__(self, host)",
    ),
    "a method of a class with a base": (
        ("odd_plugin:Odd", "odd_plugin:Inherits"),
        "line 26: the contract has place(self, question)",
    ),
    "a verb that nobody asks with": (('["get"], groups', '["gets"], groups'), "did you mean get?"),
    "the core group as others call it": (
        ('groups = [""]', 'groups = ["v1"]'),
        'uses.objects.rules[0].groups v1: the core group is ""',
    ),
    "a group with its version": (
        ('groups = [""]', 'groups = ["apps/v1"]'),
        "groups apps/v1: without its version, apps",
    ),
    "a kind for a resource": (
        ('resources = ["pods"]', 'resources = ["Pod"]'),
        "resources Pod: lower case and plural",
    ),
    "a name with a dash": (('"odd"', '"odd-one"'), "at most 48; say odd_one"),
    "a class as Python imports it": (
        ("odd_plugin:Odd", "odd_plugin.Odd"),
        "write it as package:Class, odd_plugin:Odd",
    ),
    "no summary": (('"of a test"', '""'), "plugin.summary: say in a line what it does"),
    "a number for a text": (('version = "1"', "version = 1"), 'a text in quotes, such as "1"'),
    "a text for a number": (("scheduler = 1", 'scheduler = "1"'), 'provides.scheduler "1": '),
    "a text for a number alone": (('64M"', '64M"\ncpu = "2"'), "at most 65536, without quotes"),
    "a table within [plugin]": (
        ('class = "odd_plugin:Odd"\n[provides]\nscheduler = 1', 'provides = ["scheduler"]'),
        "plugin.provides: not in [plugin]; it is a table of its own, [provides]",
    ),
    "a value for a table": (
        right('capabilities = ["CAP_CHOWN"]'),
        'rights.capabilities[0] "CAP_CHOWN": a table with name, why',
    ),
    "a size of another dialect": (
        ("64M", "64Mi"),
        "limits.memory 64Mi: a number with K, M or G, such as 64M",
    ),
    "an address without its kind": (
        more('[listens.api]\naddress = "0.0.0.0:80"\nwhy = "serves"'),
        "such as tcp:0.0.0.0:80",
    ),
    "an address twice": (
        more(
            '[listens.a]\naddress = "tcp:127.0.0.1:1"\nwhy = "serves"\n'
            '[listens.b]\naddress = "tcp:127.0.0.1:1"\nwhy = "serves"'
        ),
        "listens.b.address tcp:127.0.0.1:1: listens.a has it already",
    ),
    "a capability as others write it": (
        right('capabilities = [{ name = "net_admin", why = "bridges" }]'),
        "did you mean CAP_NET_ADMIN?",
    ),
    "a command as one text": (
        ('class = "odd_plugin:Odd"', 'command = "perl x.pl"'),
        'plugin.command "perl x.pl": a list, such as ["perl", "x.pl"]',
    ),
    "a program that nobody has": (
        ('class = "odd_plugin:Odd"', 'command = ["prel", "x.pl"]'),
        "plugin.command: prel is no program here",
    ),
    "no such kind": (("class =", 'kind = "hok"\nclass ='), "say plugin or service or hook"),
    "no such slot": (("scheduler =", "schedular ="), "did you mean scheduler?"),
    "no such version": (("scheduler = 1", "scheduler = 7"), "no version 7; there are: 1"),
    "a slot that is called": (("uses.objects", "uses.object"), "did you mean objects?"),
    "a method that is called": (
        ('["get"]', '["gett"]'),
        "objects/1 has no gett; did you mean get?",
    ),
    "no reason": (('why = "reads pods"\n', ""), "uses.objects.why is missing: a text in quotes"),
    "an empty reason": (('"reads pods"', '" "'), "uses.objects.why: say why this right is needed"),
    "rules where there are none": (
        (
            "[uses.objects]",
            f'[uses.state]\nversion = 1\nwhy = "keeps"\n{RULES}\n[uses.objects]',
        ),
        "only slot objects knows rules",
    ),
    "events of nobody": (more('[hears.runtme]\nwhy = "ends"'), "did you mean runtime?"),
    "streams of nobody": (more('[streams.runtme]\nwhy = "logs"'), "did you mean runtime?"),
    "no such capability": (
        right('capabilities = [{ name = "CAP_SYS_ADMN", why = "mounts" }]'),
        "did you mean CAP_SYS_ADMIN?",
    ),
    "a capability without a reason": (
        right('capabilities = [{ name = "CAP_CHOWN" }]'),
        "rights.capabilities[0].why is missing: a text in quotes",
    ),
    "no such group of calls": (
        right('seccomp = [{ group = "mout", why = "mounts" }]'),
        "did you mean mount?",
    ),
    "no such network": (right('network = { mode = "hots", why = "asks" }'), "say none or host"),
    "a path from nowhere": (
        right('paths = [{ path = "etc/x", access = "read", why = "reads" }]'),
        "an absolute path, or one that begins with {run}",
    ),
    "the whole machine in other words": (
        right('paths = [{ path = "/.", access = "read", why = "reads" }]'),
        "without . and ..",
    ),
    "the whole machine": (
        right('paths = [{ path = "//", access = "read", why = "reads" }]'),
        "not the whole machine",
    ),
    "a place of nobody": (
        right('paths = [{ path = "{run}/{ect}", access = "read", why = "reads" }]'),
        "no place {ect}; did you mean etc?",
    ),
    "no such access": (
        right('paths = [{ path = "/x", access = "raed", why = "reads" }]'),
        "say read or write",
    ),
    "a device elsewhere": (
        right('devices = [{ path = "/x", why = "uses it" }]'),
        "a path below /dev",
    ),
    "no size": (("64M", "64Q"), "limits.memory 64Q: a number with K, M or G, such as 64M"),
    "a key of another name": (("memory =", "memroy ="), "did you mean memory?"),
    "an address of no kind": (
        more('[listens.api]\naddress = "tpc:127.0.0.1:1"\nwhy = "serves"'),
        "unix:PATH, tcp:HOST:PORT, udp:HOST:PORT or netlink:PROTOCOL:GROUP",
    ),
    "a port that is none": (
        more('[listens.api]\naddress = "tcp:127.0.0.1:99999"\nwhy = "serves"'),
        "a port up to 65535",
    ),
    "a mode that is none": (
        more('[listens.api]\naddress = "unix:/x"\nmode = "rw"\nwhy = "serves"'),
        "an octal mode",
    ),
    "a wrong kind of value": (
        more('[restart]\noverlap = "yes"'),
        'restart.overlap "yes": true or false',
    ),
    "time that runs backwards": (
        more("[restart]\ndrain_seconds = -1"),
        "restart.drain_seconds -1: a number, at least 0",
    ),
    "a rule of another form": (
        ('resources = ["pods"]', 'resource = ["pods"]'),
        "uses.objects.rules[0].resource: no such key; did you mean resources?",
    ),
    "a rule that would mean all": (
        (', resources = ["pods"]', ""),
        "uses.objects.rules[0].resources is missing: a list",
    ),
    "a rule for nothing": (
        ('["pods"]', "[]"),
        "uses.objects.rules[0].resources []: a list, not empty",
    ),
    "no rules": (
        ('rules = [{ verbs = ["get"], groups = [""], resources = ["pods"] }]\n', ""),
        "uses.objects.rules is missing: what no rule names is refused",
    ),
    "one text for a list": (('["get"]\nwhy', '"get"\nwhy'), 'uses.objects.methods "get": a list'),
    "a parameter of another name": (
        ("odd_plugin:Odd", "odd_plugin:Asks"),
        "line 11: the contract has place(self, question)",
    ),
    "a stream where there is none": (
        ("odd_plugin:Odd", "odd_plugin:Yields"),
        "line 15: place is no stream",
    ),
    "a program that is not there": (
        ('class = "odd_plugin:Odd"', 'command = ["{package}/run", "--own"]'),
        "plugin.command: there is no ",
    ),
    "a program that is none": (
        ('class = "odd_plugin:Odd"', 'command = ["{package}/plugin.toml"]'),
        "can't be executed; chmod +x it",
    ),
    "a place in a command": (
        ('class = "odd_plugin:Odd"', 'command = ["perl", "{pakage}/x"]'),
        "plugin.command: no {pakage}; did you mean package?",
    ),
    "a companion's command": (
        more('[companion]\ncommand = ["{pyton}"]\nwhy = "launches"'),
        "companion.command: no {pyton}; did you mean python?",
    ),
    "a name that is taken": (
        ('name = "odd"', 'name = "scheduler_kube"'),
        "plugin.name scheduler_kube: a plugin of sagong itself is called so",
    ),
    "several in one line": (("64M", "-1"), "limits.memory -1: a number with K, M or G"),
    "a deputy of nobody": (
        more('[deputy]\nfunction = "odd_plugin:work"\nwhy = "mounts"'),
        "no such function",
    ),
}


def written(directory: Path, manifest: str) -> Path:
    """A plugin's package."""
    package = directory / "odd_plugin"
    package.mkdir()
    (package / "plugin.toml").write_text(manifest)
    (package / "__init__.py").write_text(CODE)
    return package


def test_a_right_one_has_no_mistakes(tmp_path: Path) -> None:
    package = written(tmp_path, MANIFEST)
    for source in (package, package / "plugin.toml", tmp_path):
        assert list(source_mistakes(source)) == []


@pytest.mark.parametrize("place", ["plugins", "services", "examples/02-scheduler-in-perl"])
def test_those_of_the_platform_have_none(place: str) -> None:
    """Classes that are imported when they are asked for, programs without site packages, Perl."""
    assert list(source_mistakes(Path(__file__).parents[3] / place)) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_and_its_remedy_said(name: str, tmp_path: Path) -> None:
    (old, new), said = MISTAKES[name]
    assert old in MANIFEST
    (found,) = source_mistakes(written(tmp_path, MANIFEST.replace(old, new, 1)))
    assert found.startswith(f"{tmp_path}/odd_plugin/plugin.toml: ")
    assert said in found


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = MANIFEST.replace("scheduler =", "schedular =").replace('"get"', '"gett"')
    # Keys that nobody knows, in a table, in one of many, and in a list, hide nothing behind them.
    text = text.replace("summary =", "sumary = 'x'\nsummary =").replace("why =", "wy = 'x'\nwhy =")
    path = '{ path = "/x", access = "read", mode = "x", why = "reads" }'
    text = text.replace("[rights]", f"[rights]\npaths = [{path}, {path}]")
    found = list(source_mistakes(written(tmp_path, text)))
    words = ("schedular", "gett", "plugin.sumary", "uses.objects.wy", "paths[1].mode", "[0].verbs")
    for word in words:
        assert any(word in line for line in found), (word, found)
    assert len(found) == 7, found


HOOK = """
[plugin]
name = "odd"
version = "1"
summary = "of a test"
class = "odd_plugin:Unmarked"
kind = "hook"
[hooks.kube]
why = "refuses"
"""


def test_a_hook_that_nothing_would_call_is_told(tmp_path: Path) -> None:
    (found,) = source_mistakes(written(tmp_path, HOOK))
    assert "no method of it is marked @hookimpl" in found


def test_a_hook_into_nothing_is_told(tmp_path: Path) -> None:
    text = HOOK.replace("hooks.kube", "hooks.kub").replace("Unmarked", "Gone")
    found = list(source_mistakes(written(tmp_path, text)))
    assert any("hooks.kub: no such slot or service; did you mean kube?" in line for line in found)
    assert any("odd_plugin has no Gone" in line for line in found)


def test_what_is_no_text_is_told_by_its_line(tmp_path: Path) -> None:
    package = written(tmp_path, MANIFEST)
    (package / "plugin.toml").write_bytes(MANIFEST.replace("of a test", "für").encode("latin-1"))
    (found,) = source_mistakes(package)
    assert "line 5 is not UTF-8" in found


def test_two_plugins_of_one_name_are_told(tmp_path: Path) -> None:
    written(tmp_path, MANIFEST)
    other = tmp_path / "other_plugin"
    other.mkdir()
    (other / "plugin.toml").write_text(MANIFEST.replace("odd_plugin", "other_plugin"))
    (other / "__init__.py").write_text(CODE)
    (found,) = source_mistakes(tmp_path)
    assert "plugin.name odd: another plugin of this repository is called so" in found


@pytest.mark.parametrize("point", ['odd = "even_plugin"', 'even = "odd_plugin"'])
def test_an_entry_point_that_names_something_else_is_told(point: str, tmp_path: Path) -> None:
    package = written(tmp_path, MANIFEST)
    head = '[project.entry-points."sagong.plugins"]\n'
    (tmp_path / "pyproject.toml").write_text(f"{head}{point}\n")
    (found,) = source_mistakes(package)
    assert 'odd = "odd_plugin"' in found
    (tmp_path / "pyproject.toml").write_text(f'{head}odd = "odd_plugin"\n')
    assert list(source_mistakes(package)) == []


def test_an_entry_point_waits_for_a_name_that_can_be(tmp_path: Path) -> None:
    package = written(tmp_path, MANIFEST.replace('"odd"', '"Odd One"'))
    (tmp_path / "pyproject.toml").write_text(
        '[project.entry-points."sagong.plugins"]\nodd = "odd_plugin"\n'
    )
    (found,) = source_mistakes(package)
    assert "say odd_one" in found


def test_a_slot_of_its_own_is_known_by_its_entry_point(tmp_path: Path) -> None:
    package = written(tmp_path, MANIFEST.replace("scheduler = 1", "parcel = 3"))
    assert "sagong.contracts" in next(iter(source_mistakes(package)))
    points = '[project.entry-points."sagong.contracts"]\nparcel = "odd_plugin.contract"\n'
    (tmp_path / "pyproject.toml").write_text(points)
    assert list(source_mistakes(package)) == []


def test_a_directory_without_a_plugin_is_told(tmp_path: Path) -> None:
    (found,) = source_mistakes(tmp_path)
    assert "no plugin.toml here" in found
