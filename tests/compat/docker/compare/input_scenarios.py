"""What endpoints say to odd and wrong input, and what came with API 1.44 and 1.45."""

# ruff: noqa: E501 (rows of a table)
from __future__ import annotations

from tests.compat.docker.compare.container_scenarios import body
from tests.compat.docker.compare.dialogue import (
    Scenario,
    delete,
    filters,
    get,
    head,
    post,
    put,
)

__all__ = ["SCENARIOS"]

_GONE = (delete("/containers/c1?force=1&v=1"), delete("/containers/c2?force=1&v=1"))
_JSON = {"Content_Type": "application/json"}
_TEXT = {"Content_Type": "text/plain"}

SCENARIOS = (
    Scenario(
        "input/bodies",
        tuple(
            step
            for path in ("/containers/c1/exec", "/containers/c1/update", "/networks/create", "/volumes/create", "/networks/n/connect", "/networks/n/disconnect", "/auth")
            for step in (
                post(path, b"{").with_headers(**_JSON),
                post(path, b"{}").with_headers(**_TEXT),
                post(path, b'{"Name": 5}').with_headers(**_JSON),
            )
        ),
    ),
    Scenario(
        "input/containers",
        (
            post("/containers/create?name=c1", body()).keep(c="Id"),
            post("/containers/create?name=a", body()),
            post("/containers/create?name=-x", body()),
            post("/containers/create?name=/c1", body()),
            post("/containers/create?name=c2&platform=linux/s390x", body()),
            post("/containers/create?name=c2&platform=nonsense", body()),
            post("/containers/create?name=c2&platform=a/b/c/d", body()),
            post("/containers/create?name=c2", {"Image": "UPPER:x", "Cmd": ["true"]}),
            post("/containers/create?name=c2", {"Image": "$image_id", "Cmd": ["true"]}).keep(d="Id"),
            get("/containers/c2/json"),
            get("/containers/$c/json"),
            get("/containers/json?all=1&filters=" + "%7B%7D"),
            get("/containers/json?all=1&" + filters(id="zzz")),
            get("/containers/json?all=1&" + filters(ancestor=["$image", "nothing"])),
            post("/containers/c1/start?detachKeys=ctrl-x"),
            get("/containers/c1/top?ps_args=-o%20comm"),
            get("/containers/c1/top?ps_args=-o%20pid,comm"),
            get("/containers/c1/logs"),
            get("/containers/c1/logs?stdout=0&stderr=0"),
            get("/containers/c1/logs?stdout=1&tail=-1"),
            get("/containers/c1/changes"),
            post("/containers/c1/resize?h=1"),
            post("/containers/c1/wait?condition=nonsense"),
            post("/containers/c1/stop?signal=NONSENSE"),
            post("/containers/c1/kill?signal="),
            post("/containers/c1/rename"),
            delete("/containers/c1?link=1"),
            delete("/containers/c2?v=nonsense"),
            head("/containers/c1/archive"),
            put("/containers/c1/archive?path=/tmp", b"nonsense"),
            get("/containers/c1/archive"),
            post("/containers/c1/attach?detachKeys=nonsense-keys&stdout=1"),
        ),
        _GONE,
        since=44,
    ),
    Scenario(
        "input/of-1.44",
        (
            post("/networks/create", {"Name": "one", "IPAM": {"Config": [{"Subnet": "10.221.0.0/24"}]}}).keep(n="Id"),
            post("/networks/create", {"Name": "two"}).keep(m="Id"),
            post("/containers/create?name=c1", {**body(host={"NetworkMode": "one"}), "NetworkingConfig": {"EndpointsConfig": {"one": {"MacAddress": "02:42:0a:dd:00:09", "Aliases": ["al"]}, "two": {}}}}).keep(c="Id"),
            post("/containers/c1/start"),
            get("/containers/c1/json"),
            post("/containers/create?name=c2", {**body(host={"NetworkMode": "one"}), "NetworkingConfig": {"EndpointsConfig": {"one": {"MacAddress": "nonsense"}}}}),
            post("/containers/create?name=c2", {**body(host={"NetworkMode": "one"}), "NetworkingConfig": {"EndpointsConfig": {"one": {"IPAMConfig": {"IPv4Address": "10.222.0.5"}}}}}),
            post("/containers/create?name=c2", body(Healthcheck={"Test": ["CMD", "true"], "StartInterval": 10})),
            post("/containers/create?name=c2", body(Healthcheck={"Test": ["CMD", "true"], "StartInterval": 2000000000, "StartPeriod": 3000000000})),
            get("/containers/c2/json"),
            delete("/containers/c2"),
            post("/containers/create?name=c2", body(host={"Mounts": [{"Type": "bind", "Source": "$shared", "Target": "/s", "BindOptions": {"ReadOnlyNonRecursive": True}, "ReadOnly": True}]})),
            get("/containers/c2/json"),
            delete("/containers/c2"),
            post("/containers/create?name=c2", body(host={"Mounts": [{"Type": "volume", "Source": "iv", "Target": "/s", "VolumeOptions": {"Subpath": "../x"}}]})),
            post("/containers/create?name=c2", body(host={"Mounts": [{"Type": "volume", "Source": "iv", "Target": "/s", "VolumeOptions": {"Subpath": "/x"}}]})),
            post("/containers/create?name=c2", body(host={"Mounts": [{"Type": "volume", "Source": "iv", "Target": "/s", "VolumeOptions": {"Subpath": "x"}}]})),
            post("/containers/c2/start").silent(),
            get("/networks/one"),
            get("/images/json?shared-size=1"),
            get("/images/json?" + filters(until="1h")),
            get("/images/json?" + filters(until="nonsense")),
            get("/system/df?type=volume&type=image"),
            get("/system/df?type=nonsense"),
            get("/events?until=1&since=1&" + filters(type="nonsense")),
        ),
        (*_GONE, delete("/networks/one"), delete("/networks/two"), delete("/volumes/iv")),
        since=44,
    ),
    Scenario(
        "input/objects",
        # Without drivers that nobody has: Docker looks for their plugins for a quarter of a minute.
        (
            post("/networks/create", {"Name": "in", "Scope": "swarm"}),
            post("/networks/create", {"Name": "in", "Driver": "host"}),
            post("/networks/create", {"Name": "in", "Driver": "null"}),
            post("/networks/create", {"Name": "in", "IPAM": {"Config": [{"Subnet": "10.1.2.3/24"}]}}),
            post("/networks/create", {"Name": "in", "IPAM": {"Config": [{"Subnet": "10.223.0.0/24", "IPRange": "10.224.0.0/25"}]}}),
            post("/networks/create", {"Name": "in", "IPAM": {"Config": [{"Subnet": "10.223.0.0/24", "IPRange": "10.0.0.0/8"}]}}),
            post("/networks/create", {"Name": "in", "IPAM": {"Config": [{"Subnet": "10.223.0.0/24", "AuxiliaryAddresses": {"x": "10.1.1.1"}}]}}),
            post("/networks/create", {"Name": "in", "IPAM": {"Config": [{"Subnet": "10.223.0.0/24", "Gateway": "x"}]}}),
            post("/networks/create", {"Name": "in/valid"}),
            post("/networks/prune?" + filters(until="nonsense")),
            get("/networks/in?scope=nonsense"),
            post("/volumes/create", {"Name": "in/v"}),
            post("/volumes/create", {"Name": "in_v", "DriverOpts": {"type": "tmpfs"}}),
            post("/volumes/create", {"Name": "in_v", "DriverOpts": {"device": "x"}}),
            get("/volumes?" + filters(dangling="nonsense")),
            delete("/volumes/in_v?force=nonsense"),
            post("/volumes/prune?" + filters(all="nonsense")),
            post("/images/prune?" + filters(dangling="nonsense")),
            post("/images/prune?" + filters(until="nonsense")),
            post("/images/nothing/tag?repo=x"),
            post("/images/$image/tag?repo=x&tag=-bad"),
            post("/images/$image/tag?repo=x@sha256:1"),
            delete("/images/nothing"),
            get("/images/nothing/history"),
            get("/images/nothing/json"),
            get("/images/get?names=nothing"),
            get("/images/search?term=x&limit=1000"),
            post("/images/create?fromImage=UPPER"),
            post("/images/create?fromImage=x&tag=-bad"),
            post("/images/nothing/push?tag=x"),
            post("/commit?container="),
            post("/commit?container=nothing"),
            get("/exec/nothing/json"),
            post("/exec/nothing/start", {"Detach": True}),
        ),
    ),
)  # fmt: skip
