"""The docker command line with images that are mounted, and with copies through what is mounted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line"),
]


def layered(docker: Engine, name: str) -> None:
    """An image of three layers, the topmost with a deletion and a link."""
    for image, script in (
        (IMAGE, "mkdir -p /data/in; echo one >/data/one; echo two >/data/two; echo in >/data/in/a"),
        (name, "rm /data/two; echo more >/data/one; ln -s /data/in /data/to; ln -s /etc /data/e"),
    ):
        container = docker.ok("create", image, "sh", "-c", script)
        docker.ok("start", "-a", container)
        docker.ok("commit", container, name)
        docker.ok("rm", container)


def test_images_of_several_layers_are_mounted_whole_or_in_part(docker: Engine) -> None:
    layered(docker, "layered:1")
    shown = {
        "": "cat /m/data/one; ls /m/data",
        ",image-subpath=data": "cat /m/one; ls /m",
        ",image-subpath=data/to": "cat /m/a",
        ",image-subpath=data/one": "cat /m",
        ",image-subpath=data/e": "grep -c root: /m/passwd",
    }
    for part, script in shown.items():
        mount = f"type=image,source=layered:1,target=/m{part}"
        out = docker.ok("run", "--rm", "--mount", mount, IMAGE, "sh", "-c", script)
        wanted = {"": "more e in one to", ",image-subpath=data": "more e in one to"}
        wanted |= {",image-subpath=data/to": "in", ",image-subpath=data/one": "more"}
        assert out.split() == wanted.get(part, "1").split(), (part, out)
    mount = "type=image,source=layered:1,target=/m"
    refused = docker.docker("run", "--rm", "--mount", mount, IMAGE, "touch", "/m/data/x")
    assert refused.returncode == 1 and "Read-only file system" in refused.stderr
    missing = docker.docker("run", "--rm", "--mount", f"{mount},image-subpath=no", IMAGE, "true")
    # 127 is the command line's, for any error that tells of a missing file.
    assert missing.returncode == 127, missing.stderr
    assert "daemon: cannot access path no of image" in missing.stderr
    # Nothing of it is lent any more.
    docker.ok("rmi", "layered:1")


@pytest.fixture
def shared(open_path: Path) -> Path:
    """A directory of the machine with a file, a directory and links."""
    made = open_path / "shared"
    (made / "in").mkdir(parents=True)
    (made / "file").write_text("machine\n")
    (made / "in" / "deep").write_text("deep\n")
    (made / "to").symlink_to("/data/in/deep")
    return made


@pytest.mark.parametrize("state", ["created", "running", "exited"])
def test_copies_go_through_what_is_mounted(
    docker: Engine, shared: Path, open_path: Path, tmp_path: Path, state: str
) -> None:
    single = open_path / "single"
    single.write_text("single\n")
    flags = f"-v {shared}:/data -v {single}:/etc/single -v cpv:/data/vol -v {shared}/in:/ro:ro"
    flags += " --tmpfs /tmp/t"
    command = ["sleep", "600"] if state == "running" else ["true"]
    container = docker.ok("create", *flags.split(), IMAGE, *command)
    if state != "created":
        docker.ok("start", *(["-a"] if state == "exited" else []), container)
    out = tmp_path / "out"
    for path, text in (
        ("/data/file", "machine\n"),
        ("/data/in/deep", "deep\n"),
        ("/etc/single", "single\n"),
        ("/ro/deep", "deep\n"),
    ):
        docker.ok("cp", f"{container}:{path}", str(out))
        assert out.read_text() == text, path
        out.unlink()
    docker.ok("cp", "-L", f"{container}:/data/to", str(out))
    assert out.read_text() == "deep\n"
    out.unlink()
    docker.ok("cp", f"{container}:/data/to", str(out))
    assert os.readlink(out) == "/data/in/deep"
    # Whole directories show what is mounted in them.
    docker.ok("cp", f"{container}:/data", str(tmp_path / "whole"))
    assert (tmp_path / "whole/in/deep").read_text() == "deep\n"
    assert (tmp_path / "whole/vol").is_dir()
    new = tmp_path / "new"
    new.write_text("new\n")
    os.chown(new, 12, 34)
    docker.ok("cp", str(new), f"{container}:/data/in/new")
    docker.ok("cp", "-a", str(new), f"{container}:/data/owned")
    docker.ok("cp", str(new), f"{container}:/data/vol/new")
    assert (shared / "in/new").read_text() == "new\n"
    refused = docker.docker("cp", str(new), f"{container}:/etc/single")
    assert "device or resource busy" in refused.stderr and single.read_text() == "single\n"
    # As with Docker, ids of files are kept with and without -a.
    assert {(shared / name).stat().st_uid for name in ("in/new", "owned")} == {12}
    volume = Path(docker.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "cpv"))
    assert (volume / "new").read_text() == "new\n"
    refused = docker.docker("cp", str(new), f"{container}:/ro/new")
    assert "mounted volume is marked read-only" in refused.stderr and not (shared / "in/x").exists()
    hidden(docker)
    docker.ok("rm", "-f", container)


def hidden(docker: Engine) -> None:
    """Wait until nothing of the machine is shown any more."""
    places = docker.instance.paths.run / "mounts"
    docker.wait_until(
        lambda: (
            not [*places.glob("shown-*")]
            and f"{places}/shown-" not in Path("/proc/mounts").read_text()
        )
    )


@pytest.mark.parametrize("state", ["created", "exited"])
def test_a_copy_makes_a_source_of_v_that_is_gone_and_refuses_one_of_mount(
    docker: Engine, shared: Path, tmp_path: Path, state: str
) -> None:
    """As Docker Engine 20.10 and 26.1: a copy mounts what a start would, and makes what it makes."""
    made, needed = shared / "in", shared / "to be"
    needed.mkdir()
    short = docker.ok("create", "-v", f"{made}:/data", IMAGE, "true")
    mount = f"type=bind,source={needed},target=/data"
    long = docker.ok("create", "--mount", mount, IMAGE, "true")
    if state == "exited":
        docker.ok("start", "-a", short)
        docker.ok("start", "-a", long)
    shutil.rmtree(shared)
    refused = docker.docker("cp", f"{long}:/data", "-")
    assert "bind source path does not exist" in refused.stderr, refused.stderr
    assert not shared.exists()
    docker.ok("cp", f"{short}:/data", str(tmp_path / "out"))
    assert made.is_dir() and not [*(tmp_path / "out").iterdir()]
    new = tmp_path / "new"
    new.write_text("new\n")
    docker.ok("cp", str(new), f"{short}:/data/new")
    assert (made / "new").read_text() == "new\n" and not needed.exists()
    docker.ok("rm", short, long)


@pytest.mark.parametrize("users", ["host", "private"])
def test_what_is_copied_into_a_running_container_is_seen(
    docker: Engine, tmp_path: Path, users: str
) -> None:
    layered(docker, "seen:1")
    look = "ls /data; cat /data/one; sleep 600"
    flags = ("--security-opt", f"userns={users}")
    container = docker.ok("run", "-d", *flags, "seen:1", "sh", "-c", look)
    docker.ok("exec", container, "cat", "/data/one")
    new = tmp_path / "new"
    new.write_text("new\n")
    docker.ok("cp", str(new), f"{container}:/data/one")
    docker.ok("cp", str(new), f"{container}:/data/fresh")
    assert docker.ok("exec", container, "cat", "/data/one", "/data/fresh") == "new\nnew"
    # Its directory is copied up already: nothing stands in the way of writing there.
    docker.ok("exec", container, "sh", "-c", "echo x >/data/other")
    assert docker.ok("exec", container, "cat", "/data/other") == "x"
    docker.ok("rm", "-f", container)
    docker.ok("rmi", "seen:1")


def test_an_empty_volume_takes_the_image_s_files_whoever_had_it(docker: Engine) -> None:
    layered(docker, "layered:1")
    docker.ok("run", "--rm", "-v", "kept:/data:nocopy", "layered:1", "test", "!", "-e", "/data/one")
    assert (
        docker.ok("run", "--rm", "-v", "kept:/data:ro", "layered:1", "cat", "/data/one") == "more"
    )
    emptied = ("--name", "emptied", "-v", "kept:/data")
    script = "rm -r /data/* 2>/dev/null; ls /data"
    docker.ok("run", *emptied, "layered:1", "sh", "-c", script)
    assert docker.ok("start", "-a", "emptied") == "", "what was deleted came back at a restart"
    part = "type=volume,source=parts,target=/data,volume-subpath=sub"
    docker.ok("run", "--rm", "-v", "parts:/v", IMAGE, "mkdir", "/v/sub")
    assert docker.ok("run", "--rm", "--mount", part, "layered:1", "cat", "/data/one") == "more"
    assert docker.ok("run", "--rm", "-v", "parts:/v", IMAGE, "ls", "/v") == "sub"
    docker.ok("rm", "emptied")
    docker.ok("rmi", "layered:1")


def test_a_mounted_image_is_the_one_of_the_creation(docker: Engine) -> None:
    layered(docker, "layered:1")
    mount = "type=image,source=layered:1,target=/m"
    docker.ok("create", "--name", "holds", "--mount", mount, IMAGE, "cat", "/m/data/one")
    docker.ok("rmi", "-f", "layered:1")
    docker.ok("tag", IMAGE, "layered:1")
    for _ in range(2):
        assert docker.ok("start", "-a", "holds") == "more"
    docker.ok("rm", "holds")
    docker.ok("rmi", "layered:1")


def test_mounts_are_where_links_of_the_image_lead(docker: Engine, open_path: Path) -> None:
    script = "mkdir -p /run/app /etc; touch /run/app/file /real; chown 70:71 /run/app"
    script += "; ln -s /run /var/run; ln -s app /run/two; ln -s /real /link"
    docker.ok("run", "--name", "linked", IMAGE, "sh", "-c", f"mkdir -p /var; {script}")
    docker.ok("commit", "linked", "linked:1")
    docker.ok("rm", "linked")
    for name, place in (("one", "/var/run/app"), ("two", "/run/two")):
        shown: tuple[str, ...] = ("stat", "-c", "%u:%g", "/run/app")
        assert docker.ok("run", "--rm", "-v", f"{name}:{place}", "linked:1", *shown) == "70:71"
        shown = ("ls", "/run/app")
        assert docker.ok("run", "--rm", "-v", f"{name}:{place}:ro", "linked:1", *shown) == "file"
    (open_path / "machine").write_text("of the machine")
    bound = ("-v", f"{open_path}/machine:/link:ro")
    assert docker.ok("run", "--rm", *bound, "linked:1", "cat", "/real") == "of the machine"
    docker.ok("rmi", "linked:1")


def test_files_that_are_written_for_a_run_are_copied_as_the_container_has_them(
    docker: Engine,
) -> None:
    docker.ok("run", "-d", "--name", "named", "-h", "hers", IMAGE, "sleep", "600")
    for file in ("hosts", "hostname", "resolv.conf"):
        out = docker.directory / file
        docker.ok("cp", f"named:/etc/{file}", str(out))
        assert out.read_text() == docker.ok("exec", "named", "cat", f"/etc/{file}") + "\n"
    refused = docker.docker("cp", str(docker.directory / "hostname"), "named:/etc/hosts")
    assert refused.returncode == 1 and "device or resource busy" in refused.stderr
    docker.ok("rm", "-f", "named")
