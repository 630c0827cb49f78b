"""A program with a scheduler of its own inside: `sudo python box.py DIRECTORY`."""

import asyncio
import sys

import sagong
from sagong.contracts.scheduler import Question, Scheduler


async def main(directory: str) -> None:
    """Ten lines: start a kernel with one plugin, call it, replace it while it runs, and end."""
    units = {"scheduler": {"plugin": "scheduler_binpack"}}
    async with sagong.platform(directory, units=units) as box:
        scheduler = await box.use(Scheduler)
        print(await scheduler.place(Question(pods=(), nodes=())))
        async for step in box.swap("scheduler", "kube"):
            print(step)
        print(await scheduler.place(Question(pods=(), nodes=())))


asyncio.run(main(sys.argv[1]))
