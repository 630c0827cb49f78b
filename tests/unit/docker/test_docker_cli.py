"""Stories with the real docker command line against the API over fakes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import time
from pathlib import Path

from tests.unit.docker.docker_lab import IMAGE, Lab, docker_lab, needs_docker

pytestmark = needs_docker


async def wait_for(lab: Lab, name: str, template: str, wanted: str) -> None:
    """Wait until `docker inspect` says what is wanted."""
    async with asyncio.timeout(60):
        while (await lab.docker("inspect", "-f", template, name)).out.strip() != wanted:
            await asyncio.sleep(0.02)


async def test_run_gives_output_errors_and_the_exit_code() -> None:
    async with docker_lab() as lab:
        found = await lab.docker("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (found.code, found.out, found.err) == (3, "out\n", "err\n")
        assert await lab.ok("ps", "-aq") == ""


async def test_run_takes_standard_input_to_its_end() -> None:
    async with docker_lab() as lab:
        data = os.urandom(300_000).hex()
        assert await lab.ok("run", "--rm", "-i", IMAGE, "cat", stdin=data.encode()) == data
        keys = b"not\x10\x11detached"
        assert await lab.ok("run", "--rm", "-i", IMAGE, "cat", stdin=keys) == keys.decode()


async def test_many_quick_runs_lose_no_output() -> None:
    async with docker_lab() as lab:
        runs = (lab.ok("run", "--rm", IMAGE, "echo", str(n)) for n in range(12))
        assert await asyncio.gather(*runs) == [str(n) for n in range(12)]


async def test_a_missing_program_ends_with_127_and_leaves_the_container() -> None:
    async with docker_lab() as lab:
        found = await lab.docker("run", "--name", "gone", IMAGE, "no-such-program")
        assert found.code == 127 and "executable file not found in $PATH" in found.err
        assert await lab.ok("ps", "-a", "--format", "{{.Names}} {{.Status}}") == "gone Created"
        found = await lab.docker("run", "--rm", "--name", "away", IMAGE, "no-such-program")
        assert found.code == 127
        assert await lab.ok("ps", "-a", "--format", "{{.Names}}") == "gone"


async def test_a_name_is_used_once_and_free_again_after_removal() -> None:
    async with docker_lab() as lab:
        await lab.ok("run", "-d", "--name", "one", IMAGE, "sleep", "60")
        found = await lab.docker("run", "--name", "one", IMAGE, "true")
        assert found.code == 125
        assert 'The container name "/one" is already in use by container "' in found.err
        await lab.ok("rm", "-f", "one")
        for _ in range(5):
            await lab.ok("run", "--rm", "--name", "one", IMAGE, "true")


async def test_the_life_of_a_container() -> None:
    async with docker_lab() as lab:
        id_ = await lab.ok("create", "--name", "life", IMAGE, "sleep", "60")
        assert await lab.ok("inspect", "-f", "{{.State.Status}}", "life") == "created"
        await lab.ok("start", "life")
        await lab.ok("start", id_[:8])
        await lab.ok("pause", "life")
        assert "(Paused)" in await lab.ok("ps", "--format", "{{.Status}}")
        assert "already paused" in (await lab.docker("pause", "life")).err
        await lab.ok("unpause", "life")
        await lab.ok("rename", "life", "afterlife")
        await lab.ok("restart", "-t", "0", "afterlife")
        refused = await lab.docker("rm", "afterlife")
        assert "container is running: stop the container before removing" in refused.err
        await lab.ok("stop", "-t", "5", "afterlife")
        await lab.ok("stop", "afterlife")
        assert await lab.ok("wait", "afterlife") == "143"
        refused = await lab.docker("kill", "afterlife")
        assert "is not running" in refused.err
        await lab.ok("rm", "afterlife")
        assert (await lab.docker("inspect", "afterlife")).code == 1


async def test_exec_has_output_input_and_codes() -> None:
    async with docker_lab() as lab:
        await lab.ok("run", "-d", "--name", "host", IMAGE, "sleep", "60")
        assert await lab.ok("exec", "host", "echo", "hi") == "hi"
        assert await lab.ok("exec", "-i", "host", "cat", stdin=b"through") == "through"
        assert (await lab.docker("exec", "host", "sh", "-c", "exit 7")).code == 7
        missing = await lab.docker("exec", "host", "no-such-program")
        assert missing.code == 127 and "executable file not found" in missing.out + missing.err
        assert (
            await lab.ok("exec", "-e", "A=b", "-w", "/", "host", "sh", "-c", "echo $A $PWD")
            == "b /"
        )
        await lab.ok("exec", "-d", "host", "true")
        await lab.ok("stop", "-t", "0", "host")
        assert "is not running" in (await lab.docker("exec", "host", "true")).err


async def test_logs_replay_follow_and_tail(tmp_path: Path) -> None:
    async with docker_lab() as lab:
        ended = tmp_path / "ended"
        script = f"echo 1; echo 2 >&2; until [ -e {ended} ]; do sleep 0.05; done; echo 3"
        await lab.ok("run", "-d", "--name", "log", IMAGE, "sh", "-c", script)
        following = Terminal(lab, "logs", "-f", "log")
        await following.start()
        await following.wait_seen(b"1")
        await following.wait_seen(b"2")
        ended.touch()
        assert await following.code() == 0
        assert following.seen.endswith(b"3\r\n")
        whole = await lab.docker("logs", "log")
        assert (whole.out, whole.err) == ("1\n3\n", "2\n")
        assert await lab.ok("logs", "--tail", "1", "log") == "3"
        await lab.ok("run", "--name", "none", "--log-driver", "none", IMAGE, "true")
        refused = await lab.docker("logs", "none")
        assert "does not support reading" in refused.err


async def test_attach_shows_what_comes_and_start_attached_gives_the_code(tmp_path: Path) -> None:
    async with docker_lab() as lab:
        ended = tmp_path / "ended"
        script = f"until [ -e {ended} ]; do echo now; sleep 0.05; done; echo later; exit 4"
        await lab.ok("run", "-d", "--name", "talk", IMAGE, "sh", "-c", script)
        attached = Terminal(lab, "attach", "--no-stdin", "talk")
        await attached.start()
        await attached.wait_seen(b"now")
        ended.touch()
        assert await attached.code() == 4
        assert attached.seen.endswith(b"now\r\nlater\r\n")
        again = await lab.docker("start", "-a", "talk")
        assert (again.code, again.out) == (4, "later\n")


class Terminal:
    """The docker command line on a terminal."""

    def __init__(self, lab: Lab, *words: str) -> None:
        self.lab, self.words = lab, words
        self.master, self.slave = pty.openpty()
        self.seen = b""

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            "docker", *self.words, stdin=self.slave, stdout=self.slave, stderr=self.slave,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "HOME": "/", "TERM": "xterm",
                 "DOCKER_HOST": f"unix://{self.lab.socket}"},
        )  # fmt: skip
        os.close(self.slave)
        os.set_blocking(self.master, False)
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.master)
        self.seen += data

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    async def wait_seen(self, pattern: bytes) -> None:
        async with asyncio.timeout(60):
            while not re.search(pattern, self.seen):
                await asyncio.sleep(0.02)

    async def code(self) -> int:
        async with asyncio.timeout(60):
            code = await self.process.wait()
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        return code


async def test_a_terminal_echoes_has_a_size_and_is_left_by_the_detach_keys() -> None:
    async with docker_lab() as lab:
        terminal = Terminal(lab, "run", "-it", "--name", "tty", IMAGE, "sh")
        await terminal.start()
        await wait_for(lab, "tty", "{{.State.Running}}", "true")
        terminal.type(b"echo a$((1+1))b; tty | head -c 8\n")
        await terminal.wait_seen(rb"a2b\r\n/dev/pts")
        terminal.type(b"\x10\x11")
        assert await terminal.code() == 0
        assert await lab.ok("inspect", "-f", "{{.State.Running}}", "tty") == "true"
        again = Terminal(lab, "attach", "tty")
        await again.start()
        await asyncio.sleep(0.3)
        again.type(b"exit 5\n")
        assert await again.code() == 5


async def test_exec_on_a_terminal() -> None:
    async with docker_lab() as lab:
        await lab.ok("run", "-d", "--name", "host", IMAGE, "sleep", "60")
        terminal = Terminal(lab, "exec", "-it", "host", "sh")
        await terminal.start()
        await asyncio.sleep(0.3)
        terminal.type(b"stty size; exit 6\n")
        await terminal.wait_seen(rb"\d+ \d+")
        assert await terminal.code() == 6


async def test_ps_filters_and_formats() -> None:
    async with docker_lab() as lab:
        await lab.ok(
            "run",
            "-d",
            "--name",
            "web1",
            "--label",
            "app=web",
            "-p",
            "8080:80",
            IMAGE,
            "sleep",
            "60",
        )
        await lab.ok("run", "-d", "--name", "db", "--label", "app=db", IMAGE, "sleep", "60")
        await lab.docker("run", "--name", "done", IMAGE, "sh", "-c", "exit 2")

        async def names(*filters: str) -> str:
            words = [word for f in filters for word in ("--filter", f)]
            return " ".join((await lab.ok("ps", "-a", "--format", "{{.Names}}", *words)).split())

        assert await names("label=app") == "db web1"
        assert await names("label=app=web") == "web1"
        assert await names("label=app", "label=x") == ""
        assert await names("name=^/web") == "web1"
        assert await names("status=exited") == "done"
        assert await names("exited=2") == "done"
        assert await names("ancestor=sagong.test/busybox") == "done db web1"
        assert await names("publish=8080") == "web1"
        assert await names("network=bridge") == "done db web1"
        assert await names("before=db") == "web1"
        assert await names("since=web1") == "done db"
        assert "invalid filter" in (await lab.docker("ps", "--filter", "nonsense=1")).err
        shown = await lab.ok("ps", "--filter", "name=web1", "--format", "{{.Ports}}|{{.Command}}")
        assert shown == '0.0.0.0:8080->80/tcp, [::]:8080->80/tcp|"sleep 60"'
        assert await lab.ok("ps", "-n", "1", "--format", "{{.Names}}") == "done"
        assert "B (virtual" in await lab.ok("ps", "-s", "--format", "{{.Size}}")


async def test_ps_hides_what_pods_run_unless_labels_are_asked_for() -> None:
    from sagong.contracts.network import JoinRequest
    from sagong.contracts.node import Command, ContainerSpec, SandboxSpec, StartRequest

    async with docker_lab() as lab:
        pod = "f" * 64
        await lab.node.create_sandbox(
            SandboxSpec(id=pod, owner="kube", network=JoinRequest(id=pod, mode="none"))
        )
        await lab.node.create(
            ContainerSpec(
                id=pod,
                sandbox=pod,
                name="pod-container",
                image=IMAGE,
                command=Command(cmd=("sh", "-c", "echo from the pod; exec sleep 60")),
                labels=(("io.kubernetes.pod.name", "p"),),
            )
        )
        await lab.node.start(StartRequest(id=pod))
        assert await lab.ok("ps", "-aq") == ""
        shown = await lab.ok("ps", "-q", "--filter", "label=io.kubernetes.pod.name")
        assert shown == pod[:12]
        assert await lab.ok("exec", pod[:12], "echo", "in") == "in"
        assert await lab.ok("inspect", "-f", "{{.Name}}", pod[:12]) == "/pod-container"


async def test_networks_are_made_joined_left_and_removed() -> None:
    async with docker_lab() as lab:
        await lab.ok("network", "create", "--label", "a=b", "--subnet", "10.9.0.0/24", "net")
        twice = await lab.docker("network", "create", "net")
        assert "network with name net already exists" in twice.err
        await lab.ok(
            "run",
            "-d",
            "--name",
            "one",
            "--network",
            "net",
            "--network-alias",
            "al",
            "--ip",
            "10.9.0.7",
            IMAGE,
            "sleep",
            "60",
        )
        seen = json.loads(await lab.ok("network", "inspect", "net"))[0]
        assert [c["Name"] for c in seen["Containers"].values()] == ["one"]
        assert seen["IPAM"]["Config"][0]["Subnet"] == "10.9.0.0/24" and seen["Labels"] == {"a": "b"}
        place = json.loads(await lab.ok("inspect", "one"))[0]["NetworkSettings"]["Networks"]["net"]
        assert place["Aliases"] == ["al"] and place["IPAddress"] == "10.9.0.7"
        assert place["DNSNames"][0] == "one" and place["NetworkID"] == seen["Id"]
        assert "has active endpoints" in (await lab.docker("network", "rm", "net")).err
        await lab.ok("network", "disconnect", "net", "one")
        assert await lab.ok("inspect", "-f", "{{.NetworkSettings.Networks}}", "one") == "map[]"
        await lab.ok("network", "connect", "--alias", "again", "net", "one")
        await lab.ok("rm", "-f", "one")
        assert "net" in await lab.ok("network", "prune", "-f")
        assert "pre-defined" in (await lab.docker("network", "rm", "bridge")).err
        listed = await lab.ok("network", "ls", "--format", "{{.Name}}/{{.Driver}}")
        assert listed.split() == ["bridge/bridge", "host/host", "none/null"]


async def test_a_container_shares_anothers_network_and_volumes() -> None:
    async with docker_lab() as lab:
        one = await lab.ok(
            "run", "-d", "--name", "one", "-v", "data:/data:ro", IMAGE, "sleep", "60"
        )
        await lab.ok(
            "run",
            "-d",
            "--name",
            "two",
            "--network",
            "container:one",
            "--volumes-from",
            "one",
            IMAGE,
            "sleep",
            "60",
        )
        two = await lab.ok("inspect", "-f", "{{.Id}}", "two")
        assert lab.node.sandboxes[two].share_with == one
        mount = json.loads(await lab.ok("inspect", "two"))[0]["Mounts"][0]
        assert (mount["Name"], mount["Destination"], mount["RW"]) == ("data", "/data", False)
        missing = await lab.docker("run", "--network", "container:nosuch", IMAGE, "true")
        assert missing.code == 125 and "No such container: nosuch" in missing.err
        assert "Unable to find image" not in missing.err


async def test_volumes_are_made_listed_pruned_and_kept_while_used() -> None:
    async with docker_lab() as lab:
        assert await lab.ok("volume", "create", "--label", "k=v", "keep") == "keep"
        assert await lab.ok("volume", "create", "keep") == "keep"
        await lab.ok("run", "--name", "user", "-v", "keep:/keep", "-v", "/anonymous", IMAGE, "true")
        assert "volume is in use" in (await lab.docker("volume", "rm", "keep")).err
        assert await lab.ok("volume", "ls", "-q", "--filter", "label=k=v") == "keep"
        assert await lab.ok("volume", "ls", "-q", "--filter", "dangling=true") == ""
        await lab.ok("rm", "user")
        assert len((await lab.ok("volume", "ls", "-q")).split()) == 2
        await lab.ok("volume", "prune", "-f")
        assert await lab.ok("volume", "ls", "-q") == "keep"
        await lab.ok("volume", "prune", "-af")
        assert await lab.ok("volume", "ls", "-q") == ""
        assert "no such volume" in (await lab.docker("volume", "inspect", "keep")).err


async def test_files_are_copied_in_and_out() -> None:
    async with docker_lab() as lab:
        await lab.ok("create", "--name", "box", IMAGE, "true")
        source = lab.directory / "file"
        source.write_bytes(b"content" * 1000)
        await lab.ok("cp", str(source), "box:/tmp/there")
        await lab.ok("cp", "box:/tmp/there", str(lab.directory / "back"))
        assert (lab.directory / "back").read_bytes() == source.read_bytes()
        assert "A /tmp/there" in await lab.ok("diff", "box")
        missing = await lab.docker("cp", "box:/nosuch", str(lab.directory))
        assert "Could not find the file /nosuch in container box" in missing.err


async def test_images_are_tagged_saved_loaded_committed_and_removed() -> None:
    async with docker_lab() as lab:
        await lab.ok("tag", IMAGE, "local/name:v1")
        await lab.ok("save", "-o", str(lab.directory / "saved.tar"), "local/name:v1")
        assert await lab.ok("rmi", "local/name:v1") == "Untagged: local/name:v1"
        loaded = await lab.ok("load", "-i", str(lab.directory / "saved.tar"))
        assert loaded == "Loaded image: local/name:v1"
        await lab.ok("run", "--name", "box", IMAGE, "true")
        await lab.ok(
            "commit", "-c", 'CMD ["ls", "-l"]', "-c", "ENV X=y", "-a", "me", "box", "made:1"
        )
        config = json.loads(await lab.ok("image", "inspect", "made:1"))[0]["Config"]
        assert config["Cmd"] == ["ls", "-l"] and "X=y" in config["Env"]
        refused = await lab.docker("rmi", "sagong.test/busybox", "local/name:v1")
        assert "container" in refused.err and refused.code == 1
        await lab.ok("rm", "box")
        assert "Deleted: sha256:" in await lab.ok("rmi", "made:1")
        names = await lab.ok("images", "--format", "{{.Repository}}:{{.Tag}}")
        assert names == "local/name:v1"
        assert "one file more" in await lab.ok("history", "--no-trunc", "local/name:v1")
        assert "No such image" in (await lab.docker("image", "inspect", "nosuch")).err


async def test_a_filesystem_is_exported_and_imported() -> None:
    async with docker_lab() as lab:
        await lab.ok("create", "--name", "box", IMAGE, "true")
        await lab.ok("export", "-o", str(lab.directory / "root.tar"), "box")
        id_ = await lab.ok(
            "import", "-c", 'CMD ["sh"]', str(lab.directory / "root.tar"), "imported:1"
        )
        assert id_.startswith("sha256:")
        assert "imported" in await lab.ok("images")


async def test_events_are_kept_filtered_and_followed() -> None:
    async with docker_lab() as lab:
        begun = str(time.time() - 1)
        words = ("--since", begun, "--filter", "container=seen", "--format", "{{.Action}}")
        follower = Terminal(lab, "events", *words)
        await follower.start()
        await lab.docker("run", "--name", "seen", "--label", "a=b", IMAGE, "sh", "-c", "exit 1")
        await lab.ok("rm", "seen")
        await lab.ok("run", "--rm", "--name", "other", IMAGE, "true")
        await follower.wait_seen(b"destroy")
        follower.process.kill()
        await follower.code()
        assert follower.seen.split() == [b"create", b"attach", b"start", b"die", b"destroy"]
        shown = await lab.docker(
            "events", "--since", begun, "--until", str(time.time()), "--filter", "event=die",
            "--filter", "label=a=b", "--format", "{{json .}}",
        )  # fmt: skip
        event = json.loads(shown.out)
        assert event["Actor"]["Attributes"] | {"execDuration": ""} == {
            "a": "b", "exitCode": "1", "image": IMAGE, "name": "seen", "execDuration": "",
        }  # fmt: skip
        assert event["status"] == "die" and event["from"] == IMAGE


async def test_figures_of_processes_usage_and_engine() -> None:
    async with docker_lab() as lab:
        await lab.ok("run", "-d", "--name", "busy", IMAGE, "sleep", "60")
        assert "sleep 60" in await lab.ok("top", "busy")
        assert (await lab.ok("top", "busy", "-o", "pid,comm")).split()[:2] == ["PID", "COMMAND"]
        line = await lab.ok(
            "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}} {{.NetIO}}"
        )
        assert line == "busy 4MiB / 8GiB 2 2kB / 1kB"
        assert "1         1" in await lab.ok("system", "df")
        info = json.loads(await lab.ok("info", "--format", "{{json .}}"))
        assert (info["ContainersRunning"], info["OSType"]) == (1, "linux")
        version = await lab.ok(
            "version", "--format", "{{.Server.Version}} {{.Server.MinAPIVersion}}"
        )
        assert version == "28.5.2 1.24"


async def test_stats_count_the_network_that_a_container_is_on() -> None:
    async with docker_lab() as lab:
        modes = {"own": "bridge", "guest": "container:own", "open": "host", "shut": "none"}
        for name, mode in modes.items():
            await lab.ok("run", "-d", "--name", name, "--network", mode, IMAGE, "sleep", "60")
        lines = await lab.ok("stats", "--no-stream", "--format", "{{.Name}} {{.NetIO}}", *modes)
        assert sorted(lines.splitlines()) == [
            "guest 2kB / 1kB", "open 0B / 0B", "own 2kB / 1kB", "shut 0B / 0B",
        ]  # fmt: skip


async def test_limits_are_set_and_updated() -> None:
    async with docker_lab() as lab:
        await lab.ok(
            "run",
            "-d",
            "--name",
            "box",
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "20",
            IMAGE,
            "sleep",
            "60",
        )
        spec = next(iter(lab.node.containers.values())).spec
        assert (spec.limits.memory, spec.limits.cpu_quota, spec.limits.pids) == (
            64 << 20,
            50000,
            20,
        )
        await lab.ok("update", "-m", "128m", "--memory-swap", "256m", "--restart", "always", "box")
        shown = await lab.ok(
            "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}", "box"
        )
        assert shown == f"{128 << 20} always"
        # The client names no policy when it was not asked for one.
        await lab.ok("update", "--pids-limit", "-1", "box")
        shown = await lab.ok(
            "inspect", "-f", "{{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}", "box"
        )
        assert shown == "0 always"
        assert next(iter(lab.node.containers.values())).spec.limits.pids == -1
        small = await lab.docker("run", "-m", "1m", IMAGE, "true")
        assert "Minimum memory limit allowed is 6MB" in small.err


async def test_a_missing_image_is_pulled_and_what_is_not_here_says_so() -> None:
    async with docker_lab() as lab:
        missing = await lab.docker("run", "127.0.0.1:1/nosuch:1", "true")
        assert (
            missing.code == 125
            and "Unable to find image '127.0.0.1:1/nosuch:1' locally" in missing.err
        )
        for words, text in (
            (("swarm", "init"), "swarm mode is not part of this engine"),
            (("service", "ls"), "not a swarm manager"),
        ):
            refused = await lab.docker(*words)
            assert refused.code != 0 and text in refused.err


async def test_old_clients_speak_their_version() -> None:
    async with docker_lab() as lab:
        old = {"DOCKER_API_VERSION": "1.41"}
        found = await lab.docker("run", "--rm", IMAGE, "echo", "old", env=old)
        assert (found.code, found.out) == (0, "old\n")
        assert (await lab.docker("ps", env={"DOCKER_API_VERSION": "1.24"})).code == 0
        found = await lab.docker("ps", env={"DOCKER_API_VERSION": "1.99"})
        assert "too new" in found.err


async def test_restart_policies_go_on_until_they_give_up() -> None:
    async with docker_lab() as lab:
        await lab.ok("run", "-d", "--name", "again", "--restart", "on-failure:2", IMAGE, "false")
        assert await lab.ok("wait", "again") == "1"
        assert await lab.ok("inspect", "-f", "{{.RestartCount}}", "again") == "2"
        await lab.ok("rm", "again")


async def test_prune_takes_what_is_over() -> None:
    async with docker_lab() as lab:
        await lab.ok("run", "--name", "over", "--label", "x=1", IMAGE, "true")
        await lab.ok("run", "-d", "--name", "alive", IMAGE, "sleep", "60")
        assert "Total" in await lab.ok("container", "prune", "-f", "--filter", "label=x=2")
        assert await lab.ok("ps", "-aq", "--filter", "name=over") != ""
        await lab.ok("system", "prune", "-f")
        assert await lab.ok("ps", "-a", "--format", "{{.Names}}") == "alive"
