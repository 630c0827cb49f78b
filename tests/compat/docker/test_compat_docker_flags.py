"""Every flag of `docker run` that a Linux container can have: what is seen inside, or why it is refused."""

# ruff: noqa: E501 (rows of a table)
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line"),
]

CG = "$(cat /proc/self/cgroup | head -1)"

# Flags, what is asked inside, what must be found in the answer.
SEEN: tuple[tuple[str, str, str], ...] = (
    ("--add-host a:192.0.2.1 --add-host gw:host-gateway", "cat /etc/hosts", r"192.0.2.1\ta\n(.*\n)*\d+\.\d+\.\d+\.\d+\tgw"),
    ("--cap-drop ALL --cap-add CHOWN", "grep CapEff /proc/self/status", r"0000000000000001"),
    ("--cap-add SYS_ADMIN", "mkdir /tmp/m; mount -t tmpfs none /tmp/m && echo mounted", "mounted"),
    ("--device /dev/null:/dev/other:rw", "echo x > /dev/other && ls /dev/other", "/dev/other"),
    ("--device-cgroup-rule 'c 1:3 rwm'", "echo ok", "ok"),
    ("--dns 192.0.2.9 --dns-search example.org --dns-option ndots:3", "cat /etc/resolv.conf", r"nameserver \S+\n(.*\n)*search example.org\n(.*\n)*options ndots:3|search example.org(.*\n)*"),
    ("--domainname example.org --hostname box", "hostname; cat /etc/hosts", r"box\n(.*\n)*.*box.example.org box"),
    ("--entrypoint /bin/echo", "-n given", "-n given|given"),
    ("--env A=1 --env B", "echo $A-$B", "1-"),
    ("--expose 7000", "echo ok", "ok"),
    ("--group-add 4242", "id -G", "4242"),
    ("--init", "cat /proc/1/comm", "init"),
    ("--ipc host", "ls -d /dev/shm", "/dev/shm"),
    ("--ipc private --shm-size 1m", "df -k /dev/shm | tail -1", r"\s1024\s"),
    ("--label a=b", "echo ok", "ok"),
    ("--mac-address 02:42:ac:11:00:42", "ip link show eth0", "02:42:ac:11:00:42"),
    ("--link-local-ip 169.254.34.68", "ip -4 -o addr show eth0", "169.254.34.68/16 brd 169.254.255.255"),
    ("--memory 64m --memory-swap 96m --memory-reservation 32m", "echo ok", "ok"),
    # The kernel may end more than one: the first process is to be the last.
    ("--memory 32m --memory-swap 32m", "(echo 1000 >/proc/self/oom_score_adj; head -c 100m /dev/zero | tail -c 90m | wc -c); echo code $?", "code|Killed"),
    ("--cpus 0.5 --cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status", r"\t0$"),
    ("--cpu-shares 100 --cpu-period 50000 --cpu-quota 25000 --cpuset-mems 0", "echo ok", "ok"),
    ("--pids-limit 5", "(for i in 1 2 3 4 5 6 7 8; do sleep 60 & done); echo done", "fork"),
    ("--blkio-weight 300", "echo ok", "ok"),
    ("--device-read-bps /dev/vda:1mb --device-write-iops /dev/vda:100", "echo ok", "ok"),
    ("--oom-score-adj 500", "cat /proc/self/oom_score_adj", "^500$"),
    ("--network none", "ls /sys/class/net", "^lo$"),
    ("--network host", "hostname", "."),
    ("--no-healthcheck", "echo ok", "ok"),
    ("--pid host", "test -d /proc/1 && ps | wc -l", r"\d\d"),
    ("--privileged", "grep CapEff /proc/self/status; ls /dev | wc -l", r"0000[01]f"),
    ("--read-only", "touch /x || echo refused", "refused"),
    ("--read-only --tmpfs /t:size=64k,mode=1700", "touch /t/x && df -k /t | tail -1", r"\s64\s"),
    ("--tmpfs /t:exec", "cp /bin/busybox /t/ && /t/busybox echo ran", "ran"),
    ("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status", r"\t1"),
    ("--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status", r"\t0"),
    ("", "grep Seccomp: /proc/self/status", r"\t2"),
    ("--security-opt systempaths=unconfined", "cat /proc/keys >/dev/null && echo open", "open"),
    ("", "head -c1 /proc/kcore | wc -c", "^0$"),
    ("--sysctl net.core.somaxconn=333 --sysctl kernel.msgmax=1000", "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax", "333\n1000"),
    ("--ulimit nofile=100:200 --ulimit core=0", "ulimit -n; ulimit -Hn", "100\n200"),
    ("--user app", "id", r"uid=1000\(app\)"),
    ("--user 12:34", "id -u; id -g", "12\n34"),
    ("--user app:extra", "id -g", "2000"),
    ("--uts host", "hostname", "."),
    ("--cgroupns host", "cat /proc/self/cgroup", "sagong"),
    ("--cgroupns private", "cat /proc/self/cgroup | head -1", ":/$"),
    ("--workdir /made/here", "pwd", "/made/here"),
    ("--volume SHARED:/s:ro", "cat /s/file; touch /s/x || echo refused", "shared\nrefused"),
    ("--volume fv:/v --volume fv:/w:ro", "echo 1 > /v/a; cat /w/a; touch /w/b || echo refused", "1\nrefused"),
    ("--volume fv2:/var/www", "cat /var/www/index.html", "hello from sagong"),
    ("--volume fv3:/var/www:nocopy", "ls /var/www | wc -l", "^0$"),
    ("--mount type=bind,source=SHARED,target=/s,readonly", "cat /s/file; touch /s/x || echo refused", "shared\nrefused"),
    ("--mount type=bind,source=SHARED,target=/s,bind-propagation=rslave", "grep ' /s ' /proc/self/mountinfo", "master:|/s"),
    ("--mount type=volume,source=fv4,target=/v,volume-label=a=b", "touch /v/x && echo ok", "ok"),
    ("--mount type=volume,target=/v", "touch /v/x && echo ok", "ok"),
    ("--mount type=volume,source=fv6,target=/var/www,volume-nocopy,readonly", "ls /var/www | wc -l; touch /var/www/x || echo refused", "0\nrefused|refused"),
    ("--mount type=tmpfs,target=/t,tmpfs-size=65536,tmpfs-mode=0700", "df -k /t | tail -1; ls -ld /t", r"\s64\s(.*\n)*drwx------"),
    ("--volume-driver local --volume fv5:/v", "touch /v/x && echo ok", "ok"),
    ("--log-driver none", "echo ok", "ok"),
    ("--log-driver local --log-opt max-size=1m --log-opt max-file=2", "echo ok", "ok"),
    ("--log-driver json-file --log-opt max-size=1k --log-opt max-file=3 --log-opt tag={{.Name}} --log-opt mode=non-blocking", "echo ok", "ok"),
    ("--platform linux/amd64", "echo ok", "ok"),
    ("--pull never", "echo ok", "ok"),
    ("--restart no", "echo ok", "ok"),
    ("--runtime runc", "echo ok", "ok"),
    ("--stop-signal SIGUSR1 --stop-timeout 3", "echo ok", "ok"),
    ("--annotation a=b", "echo ok", "ok"),
    ("--cgroup-parent /flags-test", "echo ok", "ok"),
    ("--health-cmd true --health-interval 1s --health-timeout 1s --health-retries 2 --health-start-period 1s --health-start-interval 1s", "echo ok", "ok"),
    ("--isolation default", "echo ok", "ok"),
    ("--memory-swappiness 10", "echo ok", "ok"),
    ("--oom-kill-disable --memory 64m", "echo ok", "ok"),
    ("--publish 127.0.0.1::80 --publish-all", "echo ok", "ok"),
    ("--userns host", "echo ok", "ok"),
    ("--detach-keys ctrl-x,x --sig-proxy=false --attach stdout", "echo ok", "ok"),
)  # fmt: skip

