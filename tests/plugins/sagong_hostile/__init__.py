"""A plugin that attacks from inside its sandbox: its class waits to be told what to try."""

from __future__ import annotations

import asyncio
import os
import signal

from hostile_contract import Attack, Finding, Noise

from sagong.host import Host
from sagong_hostile.machine import ATTACKS
from sagong_hostile.noise import FLOODS
from sagong_hostile.wire import BUS_ATTACKS

__all__ = ["HostilePlugin"]


def _let_loose(name: str, facts: dict[str, str]) -> int:
    """In a process of its own, which outlives this one if it can; its pid."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            FLOODS[name](facts)
        finally:
            os._exit(1)
    return pid


class HostilePlugin:
    """Does as it is told, and no longer as the kernel tells it when it is `stubborn`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stubborn = False
        self._burden = b""

    async def attack(self, attack: Attack) -> Finding:
        """In a thread, so that it answers meanwhile."""
        known = {**ATTACKS, **BUS_ATTACKS}
        return Finding(found=await asyncio.to_thread(known[attack.name], self._facts(attack)))

    async def begin(self, attack: Attack) -> None:
        """Without end; some of these end the process."""
        if attack.name == "stubborn":
            self._stubborn = True
        elif attack.name == "hang":
            while True:
                pass
        elif attack.name == "burden":
            self._burden = bytes(48 << 20)
        elif attack.name == "events":
            self._host.spawn(self._emit(), "noise")
        elif attack.again:
            self._host.spawn(self._besiege(attack), "siege")
        else:
            _let_loose(attack.name, self._facts(attack))

    async def _besiege(self, attack: Attack) -> None:
        while True:
            pid = _let_loose(attack.name, self._facts(attack))
            await asyncio.to_thread(os.waitpid, pid, 0)

    async def drain(self) -> None:
        """A stubborn one never ends."""
        await self._sulk()

    async def export(self) -> bytes:
        """More than anybody wants."""
        return self._burden

    async def restore(self, state: bytes) -> None:
        """It is of no use."""
        self._host.log.info("restored", extra={"size": len(state)})

    async def stop(self) -> None:
        """A stubborn one never ends."""
        await self._sulk()

    async def _sulk(self) -> None:
        while self._stubborn:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def _emit(self) -> None:
        while True:
            for _ in range(1000):
                self._host.emit(Noise(text="x" * 100))
            await asyncio.sleep(0)

    def _facts(self, attack: Attack) -> dict[str, str]:
        own = {"data": str(self._host.data), "run": str(self._host.run)}
        return {**own, "root": str(self._host.root), **attack.facts}
