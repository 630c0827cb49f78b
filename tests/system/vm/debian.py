"""The image of a bare Debian 12: made from Debian's packages, kept in a cache outside the repository.

`build` gives a directory with `root` (the files), `vmlinuz` and `initrd`. Its key is a hash of all
that made it: this recipe, `pyproject.toml`, `packaging/environment`. `write_disk` makes a disk of it.

Into a Debian with systemd and python3 alone, `packaging/environment run` itself installs what the
platform needs (python3-venv, nftables, …, and `.venv`), as on a user's machine: in a chroot, since the
emulated machine is twenty times slower and has no network. The Python packages come from wheels
that the host's pip collects. What the machine has besides: iproute2, procps and apparmor, for the
tests' own questions, and at last podman with runc, as others' users of `sagong-runtime`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.system.vm import volatile

__all__ = ["PLACE", "REPOSITORY", "build", "missing_tools", "write_disk"]

REPOSITORY = Path(__file__).resolve().parents[3]
PLACE = "root/sagong"
_AGENT = "usr/local/lib/agent.py"
_HERE = Path(__file__).parent
_MADE_OF = (
    _HERE / "debian.py",
    REPOSITORY / "pyproject.toml",
    REPOSITORY / "packaging" / "environment",
)
_PACKAGES = "systemd-sysv,udev,dbus,kmod,iproute2,procps,apparmor,ca-certificates,python3"
# Installed when the platform is, so that it has to find for itself what it needs.
_ENGINES = "podman runc conmon uidmap dbus-user-session libpam-systemd"
_MIRRORS = (
    "deb http://deb.debian.org/debian bookworm main",
    "deb http://deb.debian.org/debian-security bookworm-security main",
)
_NO_DOCUMENTS = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")
# Coldplugging devices and saving journals takes most of an emulated boot; AppArmor's profiles of
# programs that are not here neither. Podman's own services, which start nothing here, take as much.
_MASKED = (
    "systemd-udev-trigger",
    "systemd-journal-flush",
    "systemd-timesyncd",
    "systemd-logind",
    "systemd-update-utmp",
    "apparmor",
    "e2scrub_reap",
    "modprobe@.service",
    "kmod-static-nodes",
    "systemd-random-seed",
    "systemd-sysusers",
    "systemd-tmpfiles-setup-dev",
    "systemd-tmpfiles-clean.timer",
    "podman",
    "podman.socket",
    "podman-restart",
    "podman-auto-update",
    "podman-auto-update.timer",
    "getty@tty1",
    "serial-getty@ttyS0",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
_MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "crc32c_generic",
    "ext4",
    "quota_v2",
)
_UNIT = f"""[Unit]
Description=carries out the test's commands
DefaultDependencies=no
After=local-fs.target dbus.socket

[Service]
ExecStart=/usr/bin/python3 /{_AGENT}
WorkingDirectory=/{PLACE}
KillMode=process
TimeoutStopSec=1

[Install]
WantedBy=multi-user.target
"""
_INIT = """#!/busybox sh
/busybox mount -t devtmpfs devtmpfs /dev
for module in $(/busybox cat /modules); do /busybox insmod "$module"; done
until /busybox mount -t ext4 -o prjquota /dev/vda /root; do /busybox sleep 0.1; done
/busybox mount --move /dev /root/dev
exec /busybox switch_root /root /sbin/init
"""


def missing_tools() -> str:
    """What this machine lacks for building and booting, or "" if nothing."""
    wanted = {
        "qemu-system-x86_64": "qemu-system-x86",
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
    }
    lacking = [package for command, package in wanted.items() if not shutil.which(command)]
    if lacking:
        return f"no {' '.join(lacking)} installed (packaging/environment does it as root)"
    if os.uname().machine != "x86_64":
        return f"the machine is x86-64, its image can't be made natively on {os.uname().machine}"
    return ""


def build() -> Path:
    """The directory of the image; made now if it is not in the cache."""
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in _MADE_OF))
    target = _cache() / f"debian12-{digest.hexdigest()[:16]}"
    with _alone(target.parent):
        if not target.exists():
            for old in target.parent.glob("debian12-*"):
                shutil.rmtree(old, ignore_errors=True)
            # A half-written image is never used, so nothing need be synchronized to disk.
            volatile.run(lambda: _make(target))
    return target


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "/var/cache")
    path = Path(base) / "sagong-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One builder at a time."""
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="building-", dir=target.parent) as directory:
        work = Path(directory)
        root = work / "root"
        with ThreadPoolExecutor(1) as beside:
            collected = beside.submit(_collect_wheels, work / "wheels")
            _bootstrap(root)
            _fetch_kernel(root)
            collected.result()
        _install_platform(root, work / "wheels")
        _inside(root, f"apt-get install -qq --no-install-recommends {_ENGINES}")
        _configure(root)
        made = work / "made"
        made.mkdir()
        _write_initrd(root, made / "initrd")
        shutil.copy(next((root / "boot").glob("vmlinuz-*")), made / "vmlinuz")
        os.rename(root, made / "root")
        os.rename(made, target)


