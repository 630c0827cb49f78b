"""The plugin's class: the methods of slot `network`, and what happens at start."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from sagong.contracts.network import (
    ConnectRequest,
    CountersList,
    CountersQuery,
    DisconnectRequest,
    JoinRequest,
    Network,
    NetworkList,
    NetworkRef,
    Rules,
    Sandbox,
    SandboxList,
    SandboxRef,
)
from sagong.errors import FailedPrecondition, Internal, NotFound
from sagong.failures import no_room
from sagong.host import Host
from sagong_network_bridge.bridges import Bridges
from sagong_network_bridge.cells import Cell, Cells, is_veth
from sagong_network_bridge.counting import counted
from sagong_network_bridge.crossings import Crossings
from sagong_network_bridge.doors import Doors
from sagong_network_bridge.elements import Content, interval_elements
from sagong_network_bridge.firewall import Firewall, Wanted
from sagong_network_bridge.forwarding import nameservers_of
from sagong_network_bridge.handover import Handover, packed, unpacked
from sagong_network_bridge.links import delete_link, links_of
from sagong_network_bridge.locksmith import USER
from sagong_network_bridge.loopback import Loopback
from sagong_network_bridge.names import Names
from sagong_network_bridge.namespaces import is_pinned
from sagong_network_bridge.neighbours import accept_bridges
from sagong_network_bridge.netlink import NETFILTER, ROUTE, Channel
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.parents import Parents
from sagong_network_bridge.pool import Pool
from sagong_network_bridge.ports import Ports
from sagong_network_bridge.reach import Reach
from sagong_network_bridge.records import Records, SandboxRecord
from sagong_network_bridge.routing import Routing
from sagong_network_bridge.sandboxes import Sandboxes, Tools
from sagong_network_bridge.settings import Settings
from sagong_network_bridge.subnets import private_pool6
from sagong_network_bridge.translation import hold_translation
from sagong_network_bridge.vigil import Vigil

__all__ = ["NetworkBridge"]

T = TypeVar("T")
_THREADS = 2
_GRACE = 1.0


class NetworkBridge:
    """Networks as bridges, sandboxes as network namespaces, one table of nftables."""

    def __init__(self, host: Host) -> None:
        self._host = host
        settings = host.config(Settings).check()
        if not settings.pool6:
            settings = replace(settings, pool6=private_pool6(_machine_id()))
        self._settings = settings
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="network")
        self._route = Channel(ROUTE)
        self._filter = Channel(NETFILTER, large=True)
        self._records = Records(host.data, host.run)
        self._pins = host.root / "netns"
        self._cells = cells = Cells(settings.prefix, self._pins, Doors(host.deputy()), self._route)
        self._pool = Pool(
            cells,
            self._run,
            host.log,
            size=settings.pool_size,
            most=settings.pool_most,
            seconds=settings.pool_seconds,
        )
        self._bridges = Bridges(settings.prefix, self._route, host.data / "sysctls")
        parents = Parents(settings.prefix, self._route)
        self._networks = Networks(settings, self._records, self._bridges, parents, self._run)
        self._ports = Ports(settings.first_port, settings.last_port)
        self._firewall = Firewall(self._filter, settings.prefix, host.log)
        self._loopback = Loopback(host.log)
        self._crossings = Crossings(self._ports, settings.visitors, host.log, host.spawn)
        nameservers = settings.nameservers
        self._names = Names(nameservers, host.log, self._reopen, host.spawn)
        self._sandboxes = Sandboxes(
            self._networks,
            self._ports,
            Tools(
                cells=cells,
                pool=self._pool,
                firewall=self._firewall,
                names=self._names,
                records=self._records,
                loopback=self._loopback,
                crossings=self._crossings,
                host=self._route,
                run=self._run,
            ),
            machine=bool(nameservers) or _reachable_nameservers(),
        )
        self._reach = Reach(settings.prefix, self._route, host.log)
        self._routing = Routing(
            self._networks,
            self._firewall,
            self._reach,
            self._records,
            self._run,
            self._sandboxes.reflect,
        )
        self._vigil = Vigil(self._firewall.table, self._restore_firewall, _notices(host))
        self._given = Handover()
        self._succeeded = False

    async def _run(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Do blocking work in a thread; when cancelled its end is awaited, so nothing is lost."""
        loop = asyncio.get_running_loop()
        call = functools.partial(function, *arguments, **named)
        future = loop.run_in_executor(self._executor, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._discarded)
            raise

    def _discarded(self, future: asyncio.Future[Any]) -> None:
        """A result that nobody waits for any more: namespaces are let go, an error is forgotten."""
        if future.cancelled() or future.exception() is not None:
            return
        result = future.result()
        if isinstance(result, list):
            self._cells.discard([cell for cell in result if isinstance(cell, Cell)])

    async def restore(self, state: bytes) -> None:
        """Take over from a predecessor that has exported."""
        self._given = unpacked(state) or Handover()

    async def start(self) -> None:
        """Find what a predecessor left, finish it, and go on; strays are swept beside the first calls.

        Nothing is done here that callers needn't wait for: they do wait.
        """
        # First, so that no change of the rules is missed after they were compared.
        self._vigil.begin()
        given, self._given = self._given, Handover()
        await self._networks.start(self._route, given.bridges)
        strays = self._adopt(given.sandboxes)
        parts = await self._routing.restore()
        parts["networks"] = Wanted(self._networks.content())
        parts["settings"] = Wanted(self._setting_content())
        parts["sandboxes"] = Wanted(self._sandbox_content())
        self._firewall.install(parts, given.installed)
        hold_translation(self._filter, self._settings.prefix, self._host.log)
        self._host.spawn(self._sandboxes.resume_names(), "names of adopted sandboxes")
        self._host.spawn(self._hold_ports(), "published ports of adopted sandboxes")
        self._host.spawn(self._open_loopback(), "published ports on [::1]")
        self._host.spawn(self._sweep(strays), "what belongs to nobody")
        if self._settings.pool_size:
            self._host.spawn(self._pool.refill(), "namespaces in advance")

    def _adopt(self, given: tuple[SandboxRecord, ...]) -> list[Path]:
        """Adopt the predecessor's sandboxes, from records if it was killed; pins of no sandbox."""
        for record in given or list(self._records.sandboxes()):
            if record.sandbox.mode == "host" or is_pinned(Path(record.sandbox.path)):
                self._sandboxes.adopt(record)
            else:
                # The namespace went with a reboot or with its mount: nothing of it is left.
                self._records.drop_sandbox(record.sandbox.id)
        pins = {record.pin for record in self._sandboxes.register.all()}
        self._pins.mkdir(mode=0o755, parents=True, exist_ok=True)
        mine = f"{self._settings.prefix}-"
        with os.scandir(self._pins) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.name.startswith(mine) and entry.name.removesuffix(USER) not in pins
            ]

    async def _hold_ports(self) -> None:
        async for _ in self._ports.reserve():
            self._sandboxes.cross()

    async def _open_loopback(self) -> None:
        """The predecessor's program goes on until it has been tidied up."""
        self._loopback.start()
        self._loopback.put(self._sandboxes.shortcuts())

    async def _sweep(self, pins: list[Path]) -> None:
        """Take away what a predecessor had and nobody knows: namespaces, bridges, interfaces."""
        await self._run(self._befriend)
        await self._run(self._cells.drop, pins)
        await self._networks.sweep()
        await self._lead()
        await self._sweep_links()

    async def _lead(self) -> None:
        """Virtual addresses by a bridge that is there; what fails now is done with the next rules."""
        try:
            await self._routing.lead()
        except OSError as error:
            self._host.log.warning("routes to virtual addresses: %s", error)

    async def _sweep_links(self) -> None:
        """Interfaces of no sandbox, unless they are going already: deleting one takes 26 ms."""
        await asyncio.sleep(_GRACE)
        strays = [link.name for link in links_of(self._route) if self._is_stray(link.name)]
        await asyncio.sleep(_GRACE)
        for name in strays:
            if self._is_stray(name):
                with contextlib.suppress(OSError):
                    await self._run(self._route.send, [delete_link(name)])

    def _is_stray(self, name: str) -> bool:
        if not is_veth(name, self._settings.prefix) or self._pool.has(name):
            return False
        return not any(name in r.veths.values() for r in self._sandboxes.register.all())

    def _setting_content(self) -> Content:
        visitors = self._settings.visitors or ("0.0.0.0/0", "::/0")
        return {f"visitors{v}": interval_elements(visitors, v) for v in (4, 6)}

    def _sandbox_content(self) -> Content:
        found: Content = {}
        for piece in self._sandboxes.pieces():
            found.setdefault(piece.set, {})[piece.key, False] = piece.data
        return found

    def _befriend(self) -> None:
        if not self._settings.open_forward:
            return
        names = [record.bridge for record in self._networks.records()]
        with contextlib.suppress(OSError):
            outgoing = self._settings.open_forward == "outgoing"
            accept_bridges(self._filter, self._settings.prefix, names, outgoing=outgoing)

    def _restore_firewall(self, *, ours: bool, lost: bool) -> None:
        """Somebody flushed our table, or began to drop what is forwarded."""
        if ours or (lost and not self._firewall.stands()):
            self._host.log.warning("the firewall was removed by somebody; it is made anew")
            self._firewall.reinstall()
        self._befriend()

    async def _reopen(self, identity: str) -> list[Any]:
        return await self._sandboxes.reopened(identity)

    def busy(self) -> bool:
        """Whether there are sandboxes: their ports are held, their names answered by this process."""
        return self._sandboxes.busy

    async def export(self) -> bytes:
        """All that a successor would have to find out."""
        self._succeeded = True
        return packed(
            Handover(
                sandboxes=tuple(self._sandboxes.register.all()),
                bridges=self._networks.indexes(),
                installed=self._firewall.installed(),
            )
        )

    async def stop(self) -> None:
        """Change nothing any more; networks and sandboxes stay."""
        self._vigil.end()
        await self._sandboxes.close()
        if not self._succeeded:
            await self._release()

    async def tidy(self) -> None:
        """A successor serves: let go of what it has anew."""
        if self._succeeded:
            await self._release()

    async def _release(self) -> None:
        await self._pool.close()
        self._names.close()
        self._crossings.close()
        self._ports.close()
        self._loopback.close()
        self._executor.shutdown(wait=True)
        for channel in (self._route, self._filter):
            channel.close()

    async def purge(self) -> None:
        """Take away sandboxes, bridges and firewall rules: the machine is as before."""
        self._vigil.end()
        for record in self._sandboxes.register.all():
            await self._sandboxes.leave(record.sandbox.id)
        await self._sandboxes.wait_dropped()
        await self._pool.close()
        await self._run(self._reach.remove)
        await self._networks.purge()
        await self._run(self._firewall.remove)
        await self._run(accept_bridges, self._filter, self._settings.prefix, ())

    async def create(self, network: Network) -> Network:
        """Make a network."""
        try:
            made = await self._networks.create(network, self._route)
        except OSError as error:
            what = f"network {network.name}"
            raise no_room(what, error) or Internal(f"{what}: {error}") from error
        self._firewall.replace("networks", Wanted(self._networks.content()))
        await self._routing.take_in()
        self._befriend()
        await self._lead()
        return made

    async def delete(self, network: NetworkRef) -> None:
        """Remove a network."""
        if self._sandboxes.register.users(network.id):
            await self._networks.delete(network.id, self._sandboxes.register.users(network.id))
        await self._pool.drop(network.id)
        if await self._networks.delete(network.id, self._sandboxes.register.users(network.id)):
            self._firewall.replace("networks", Wanted(self._networks.content()))
            self._befriend()
            await self._lead()

    async def networks(self) -> NetworkList:
        """All networks."""
        return NetworkList(networks=tuple(self._networks.all()))

    async def join(self, request: JoinRequest) -> Sandbox:
        """Make a sandbox."""
        return await self._sandboxes.join(request)

    async def leave(self, sandbox: SandboxRef) -> None:
        """Remove a sandbox."""
        await self._sandboxes.leave(sandbox.id)

    async def sandboxes(self) -> SandboxList:
        """All sandboxes."""
        return SandboxList(sandboxes=tuple(r.sandbox for r in self._sandboxes.register.all()))

    async def inspect(self, sandbox: SandboxRef) -> Sandbox:
        """One sandbox."""
        return self._sandboxes.register.get(sandbox.id).sandbox

    async def counters(self, query: CountersQuery) -> CountersList:
        """What sandboxes have received and sent."""
        wanted = self._sandboxes.register.some(query.ids)
        found = [await self._run(counted, self._cells, record.sandbox) for record in wanted]
        return CountersList(sandboxes=tuple(s for s in found if s is not None))

    async def connect(self, request: ConnectRequest) -> Sandbox:
        """Put a sandbox on a further network."""
        return await self._sandboxes.memberships.connect(request.id, request.attachment)

    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        """Take it off one."""
        return await self._sandboxes.memberships.disconnect(
            request.id, request.network, force=request.force
        )

    async def apply(self, rules: Rules) -> None:
        """Make service routing and policies be these."""
        try:
            await self._routing.apply(rules)
        except OSError as error:
            raise FailedPrecondition(f"rules {rules.generation}: {error}") from error


def _notices(host: Host) -> socket.socket | None:
    """Where changes of the machine's rules are told, also while this plugin sleeps."""
    try:
        return host.listener("rules")
    except NotFound:
        return None


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES):
            raise
        return "no machine id"


def _reachable_nameservers() -> bool:
    """Whether containers can use the machine's nameservers: those on loopback they can't reach."""
    try:
        found = nameservers_of(Path("/etc/resolv.conf").read_text())
    except OSError:
        return False
    return any(not (address.startswith("127.") or address == "::1") for address in found)
