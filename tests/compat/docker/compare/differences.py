"""Where our engine answers otherwise than Docker Engine 20.10 or 26.1, and why.

An unlisted difference fails. Patterns are of the shell: scenario, step (method and path), path within
the answer, and the version of Docker Engine. Where these two and later ones differ, ours is as a later
one.
"""

# ruff: noqa: E501 (rows of a table)
from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.compat.docker.compare.shape import Difference

__all__ = ["ACCEPTED", "Accepted", "reason"]

ANY = "*"


@dataclass(frozen=True)
class Accepted:
    """One kind of difference that stays."""

    path: str
    why: str
    step: str = ANY
    scenario: str = ANY
    of: str = ANY

    def covers(self, scenario: str, found: Difference, engine: str) -> bool:
        """Whether it speaks of this one, with that version of Docker Engine."""
        return (
            fnmatchcase(engine, self.of)
            and fnmatchcase(found.path, self.path)
            and _matches(found.step, self.step)
            and fnmatchcase(scenario, self.scenario)
        )


def _matches(step: str, pattern: str) -> bool:
    """Brackets of JSON are no sets of characters here."""
    return fnmatchcase(step, pattern.replace("[", "[[]"))


_20, _26 = "20.*", "26.*"
_NEWER = "as Docker Engine 28 answers"
_GO = "20.10 passes on the words of Go's libraries; Docker 28 has words of its own"