def write_disk(image: Path, place: Path, disk: Path) -> None:
    """A disk of the image's files, the agent, and the repository as it is in `place`."""
    with tempfile.TemporaryDirectory(prefix="building-", dir=image.parent) as directory:
        root = Path(directory) / "root"
        # Links instead of copies; what is replaced is unlinked first.
        _run("cp", "--archive", "--link", str(image / "root"), str(root))
        _run("cp", "--archive", "--remove-destination", f"{place}/.", str(root / PLACE))
        _run("cp", "--remove-destination", str(_HERE / "agent.py"), str(root / _AGENT))
        quotas = ("-O", "quota,project", "-E", "quotatype=prjquota")
        _run("mke2fs", "-q", "-t", "ext4", *quotas, "-d", str(root), str(disk), "3G")


def _bootstrap(root: Path) -> None:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _NO_DOCUMENTS]
    options += ["--variant=minbase", f"--include={_PACKAGES}", "--skip=cleanup/apt/lists"]
    _run("mmdebstrap", "--quiet", *options, "bookworm", str(root), *_MIRRORS)


def _fetch_kernel(root: Path) -> None:
    """Debian's kernel for virtual machines, unpacked only: no initramfs-tools, no boot loader."""
    script = (
        "cd /tmp && name=$(apt-cache depends linux-image-cloud-amd64 "
        "| sed -n 's/.*Depends: \\(linux-image-[0-9].*\\)/\\1/p' | head -n 1) "
        '&& apt-get download -qq "$name" && dpkg --fsys-tarfile "$name"_*.deb '
        # /lib is a link here, and must stay one.
        '| tar -x -C / --keep-directory-symlink && rm "$name"_*.deb && depmod "$(ls /lib/modules)"'
    )
    _inside(root, script)


def _install_platform(root: Path, wheels: Path) -> None:
    place = root / PLACE
    (place / "packaging").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "packaging/environment"):
        shutil.copy(REPOSITORY / name, place / name)
    for name in ("core", "plugins", "services"):
        (place / name).mkdir()
    os.rename(wheels, root / "wheels")
    _inside(
        root,
        "export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_CONFIG_FILE=/dev/null\n"
        f"cd /{PLACE} && bash packaging/environment run",
    )
    shutil.rmtree(root / "wheels")


def _collect_wheels(directory: Path) -> None:
    """Wheels of the platform's dependencies, and of what pip builds it with."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(directory)]
    _run(*pip, str(REPOSITORY), "hatchling", "editables")
    for own in directory.glob("sagong-*"):
        own.unlink()


def _configure(root: Path) -> None:
    (root / "etc/systemd/system/agent.service").write_text(_UNIT)
    (root / "etc/hostname").write_text("bare\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 bare\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/fstab").write_text("")
    (root / "etc/machine-id").write_text("")
    _inside(root, f"systemctl -q enable agent && systemctl -q mask {' '.join(_MASKED)}")
    for name in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / name, ignore_errors=True)


def _write_initrd(root: Path, target: Path) -> None:
    """Busybox, the modules of the disk and of our port, and an init of five lines."""
    modules = next((root / "lib/modules").iterdir())
    files = [("init", _INIT.encode(), 0o755)]
    files.append(("busybox", (root / "bin/busybox").read_bytes(), 0o755))
    names = []
    for path in _with_dependencies(modules):
        names.append(f"/{path.name}")
        files.append((path.name, path.read_bytes(), 0o644))
    files.append(("modules", "\n".join(names).encode(), 0o644))
    with open(target, "wb") as archive:
        for number, name in enumerate(("dev", "root"), start=1):
            archive.write(_cpio(number, name, b"", stat.S_IFDIR | 0o755))
        for number, (name, content, mode) in enumerate(files, start=3):
            archive.write(_cpio(number, name, content, stat.S_IFREG | mode))
        archive.write(_cpio(0, "TRAILER!!!", b"", 0))


def _with_dependencies(modules: Path) -> list[Path]:
    """Files of the modules in the order of loading; those built into the kernel have none."""
    depends = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        depends[Path(path).stem.replace("-", "_")] = [*reversed(others.split()), path]
    found: dict[str, None] = {}
    for name in _MODULES:
        found.update(dict.fromkeys(depends.get(name, [])))
    return [modules / path for path in found]


def _cpio(number: int, name: str, content: bytes, mode: int) -> bytes:
    """One entry of a "newc" archive, as the kernel unpacks it."""
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _inside(root: Path, script: str) -> None:
    """Run a script in the new system: no service starts there, /proc and the network are ours."""
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", resolv)
    # A mount namespace of its own: whatever is mounted there goes with it.
    mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev"'
    shell = f'{mounts} && exec chroot "$0" bash -ec "$1"'
    _run("unshare", "--mount", "--propagation", "private", "sh", "-ec", shell, str(root), script)
    policy.unlink()


def _run(*command: str) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
