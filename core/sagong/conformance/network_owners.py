"""Checks of slot `network` about user namespaces that own a sandbox's network namespace."""

from __future__ import annotations

from msgspec.structs import replace

from sagong.conformance.network_lab import NetworkLab
from sagong.conformance.refusals import raises
from sagong.contracts.network import JoinRequest, SandboxRef, UserNamespace
from sagong.errors import InvalidArgument

MAP = ((0, 231072, 65536), (65536, 400000, 10))
OWNER = UserNamespace(uid_map=MAP, gid_map=((0, 231072, 1000),))


async def check_a_user_namespace_owns_the_sandbox(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network() as network:
        request = replace(lab.request("owned", network), user_namespace=OWNER)
        for wanted in (
            request,
            JoinRequest(id=lab.name("alone"), mode="none", user_namespace=OWNER),
        ):
            sandbox = await lab.networks.join(wanted)
            assert sandbox.user_path, "it is not said where the user namespace is"
            assert await lab.probe.owner(sandbox) == MAP, "it belongs to another user namespace"
            assert await lab.networks.join(wanted) == sandbox
            await lab.leave(sandbox)
        free = await lab.join("free", network)
        assert not free.user_path
        assert await lab.probe.owner(free) == ()


async def check_an_owned_sandbox_survives_a_crash(lab: NetworkLab) -> None:
    if lab.probe is None or lab.restart is None:
        return
    async with lab.network() as network:
        request = replace(lab.request("owned", network), user_namespace=OWNER)
        sandbox = await lab.networks.join(request)
        lab.networks = await lab.restart()
        assert await lab.networks.inspect(SandboxRef(id=sandbox.id)) == sandbox
        assert await lab.probe.owner(sandbox) == MAP, "the user namespace went with the crash"


async def check_wrong_user_namespaces_are_refused(lab: NetworkLab) -> None:
    async with lab.network() as network:
        wrong = (
            JoinRequest(id=lab.name("x"), mode="host", user_namespace=OWNER),
            *(
                replace(lab.request("x", network), user_namespace=replace(OWNER, uid_map=lines))
                for lines in ((), ((0, 1, 0),), ((-1, 1, 1),), ((0, 1 << 32, 1),))
            ),
        )
        for request in wrong:
            with raises(InvalidArgument, f"{request} was joined"):
                await lab.networks.join(request)
        assert lab.name("x") not in await lab.ids()