ACCEPTED = (
    # What the engines are.
    Accepted(".body.*Version", "another version of another engine", "GET /version"),
    Accepted(".body.*GitCommit", "another engine", "GET /version"),
    Accepted(".body.Platform.Name", "the engine's name", "GET /version"),
    Accepted(".body.Components.[123].*", "no containerd, runc and docker-init", "GET /version"),
    Accepted(".body.BridgeNfIp*tables", _NEWER + ": loaded when it is needed, so false, and not told from API 1.50 on", "GET /info"),
    Accepted(".body.ServerVersion", "another version", "GET /info"),
    Accepted(".body.ID", "an id of its own: " + _NEWER + ", a UUID", "GET /info"),
    Accepted(".body.Init*", "an init of its own", "GET /info"),
    Accepted(".body.ContainerdCommit.*", "no containerd", "GET /info"),
    Accepted(".body.RuncCommit.*", "no runc unless one is configured", "GET /info"),
    Accepted(".body.Runtimes.*", "the runtimes that are there", "GET /info"),
    Accepted(".body.LiveRestoreEnabled", "containers outlive the engine", "GET /info"),
    Accepted(".body.N[FG]*", "figures of the process", "GET /info"),
    Accepted(".body.Plugins.*", "the drivers that are there", "GET /info"),
    Accepted(".body.SecurityOptions*", _NEWER + ": builtin is the profile's name", "GET /info"),
    Accepted(".body.DockerRootDir", "its own directory", "GET /info"),
    Accepted(".body.KernelMemory*", "removed in Docker 23", "GET /info"),
    Accepted(".body.CDISpecDirs", "came with Docker 25", "GET /info", of=_20),
    Accepted(".body.ExecutionDriver", "removed in Docker 25", "GET /info"),
    Accepted(".body.RegistryConfig.*", "removed or added since: " + _NEWER, "GET /info"),
    Accepted(".header.builder-version", "came with API 1.42", "* /_ping"),
    Accepted(".header.swarm", "came with API 1.42", "* /_ping", of=_20),
    Accepted(".body*", _NEWER + ": errors are JSON", ANY, "system/versions"),
    Accepted(".header.*", _NEWER + ": errors are JSON with all headers", ANY, "system/versions"),
    Accepted(".header.docker-experimental", "on all answers", ANY, "system/absent"),
    Accepted(".header.ostype", "on all answers", ANY, "system/absent"),
    # Containers as they are shown.
    Accepted(".body.HostConfig.KernelMemory*", "removed in Docker 23", of=_20),
    Accepted("*.HostConfig.NetworkMode", "default is called bridge from Docker 26 on", of=_20),
    Accepted(".body.HostConfig.MaskedPaths*", "more paths are masked: " + _NEWER),
    Accepted(".body.HostConfig.RestartPolicy.Name", "no restart is called no: " + _NEWER, of=_20),
    Accepted(".body.HostConfig.PortBindings", "{} for none: " + _NEWER),
    Accepted(".body.HostConfig.Runtime", "missing in 20.10 until the first start", of=_20),
    Accepted(".body.GraphDriver.Data.MergedDir", "there is none until a container runs"),
    Accepted(".body.NetworkSettings.Sandbox*", "an ended container has no sandbox"),
    Accepted(".body.State.Error", "Docker's text names its shim and runc"),
    Accepted(".body.State.Health.Log*", "a probe more or less"),
    Accepted(".body.State.Health.FailingStreak", "a probe that the end cuts off fails, or is forgotten", "GET */c1/json", "containers/every-field"),
    Accepted("*.Created", "20.10 counts from when it began", "GET /containers/json*"),
    Accepted(".header.content-type", _NEWER, "GET /containers/*/logs*", of=_20),
    Accepted(".body.0.Mounts.0.Source", "20.10 forgets it in a list of what never ran", "GET /containers/json*"),
    Accepted(".header.*", "on all answers", "POST /containers/*/attach*"),
    Accepted(".body*", "20.10 loses what is sent to a terminal before the start", "POST /containers/c2/attach*", "containers/output"),
    Accepted(".body.blkio_stats.*", "null for none: " + _NEWER + " with cgroup v2", "GET */stats*"),
    Accepted(".body.memory_stats.*", "figures of the moment, and more of them", "GET */stats*"),
    Accepted(".body.*cpu_stats.*", "figures of the moment; per processor they are of cgroup v1 alone", "GET */stats*"),
    Accepted(".body.networks.eth0.*", "figures of the moment", "GET */stats*"),
    Accepted("*", "20.10 does not say that a stream is JSON", "GET /containers/c1/stats"),
    Accepted(".body.BuildCache", "[] for none: " + _NEWER, "GET /system/df", of=_20),
    # Images and events.
    Accepted("*.Attributes.imageRef", "with its tag: " + _NEWER, "GET /events*", of=_20),
    Accepted("*.Attributes.name", "with its tag: " + _NEWER, 'GET /events*["image"]*', of=_20),
    Accepted("*", "20.10 mounts a volume once more for a commit, an export and a copy", 'GET /events*["volume"]*'),
    Accepted("*", "the same events in the orders above", 'GET /events*"wrong"*'),
    Accepted(".body.Processes.*", "figures of the moment", "GET */top*"),
    Accepted("*", "20.10 has the host's ps complain", "GET */top?ps_args=wrong"),
    # Execs and copies.
    Accepted(".body.ExitCode", "127 for what is not found: " + _NEWER, "GET /exec/*/json", "execs/run"),
    Accepted(".status", "keys that are none are the client's fault: " + _NEWER, "POST */exec", "execs/run"),
    Accepted(".body.message", _NEWER, "POST /exec/*/start", "execs/run"),
    Accepted(".body.message", "which path it was", "*/archive*"),
    Accepted(".status", "the client's fault is 400: " + _NEWER, "*/archive?path=/etc/passwd/"),
    Accepted(".status", "the client's fault is 400: " + _NEWER, "PUT */archive*", "copies/out-and-in"),
    Accepted(".status", "what is read-only is 403: " + _NEWER, "PUT */archive?path=/tmp", "copies/read-only"),
    # Images.
    Accepted(".body.ContainerConfig.*", "gone in Docker 25: the same as Config", "GET /images/*/json", of=_20),
    Accepted(".body.Container", "gone in Docker 25", "GET /images/*/json", of=_20),
    Accepted(".body.DockerVersion", "not said of images: " + _NEWER, "GET /images/*/json"),
    Accepted(".body.Config.*", "an image is not of one container: " + _NEWER, "GET /images/*/json"),
    Accepted(".body.GraphDriver.Data*", "layers are shown by history", "GET /images/*/json"),
    Accepted(".body.Metadata.LastTagTime", "loading a name is tagging", "GET /images/*/json"),
    Accepted(".body.Author", "whose engine committed it", "GET /images/*/json", "images/made"),
    Accepted("*", "no image has such a name: docker inspect asks for all kinds", "GET /images/UPPER/json", of=_20),
    Accepted(".body.message", _NEWER, "* /images/*", "images/*"),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "POST /images/*/tag*", "images/tags"),
    Accepted(".body.message", _NEWER, "POST /commit*", of=_20),
    Accepted(".body*", "the words are the engine's own", "POST /images/load*"),
    Accepted(".body.1.error*", "the image is looked for before its registry is asked", "POST /images/made/push*"),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "POST /images/UPPER/push*"),
    Accepted("*", "20.10 wants credentials, be they empty", "POST /images/nothing/push*"),
    Accepted(".status", "the client's fault", 'GET /images/json*["*[*"]*'),
    Accepted(".body.message", "which pattern it was", 'GET /images/json*["*[*"]*'),
    Accepted(".body.0.RepoDigests", "[] for none: " + _NEWER, "GET /images/json*", of=_20),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "POST /commit?*", of=_20),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "POST /images/create*"),
    # Networks.
    Accepted(".status", "a client's fault is 400: " + _NEWER, "POST /networks/*"),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "GET /networks?*"),
    Accepted("*", "20.10 calls networks dangling that containers are on", 'GET /networks?*["custom"]*', "networks/joined"),
    Accepted(".body.NetworkSettings.Networks*", "20.10 keeps what a refused connection asked for", "GET /containers/c1/json", "networks/joined", of=_20),
    Accepted("*", "and can't start with it", "POST /containers/c1/start", "networks/joined", of=_20),
    Accepted(".body.Containers*", "and can't start with it", "GET /networks/n2", "networks/joined", of=_20),
    Accepted(".body.NetworkSettings.Networks.*.DNSNames*", "its names are of the time while it runs", "GET /containers/c1/json", "networks/joined", of=_26),
    Accepted("*.Options.com.docker.network.bridge.name", "its interface", "GET /networks*"),
    Accepted("*.Networks.n2.Gateway", "an internal network has none: " + _NEWER, "GET /containers/*", "networks/internal", of=_20),
    Accepted("*.IPAM.Config.0.Gateway", "Docker learns it with the first container", "GET /networks*"),
    Accepted(".body.message", _NEWER, "* /networks*"),
    # Volumes.
    Accepted(".body*.Options", "none is null: as 20.10 says when they were not given", "* /volumes*"),
    Accepted(".body*.Labels*", "anonymous volumes have Docker 23's label", "* /volumes*", of=_20),
    Accepted(".body.message", "what is known", "POST /volumes/create"),
    Accepted(".body.message", _NEWER, "GET /volumes?*", of=_20),
    Accepted(".body.message", _NEWER, "POST /volumes/prune?*", of=_20),
    # Errors.
    Accepted(".status", "a client's fault is 400: " + _NEWER, "GET /events?*=nonsense"),
    Accepted(".body.message", _GO, "GET /events?*=nonsense"),
    Accepted("*", "the registry can't be asked: 503, not a fault of the engine", "POST /auth"),
    Accepted(".status", "the registry can't be asked: 503", "GET /distribution/*"),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "GET /containers/json?filters=*"),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "POST /containers/prune?*", of=_20),
    Accepted(".body.message", "which request it was", "GET /distribution/*", of=_20),
    Accepted("*", "20.10 wants a timeout before it looks for the plugin", "POST /plugins/x/enable"),
    Accepted(".body.message", "the command is named, not containerd's shim", "POST /containers/ev4/start"),
    Accepted(".body.message", "the command is named, not containerd's shim", "POST /containers/*/start", "containers/refused-at-start"),
    Accepted(".status", "what the client asked for can't be: 400 or 409, not 500", "POST /containers/*/start", "containers/refused-at-start"),
    Accepted(".body.State.ExitCode", "127 and 126 as the command line shows them", "GET */json", "containers/refused-at-start"),
    Accepted(".body.*Path", "made before or after what failed", "GET */json", "containers/refused-at-start"),
    Accepted(".body.NetworkSettings.*NetworkID", "a network that was never joined", "GET */json", "containers/refused-at-start"),
    Accepted(".body.message", _NEWER, "GET */top*", "containers/life", of=_20),
    Accepted(".body.message", _GO, "GET *=x*"),
    Accepted(".*", "a container that is not there is 404", "GET *nobody*", "containers/lists", of=_20),
    Accepted(".body.message", _NEWER, "GET /containers/json?*wrong*", of=_20),
    Accepted(".body.message", _NEWER, 'GET /containers/json?*["x"]*'),
    Accepted("*", "docker.sock's users may ask for label! anywhere", "GET /containers/json?*label!*"),
    Accepted(".body.message", _GO, "GET /containers/json?filters=[]", of=_20),
    Accepted("*", "a filter may be one text", 'GET /containers/json?filters={"name":"c1"}'),
    Accepted(".body.Error", _NEWER + ": left out when there is none", "POST */wait*", of=_20),
    Accepted(".*", "an unknown condition is refused", "POST *wait?condition=wrong", of=_20),
    Accepted(".body.message", _NEWER, "DELETE /containers/*", "containers/life", of=_20),
    Accepted(".body.message", _NEWER, "POST /containers/*/kill*", of=_20),
    Accepted(".status", "the client's fault: " + _NEWER, "POST /containers/*/kill*", of=_20),
    Accepted(".body.message", _NEWER, "POST /containers/*/pause", of=_20),
    Accepted(".body.message", _NEWER, "POST /containers/*/exec"),
    Accepted(".status", "a conflict, not a fault of the engine", "POST /containers/*/unpause"),
    Accepted(".status", _NEWER + ": an exec of nobody is not made", "POST /containers/c1/exec", "execs/of-nobody"),
    Accepted(".body.*", _NEWER + ": an exec of nobody is not made", "POST /containers/c1/exec", "execs/of-nobody"),
    Accepted(".body.message", _NEWER, "POST /containers/c*", "input/what-is-missed-and-when"),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "*=x*"),
    Accepted(".body.message", _GO, "POST /containers/*/resize*"),
    Accepted(".body.message", _NEWER, "POST /containers/*/update", of=_20),
    Accepted(".body.message", _NEWER, "POST /containers/prune*", of=_20),
    Accepted(".body.message", _NEWER, "POST /containers/*/attach*"),
    Accepted(".*", "an error has a status and JSON: " + _NEWER, "POST /containers/nobody/attach*"),
    Accepted(".body.message", _NEWER, "POST /containers/create", "containers/refused"),
    Accepted(".status", "a client's fault is 400: " + _NEWER, "POST /containers/create", "containers/refused"),
    Accepted(".*", "refused when it is made, not when it starts or never: docs/reference/docker-cli.md", "POST /containers/create", "containers/refused"),
    Accepted("*", "refused when it is made, not when it starts", "POST /containers/create?name=c2", "containers/linked"),
    Accepted("*", "20.10 tells of an end before what is left with it, and makes a volume again that is there", "GET /events*", "system/events-in-one-order", of=_20),
    # Odd and wrong input.
    Accepted(".body.message", "Go's types have other names than ours", "*", "input/types"),
    Accepted(".status", "the client's fault", "POST /containers/c1/stop?t=*", "input/types"),
    Accepted(".status", "the client's fault", "GET /containers/json?limit=x", "input/types"),
    Accepted("*", "refused when it is given, not when it is written", "POST /containers/c1/update", "input/types"),
    Accepted("*", "20.10 has the host's ps complain", "GET */top?ps_args=-o comm"),
    Accepted(".status", "the client's fault, or a conflict", "*", "input/*"),
    Accepted(".body.*", "an error has a status and JSON: " + _NEWER, "POST /containers/c1/attach*", "input/containers"),
    Accepted(".body.message", _NEWER, "POST /volumes/prune?*", "input/objects"),
    Accepted(".body*", "20.10 does not know the filter", "POST /volumes/prune?*", "input/objects", of=_20),
    Accepted(".body.message", _NEWER, "*", "input/objects", of=_20),
    Accepted("*", "subnets and ranges that don't fit are refused: " + _NEWER, "POST /networks/create", "input/objects", of=_20),
    Accepted("*", "came with API 1.42", "PUT /volumes/*", of=_20),
    Accepted("*", "a slash would be a part of the path", "POST /networks/create", "input/objects", of=_26),
    Accepted(".body.*Path", "its files are those of mode none", "GET */json", "containers/without-a-network"),
    # What 20.10 has not or does not say, and what is of 26.1 alone.
    Accepted(".body.DriverStatus.*", "metacopy is told, too: " + _NEWER, "GET /info", of=_20),
    Accepted("*.execDuration", "came with Docker 24", "GET /events*", of=_20),
    Accepted("*.MacAddress", "what it will have, as Docker says since 25", "GET /containers/*json*", "containers/every-field", of=_20),
    Accepted("*.IPAM.Config", "null for none: " + _NEWER, "GET /networks*", of=_20),
    Accepted(".body*", "20.10 loses what is sent to a terminal before the start", "GET /containers/c2/logs*", "containers/output"),
    Accepted("*.DNSNames", "of API 1.44 and later alone", "GET /containers/json?all=1", "containers/least", of=_26),
    Accepted(".body.[in]*", "without id and name in 26.1: a fault of its own", "GET *one-shot=1", of=_26),
    Accepted("*", "a name that is none is refused", "POST /images/*/tag?repo=", of=_26),
)  # fmt: skip


def reason(scenario: str, found: Difference, engine: str) -> str:
    """Why a difference is accepted; "" if it is not."""
    return next((a.why for a in ACCEPTED if a.covers(scenario, found, engine)), "")
