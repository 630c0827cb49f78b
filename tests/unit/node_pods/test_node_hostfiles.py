"""Files that node makes for containers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from sagong.contracts.network import Endpoint, JoinRequest, Sandbox
from sagong.contracts.node import HostFile, SandboxSpec
from sagong_node.hostfiles import hosts, resolv_conf, write_files

_NOBODY = 65534


def succeeds_as_nobody(work: Callable[[], object]) -> bool:
    """Run it in a fork without rights: node has none to write where modes forbid it."""
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups(())
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_start_that_was_cut_off_is_repeated_over_its_read_only_files() -> None:
    """A pod whose start was cut by the end of node could never start again."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o777)
        me = _NOBODY if os.geteuid() == 0 else os.geteuid()
        files = [HostFile(target="/etc/x", content=b"1", mode=0o444, uid=me, gid=me)]
        for _ in range(2):
            assert succeeds_as_nobody(lambda: write_files(Path(name, "files"), files))


NAMESERVERS = ("127.0.0.1", "fe80::1%lan", "2001:db8::53", "192.0.2.53")
MACHINE = "".join(f"nameserver {address}\n" for address in NAMESERVERS) + "search a.test\n"


def told(dns: str = "", ipv6: str = "", machine: str = MACHINE, **spec: tuple[str, ...]) -> str:
    """The resolv.conf of a sandbox on one network."""
    endpoint = Endpoint(network="n", interface="eth0", mac="", ipv4="10.0.0.2", ipv6=ipv6)
    network = Sandbox(id="s", mode="networks", path="", dns=dns, endpoints=(endpoint,))
    wanted = SandboxSpec(id="s", owner="", network=JoinRequest(id="s"), **spec)  # type: ignore[arg-type]
    return resolv_conf(wanted, network, machine)


def test_nameservers_are_those_that_a_container_can_reach() -> None:
    assert told() == "nameserver 192.0.2.53\nsearch a.test\n"
    assert told(ipv6="fd00::2").startswith("nameserver 2001:db8::53\nnameserver 192.0.2.53\n")
    assert told(machine="nameserver 127.0.0.53\n").startswith("nameserver 8.8.8.8\n")


def test_the_machine_s_options_hold_for_the_resolver_too() -> None:
    """A network of one's own lost the machine's `options`."""
    assert told("127.0.0.11").endswith("search a.test\noptions ndots:0\n")
    assert told("127.0.0.11", machine="options timeout:1").endswith("options timeout:1 ndots:0\n")
    assert told("127.0.0.11", machine="options ndots:3").endswith("11\noptions ndots:3\n")
    assert told("127.0.0.11", dns_options=("ndots:1",)).endswith("options ndots:1\n")


def test_hosts_of_who_has_no_ipv6_name_none_of_it() -> None:
    for off in (False, True):
        sysctls = (("net.ipv6.conf.all.disable_ipv6", "1"),) if off else ()
        spec = SandboxSpec(id="s", owner="", network=JoinRequest(id="s", sysctls=sysctls))
        assert ("::" in hosts(spec, Sandbox(id="s"), "name")) == (not off)