# Flags that this engine refuses, and the words in which it says so.
REFUSED: tuple[tuple[str, str], ...] = (
    ("--gpus all", "could not select device driver"),
    ("--log-driver nosuch", "plugin \"nosuch\" not found"),
    ("--log-driver syslog", "failed to initialize logging driver"),
    ("--runtime nothing", "unknown or invalid runtime name"),
    ("--log-opt bogus=1", "unknown log opt 'bogus' for json-file log driver"),
    ("--storage-opt size=1g", "--storage-opt size needs project quotas"),
    ("--storage-opt color=blue", "Unknown option color"),
    ("--pull never --volume-driver nothing --volume dv:/v", 'plugin "nothing" not found'),
    ("--network nothing", "network nothing not found"),
    ("--ip 10.0.0.1", "user specified IP address is supported on user defined networks only"),
    ("--cpu-rt-runtime 1000", "kernel does not support CPU real-time"),
    ("--network-alias x", "aliases are only supported for user-defined networks"),
    ("--isolation hyperv", "invalid isolation"),
    ("--uts container:x", "invalid UTS mode"),
    ("--mount type=bind,source=/no/such,target=/x", "bind source path does not exist: /no/such"),
)  # fmt: skip


@pytest.fixture
def shared(open_path: Path) -> Path:
    """A directory of the machine with a file."""
    (open_path / "file").write_text("shared\n")
    return open_path


def words_of(flags: str, shared: Path) -> list[str]:
    """Flags as words; quotes keep spaces."""
    found = re.findall(r"'[^']*'|\S+", flags.replace("SHARED", str(shared)))
    return [word.strip("'") for word in found]


@pytest.mark.parametrize(("flags", "script", "found"), SEEN, ids=[f or s for f, s, _ in SEEN])
def test_flags_do_what_they_say(
    running_engine: Engine, shared: Path, flags: str, script: str, found: str
) -> None:
    command = script.split() if "--entrypoint" in flags else ["sh", "-c", script]
    done = running_engine.docker("run", "--rm", *words_of(flags, shared), IMAGE, *command)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert re.search(found, done.stdout + done.stderr, re.MULTILINE), (done.stdout, done.stderr)


@pytest.mark.parametrize(("flags", "said"), REFUSED, ids=[flags for flags, _ in REFUSED])
def test_what_cannot_be_is_refused_by_name(
    running_engine: Engine, shared: Path, flags: str, said: str
) -> None:
    done = running_engine.docker("run", "--rm", *words_of(flags, shared), IMAGE, "true")
    assert done.returncode == 125 and said in done.stderr, (done.returncode, done.stderr)


def test_a_bind_without_recursion_leaves_out_what_is_mounted_below(
    running_engine: Engine, open_path: Path
) -> None:
    below = open_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
    try:
        (below / "file").write_text("deep\n")
        for recursion, seen in (("enabled", "deep\n"), ("disabled", "")):
            mount = f"type=bind,src={open_path},dst=/s,bind-recursive={recursion}"
            done = running_engine.docker(
                "run", "--rm", "--mount", mount, IMAGE, "cat", "/s/below/file"
            )
            assert done.stdout == seen, (recursion, done.stderr)
    finally:
        subprocess.run(["umount", str(below)], check=True)
