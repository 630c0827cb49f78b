"""Images, networks, volumes, processes in containers and copies: made, listed, changed, removed."""

# ruff: noqa: E501 (rows of a table)
from __future__ import annotations

import io
import tarfile
from typing import Any

from tests.compat.docker.compare.container_scenarios import body
from tests.compat.docker.compare.dialogue import (
    Scenario,
    Step,
    delete,
    filters,
    get,
    head,
    post,
    put,
)

__all__ = ["SCENARIOS"]


def archive(**files: str) -> bytes:
    """A tar of small files; a name that ends in `_` is a directory, `to__X` a link."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.rstrip("_"))
            member.uid, member.gid, member.mtime, member.mode = 1000, 1000, 1_600_000_000, 0o640
            if name.endswith("_"):
                member.type, member.mode = tarfile.DIRTYPE, 0o750
                tar.addfile(member)
            elif text.startswith("->"):
                member.type, member.linkname = tarfile.SYMTYPE, text[2:]
                tar.addfile(member)
            else:
                data = text.encode()
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def executed(
    cmd: list[str], options: dict[str, Any] | None = None, **more: Any
) -> tuple[Step, ...]:
    """An exec from its making to its inspection."""
    return (
        post(
            "/containers/c1/exec", {"Cmd": cmd, "AttachStdout": True, "AttachStderr": True, **more}
        ).keep(e="Id"),
        get("/exec/$e/json"),
        post(
            "/exec/$e/start", {"Detach": False, "Tty": bool(more.get("Tty"))} | (options or {})
        ).hijacked(b""),
        get("/exec/$e/json").until("Running", False),
    )


def copied(path: str) -> tuple[Step, ...]:
    """A path of c1, looked at and read."""
    return head(f"/containers/c1/archive?path={path}"), get(f"/containers/c1/archive?path={path}")


_C1 = (delete("/containers/c1?force=1&v=1"),)

EXECS = (
    Scenario(
        "execs/of-nobody",
        (
            post("/containers/create?name=c1", body()),
            post("/containers/c1/start"),
            post("/containers/c1/exec", {"Cmd": ["true"], "User": "nobody-such"}),
        ),
        (delete("/containers/c1?force=1&v=1"),),
    ),
    Scenario(
        "execs/of-the-containers-user",
        (
            post("/containers/create?name=c1", body(User="app")),
            post("/containers/c1/start"),
            *executed(["id", "-u"]),
            *executed(["id", "-u"], User="0"),
        ),
        _C1,
    ),
    Scenario(
        "execs/run",
        (
            post("/containers/create?name=c1", body(Env=["A=1"], WorkingDir="/tmp")).keep(c="Id"),
            post("/containers/c1/exec", {"Cmd": ["true"]}),
            post("/containers/c1/start"),
            *executed(["sh", "-c", "echo out; echo err >&2; exit 3"]),
            *executed(["sh", "-c", "echo $$A $$B; pwd; id -u"], Env=["B=2"], WorkingDir="/var", User="app"),
            *executed(["no-such-program"]),
            *executed(["/etc/passwd"]),
            *executed(["true"], WorkingDir="/no/such"),
            *executed(["true"], Privileged=False, DetachKeys="ctrl-x"),
            post("/containers/c1/exec", {"Cmd": []}),
            post("/containers/c1/exec", {}),
            post("/containers/c1/exec", {"Cmd": ["true"], "DetachKeys": "wrong-keys"}),
            post("/exec/nobody/start", {}),
            get("/exec/nobody/json"),
            post("/exec/nobody/resize?h=1&w=1"),
            post("/containers/c1/exec", {"Cmd": ["sleep", "30"]}).keep(e="Id"),
            post("/exec/$e/start", {"Detach": True}),
            post("/exec/$e/start", {"Detach": True}),
            get("/exec/$e/json"),
            get("/containers/c1/json"),
            post("/containers/c1/exec", {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}).keep(e="Id"),
            post("/exec/$e/start", {}).hijacked(b"through\n"),
            post("/containers/c1/exec", {"Cmd": ["sh", "-c", "echo x; tty"], "AttachStdin": True, "AttachStdout": True, "Tty": True}).keep(e="Id"),
            post("/exec/$e/start", {"Tty": True}),
            delete("/containers/c1?force=1"),
            get("/exec/$e/json"),
        ),
        _C1,
    ),
)  # fmt: skip

COPIES = (
    Scenario(
        "copies/out-and-in",
        (
            post("/containers/create?name=c1", body(host={"Binds": ["copy-vol:/vol", "$shared:/shared:ro"], "Tmpfs": {"/tmpfs": ""}})).keep(c="Id"),
            *copied("/etc/passwd"),
            *copied("etc/passwd"),
            *copied("/etc"),
            *copied("/etc/"),
            *copied("/etc/."),
            *copied("/no/such"),
            *copied("/etc/passwd/"),
            head("/containers/c1/archive?path=/"),
            *copied(""),
            put("/containers/c1/archive?path=/tmp", archive(a="one", b_="", to="->a")),
            *copied("/tmp"),
            *copied("/tmp/a"),
            *copied("/tmp/to"),
            put("/containers/c1/archive?path=/no/such", archive(a="one")),
            put("/containers/c1/archive?path=/etc/passwd", archive(a="one")),
            put("/containers/c1/archive?path=/tmp&noOverwriteDirNonDir=1", archive(b="a file over a directory")),
            put("/containers/c1/archive?path=/tmp&noOverwriteDirNonDir=1", archive(a_="")),
            put("/containers/c1/archive?path=/tmp", b"no archive at all"),
            put("/containers/c1/archive", archive(a="one")),
            put("/containers/c1/archive?path=/shared", archive(a="one")),
            put("/containers/c1/archive?path=/vol", archive(v="in the volume")),
            *copied("/vol"),
            post("/containers/c1/start"),
            *copied("/vol"),
            put("/containers/c1/archive?path=/tmp", archive(later="while it runs")),
            put("/containers/c1/archive?path=/shared", archive(a="one")),
            *copied("/tmp/later"),
            *executed(["sh", "-c", "cat /tmp/later /vol/v; ls -ln /tmp | sed 's/ [A-Z].*[0-9] / /'"]),
            get("/containers/c1/changes").unordered(),
            get("/containers/c1/export").silent(),
        ),
        (*_C1, delete("/volumes/copy-vol")),
    ),
    Scenario(
        "copies/read-only",
        (
            post("/containers/create?name=c1", body(host={"ReadonlyRootfs": True, "Binds": ["copy-ro:/vol"]})).keep(c="Id"),
            put("/containers/c1/archive?path=/tmp", archive(a="one")),
            put("/containers/c1/archive?path=/vol", archive(a="one")),
            *copied("/vol/a"),
        ),
        (*_C1, delete("/volumes/copy-ro")),
    ),
)  # fmt: skip

IMAGES = (
    Scenario(
        "images/shown",
        (
            get("/images/json"),
            get("/images/json?all=1&digests=1"),
            get("/images/json?" + filters(reference="sagong.test/busybox")),
            get("/images/json?" + filters(reference="sagong.test/*:latest")),
            get("/images/json?" + filters(reference="nothing")),
            get("/images/json?" + filters(reference="sagong.test/busy[^z]o\\x")),
            get("/images/json?" + filters(reference="[")),
            get("/images/json?" + filters(reference="sagong.test/busy[]b]ox")),
            get("/images/json?" + filters(dangling="true")),
            get("/images/json?" + filters(dangling="x")),
            get("/images/json?" + filters(label="org.opencontainers.image.title")),
            get("/images/json?" + filters(label="org.opencontainers.image.title=other")),
            get("/images/json?" + filters(before="$image")),
            get("/images/json?" + filters(since="$image")),
            get("/images/json?" + filters(since="nothing")),
            get("/images/json?" + filters(wrong="x")),
            get("/images/$image/json"),
            get("/images/$image_id/json"),
            get("/images/nothing/json"),
            get("/images/UPPER/json"),
            get("/images/$image/history"),
            get("/images/nothing/history"),
            get("/images/$image/get").silent(),
            get("/images/nothing/get"),
            get("/images/get?names=nothing"),
        ),
    ),
    Scenario(
        "images/tags",
        (
            post("/images/$image/tag?repo=tagged&tag=1"),
            post("/images/$image/tag?repo=tagged"),
            post("/images/$image/tag?repo=UPPER"),
            post("/images/$image/tag?repo="),
            post("/images/$image/tag?repo=a&tag=b%20c"),
            post("/images/nothing/tag?repo=a"),
            get("/images/tagged:1/json"),
            get("/images/json?" + filters(reference="tagged")),
            delete("/images/tagged:1"),
            delete("/images/tagged:1"),
            delete("/images/tagged"),
            delete("/images/nothing"),
            delete("/images/UPPER"),
            post("/containers/create?name=c1", body()),
            delete("/images/$image"),
            post("/images/$image/tag?repo=other"),
            delete("/images/$image_id"),
            delete("/images/other"),
            post("/images/prune"),
            post("/images/prune?" + filters(dangling="false", label="nothing")),
            post("/images/prune?" + filters(wrong="x")),
        ),
        (*_C1, delete("/images/tagged:1"), delete("/images/tagged"), delete("/images/other")),
    ),
    Scenario(
        "images/made",
        (
            post("/containers/create?name=c1", body("sh", "-c", "echo new > /new", Labels={"l": "1"}, Env=["E=1"], ExposedPorts={"80/tcp": {}})).keep(c="Id"),
            post("/containers/c1/start"),
            post("/containers/c1/wait"),
            post("/commit?container=c1&repo=made&tag=1&comment=why&author=who&changes=CMD+%5B%22ls%22%5D&changes=ENV+X%3Dy"),
            get("/images/made:1/json"),
            get("/images/made:1/history"),
            post("/commit?container=c1").keep(i="Id"),
            get("/images/$i/json"),
            get("/images/json?" + filters(dangling="true")),
            post("/commit?container=c1&repo=UPPER"),
            post("/commit?container=c1&repo=made&changes=WRONG+x"),
            post("/commit?container=c1&repo=made&changes=FROM+x"),
            post("/commit"),
            post("/images/create?fromSrc=-&repo=imported&tag=1&message=said&changes=CMD+ls", archive(file="text")),
            get("/images/imported:1/json"),
            get("/images/imported:1/history"),
            post("/images/create?fromSrc=-&repo=UPPER", archive(file="text")),
            post("/images/create?fromSrc=-&repo=imported&changes=WRONG", archive(file="text")),
            post("/images/create?fromImage=127.0.0.1:9/none&tag=x"),
            post("/images/create?fromImage=UPPER"),
            post("/images/create"),
            post("/images/load", b"no archive at all"),
            post("/images/load?quiet=1", b""),
            post("/images/127.0.0.1:9/none/push?tag=x").with_headers(X_Registry_Auth="e30="),
            post("/images/made/push?tag=none").with_headers(X_Registry_Auth="e30="),
            post("/images/UPPER/push").with_headers(X_Registry_Auth="e30="),
        ),
        (*_C1, delete("/images/made:1"), delete("/images/imported:1"), post("/images/prune")),
    ),
)  # fmt: skip

_NET = {"Name": "n1", "Driver": "bridge", "Labels": {"a": "b"}, "IPAM": {"Config": [{"Subnet": "10.219.0.0/24", "IPRange": "10.219.0.128/25", "Gateway": "10.219.0.1", "AuxiliaryAddresses": {"x": "10.219.0.5"}}]}, "Options": {"com.docker.network.bridge.name": "cmpbr0"}}  # fmt: skip
_NETS = (delete("/networks/n1"), delete("/networks/n2"), delete("/networks/n3"))

NETWORKS = (
    Scenario(
        "networks/made",
        (
            get("/networks").unordered(),
            get("/networks/bridge"),
            get("/networks/host"),
            get("/networks/none"),
            post("/networks/create", _NET).keep(n="Id"),
            get("/networks/n1"),
            get("/networks/$n"),
            get("/networks/$n?verbose=1&scope=local"),
            get("/networks/n1?scope=swarm"),
            post("/networks/create", {"Name": "n1", "CheckDuplicate": True}),
            post("/networks/create", {"Name": "n2", "Internal": True, "Attachable": True, "EnableIPv6": False}),
            get("/networks/n2"),
            post("/networks/create", {"Name": "n3", "IPAM": {"Config": [{"Subnet": "10.219.0.0/25"}]}}),
            post("/networks/create", {"Name": "n3", "IPAM": {"Config": [{"Subnet": "nonsense"}]}}),
            post("/networks/create", {"Name": "n3", "IPAM": {"Config": [{"Subnet": "10.214.0.0/24", "Gateway": "10.215.0.1"}]}}),
            post("/networks/create", {"Name": ""}),
            post("/networks/create", {"Name": "host"}),
            post("/networks/create", {"Name": "bridge"}),
            post("/networks/create", {}),
            *(
                get("/networks?" + query).unordered()
                for query in (
                    filters(name="n1"), filters(name="n"), filters(id="$n"), filters(driver="bridge"),
                    filters(driver="null"), filters(type="custom"), filters(type="builtin"),
                    filters(type="wrong"), filters(label="a"), filters(label="a=b"), filters(label="a=c"),
                    filters(scope="local"), filters(scope="swarm"), filters(dangling="true"),
                    filters(dangling="false"), filters(dangling="x"), filters(wrong="x"),
                )
            ),
            get("/networks/nothing"),
            delete("/networks/nothing"),
            delete("/networks/bridge"),
            delete("/networks/host"),
            delete("/networks/n1"),
            post("/networks/prune?" + filters(label="nothing")),
            post("/networks/prune?" + filters(wrong="x")),
            post("/networks/prune"),
        ),
        _NETS,
    ),
    Scenario(
        "networks/joined",
        (
            post("/networks/create", _NET).keep(n="Id"),
            post("/networks/create", {"Name": "n2"}).keep(m="Id"),
            post("/containers/create?name=c1", {**body(host={"NetworkMode": "n1"}, Hostname="hosty"), "NetworkingConfig": {"EndpointsConfig": {"n1": {"Aliases": ["one"], "IPAMConfig": {"IPv4Address": "10.219.0.130"}, "DriverOpts": {"x": "y"}}}}}).keep(c="Id"),
            get("/containers/c1/json"),
            post("/containers/c1/start"),
            get("/containers/c1/json"),
            get("/networks/n1"),
            post("/networks/n2/connect", {"Container": "c1", "EndpointConfig": {"Aliases": ["two"], "Links": ["c1:x"]}}),
            post("/networks/n2/connect", {"Container": "c1"}),
            get("/containers/c1/json"),
            get("/containers/json"),
            get("/networks/n2"),
            get("/networks?" + filters(dangling="true", type="custom")).unordered(),
            delete("/networks/n2"),
            post("/networks/n1/disconnect", {"Container": "c1"}),
            post("/networks/n1/disconnect", {"Container": "c1"}),
            post("/networks/n1/disconnect", {"Container": "c1", "Force": True}),
            get("/containers/c1/json"),
            post("/networks/n1/connect", {"Container": "nobody"}),
            post("/networks/n1/disconnect", {"Container": "nobody"}),
            post("/networks/n1/disconnect", {"Container": "nobody", "Force": True}),
            post("/networks/nothing/connect", {"Container": "c1"}),
            post("/networks/nothing/disconnect", {"Container": "c1"}),
            post("/networks/host/connect", {"Container": "c1"}),
            post("/networks/n1/connect", {}),
            post("/networks/n1/connect", {"Container": "c1", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.99.0.1"}}}),
            post("/networks/n1/connect", {"Container": "c1", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "nonsense"}}}),
            post("/containers/c1/stop?t=0"),
            get("/containers/c1/json"),
            post("/networks/n2/disconnect", {"Container": "c1"}),
            get("/containers/c1/json"),
            post("/containers/c1/start"),
            post("/networks/n2/connect", {"Container": "c1"}),
            get("/networks/n2"),
            delete("/containers/c1?force=1"),
            delete("/networks/n1"),
            delete("/networks/n2"),
        ),
        (*_C1, *_NETS),
    ),
    Scenario(
        "networks/internal",
        (
            post("/networks/create", {"Name": "n2", "Internal": True, "IPAM": {"Config": [{"Subnet": "10.219.0.0/24"}]}}),
            post("/containers/create?name=c1", body(ExposedPorts={"80/tcp": {}}, host={"NetworkMode": "n2", "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "$port"}]}})).keep(c="Id"),
            post("/containers/c1/start"),
            get("/containers/c1/json"),
            get("/containers/json"),
        ),
        (*_C1, *_NETS),
    ),
    Scenario(
        "networks/configurations",
        (
            post("/networks/create", {"Name": "n1", "ConfigOnly": True, "Driver": "macvlan", "Labels": {"a": "b"}, "Options": {"com.docker.network.driver.mtu": "1400"}, "IPAM": _NET["IPAM"]}).keep(n="Id"),
            get("/networks/n1"),
            post("/networks/create", {"Name": "n1", "ConfigOnly": True, "CheckDuplicate": True}),
            *(
                post("/networks/create", {"Name": "n2", "ConfigOnly": True, **wrong})
                for wrong in ({"Internal": True}, {"Attachable": True}, {"ConfigFrom": {"Network": "n1"}}, {"Scope": "local"})
            ),
            post("/networks/create", {"Name": "n2", "ConfigFrom": {"Network": "n1"}}).keep(m="Id"),
            get("/networks/n2"),
            *(
                post("/networks/create", {"Name": "n3", "ConfigFrom": {"Network": "n1"}, **wrong})
                for wrong in ({"Labels": {"c": "d"}}, {"Options": {"c": "d"}}, {"EnableIPv6": True}, {"IPAM": {"Config": [{"Subnet": "10.214.0.0/24"}]}}, {"ConfigFrom": {"Network": "n2"}}, {"ConfigFrom": {"Network": "nothing"}}, {"ConfigFrom": {"Network": "$n"}})
            ),
            post("/networks/create", {"Name": "n3", "ConfigFrom": {"Network": "n1"}}),
            delete("/networks/n1"),
            get("/networks?" + filters(driver="null")).unordered(),
            get("/networks?" + filters(type="custom", dangling="true")).unordered(),
            post("/containers/create?name=c1", body(host={"NetworkMode": "n1"})).keep(c="Id"),
            get("/containers/c1/json"),
            post("/containers/c1/start"),
            delete("/containers/c1"),
            post("/containers/create?name=c1", body()).keep(c="Id"),
            post("/containers/c1/start"),
            post("/networks/n1/connect", {"Container": "c1"}),
            post("/networks/prune"),
            delete("/networks/n1"),
            get("/networks/n1"),
        ),
        (*_C1, *reversed(_NETS)),
    ),
)  # fmt: skip

VOLUMES = (
    Scenario(
        "volumes/made",
        (
            get("/volumes"),
            post("/volumes/create", {"Name": "v1", "Labels": {"a": "b"}, "DriverOpts": {}}),
            post("/volumes/create", {"Name": "v1"}),
            post("/volumes/create", {"Name": "v2", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}}),
            post("/volumes/create", {"Name": "v3", "DriverOpts": {"wrong": "x"}}),
            post("/volumes/create", {"Name": "a b"}),
            post("/volumes/create", {"Name": "x"}),
            post("/volumes/create", {}).keep(v="Name"),
            get("/volumes/v1"),
            get("/volumes/v2"),
            get("/volumes/$v"),
            get("/volumes/nothing"),
            post("/containers/create?name=c1", body(host={"Binds": ["v1:/v"]})).keep(c="Id"),
            *(
                get("/volumes?" + query)
                for query in (
                    filters(name="v1"), filters(name="v"), filters(driver="local"), filters(driver="other"),
                    filters(label="a"), filters(label="a=c"), filters(dangling="1"), filters(dangling="false"),
                    filters(dangling="x"), filters(wrong="x"),
                )
            ),
            delete("/volumes/v1"),
            delete("/volumes/v1?force=1"),
            delete("/volumes/nothing"),
            delete("/volumes/nothing?force=1"),
            post("/volumes/prune?" + filters(label="nothing")),
            post("/volumes/prune?" + filters(wrong="x")),
            post("/volumes/prune"),
            get("/volumes"),
            delete("/containers/c1"),
            delete("/volumes/v1"),
        ),
        (*_C1, delete("/volumes/v1"), delete("/volumes/v2"), post("/volumes/prune")),
    ),
)  # fmt: skip

SCENARIOS = (*EXECS, *COPIES, *IMAGES, *NETWORKS, *VOLUMES)
