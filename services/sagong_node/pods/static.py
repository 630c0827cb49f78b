"""Follows the directories of static pods, containers and archives; says which pods there shall be."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sagong.contracts.image import Images
from sagong.linux.inotify import DirectoryWatch
from sagong_node.pods.archives import Archives
from sagong_node.pods.container_file import read_container
from sagong_node.pods.manifests import Broken, StaticPod, read_pods
from sagong_node.pods.roster import Key, Roster
from sagong_node.pods.settings import PodSettings

__all__ = ["StaticFiles"]

_SETTLE = 0.05
_LARGEST = 1 << 20
_PODS, _CONTAINERS = ("yaml", "yml", "json"), ("toml", "yaml", "yml", "json")
# What makes a file another one: its number, size and time of change.
Version = tuple[int, int, int]
Reader = Callable[[bytes, Path], list[StaticPod]]


class StaticFiles:
    """`run` reads all, then again whenever a file has changed; nothing happens in between."""

    def __init__(
        self, settings: PodSettings, images: Images, roster: Roster, log: logging.Logger
    ) -> None:
        self._node = settings.name
        self._directories = {
            Path(text): reader
            for text, reader in (
                (settings.static_pods, self._read_pods),
                (settings.static_containers, self._read_container),
            )
            if text
        }
        self._packed = Path(settings.static_images) if settings.static_images else None
        self._images = images
        self._roster = roster
        self._log = log
        self._good: dict[Path, tuple[Version, list[StaticPod]]] = {}
        self._bad: dict[Path, Version] = {}
        self._clashes: set[tuple[Key, Path]] = set()

    async def run(self) -> None:
        """For ever; directories that are not there when this begins are not looked at."""
        every = [*self._directories, *([self._packed] if self._packed else [])]
        there = [path for path in every if path.is_dir()]
        for path in set(every) - set(there):
            self._log.info("%s is not there: make it and restart this unit, if it is wanted", path)
        if not there:
            return
        watch = DirectoryWatch(there)
        archives = None
        if self._packed in there:
            archives = Archives(self._images, self._packed, self._log)
        try:
            while True:
                if archives is not None:
                    await archives.load_missing()
                self._roster.assign(self.read(), time.time())
                await watch.wait()
                await asyncio.sleep(_SETTLE)
        finally:
            watch.close()

    @property
    def configured(self) -> bool:
        """Whether there can be static pods at all."""
        return bool(self._directories)

    def read(self) -> Mapping[Key, StaticPod]:
        """All pods of all files, as they are now."""
        wanted: dict[Key, tuple[Path, StaticPod]] = {}
        seen: set[Path] = set()
        for directory, reader in self._directories.items():
            for path in self._files(directory, reader):
                seen.add(path)
                for pod in self._pods_of(path, reader):
                    key = (pod.namespace, pod.name)
                    first = wanted.setdefault(key, (path, pod))[0]
                    if first != path and (key, path) not in self._clashes:
                        self._clashes.add((key, path))
                        self._log.error("%s: pod %s is in %s already", path, pod.name, first)
        for gone in [*(self._good.keys() - seen), *(self._bad.keys() - seen)]:
            self._good.pop(gone, None)
            self._bad.pop(gone, None)
        return {key: pod for key, (_, pod) in wanted.items()}

    def _files(self, directory: Path, reader: Reader) -> list[Path]:
        """In order of their names; hidden ones are editors' and installers'."""
        kinds = _PODS if reader == self._read_pods else _CONTAINERS
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            return []
        return [
            directory / name
            for name in names
            if not name.startswith(".") and name.rpartition(".")[2] in kinds
        ]

    def _pods_of(self, path: Path, reader: Reader) -> list[StaticPod]:
        """Of a broken file the pods that it had before: a slip of the pen ends nothing."""
        known = self._good.get(path)
        try:
            found = os.stat(path)
            version = (found.st_ino, found.st_size, found.st_mtime_ns)
        except OSError as error:
            self._complain(path, (0, 0, 0), Broken(f"can't be read: {error.strerror}"))
            return known[1] if known else []
        if known is not None and known[0] == version:
            return known[1]
        try:
            if found.st_size > _LARGEST:
                raise Broken(f"{found.st_size} bytes are too many; the limit is {_LARGEST}")
            pods = reader(path.read_bytes(), path)
        except OSError as error:
            self._complain(path, version, Broken(f"can't be read: {error.strerror}"))
        except Broken as error:
            self._complain(path, version, error)
        else:
            self._good[path] = (version, pods)
            self._bad.pop(path, None)
            return pods
        return known[1] if known else []

    def _complain(self, path: Path, version: Version, error: Broken) -> None:
        if self._bad.get(path) == version:
            return
        self._bad[path] = version
        where = f"{path}:{error.line}" if error.line else str(path)
        kept = "; the pods that it had before go on" if path in self._good else ""
        self._log.error("%s: %s%s", where, error.reason, kept)

    def _read_pods(self, raw: bytes, path: Path) -> list[StaticPod]:
        return read_pods(raw, json_form=path.suffix == ".json", node=self._node)

    def _read_container(self, raw: bytes, path: Path) -> list[StaticPod]:
        form = path.suffix.removeprefix(".")
        return [read_container(raw, path.stem, form=form, node=self._node)]
