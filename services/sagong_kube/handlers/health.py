"""What anybody may see: version and health; and metrics for those who may."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping

import sagong
from sagong_kube import refusal
from sagong_kube.handlers.exchange import Answer, Ask, json_answer

__all__ = ["KUBERNETES_VERSION", "Health"]

KUBERNETES_VERSION = "v1.32.4"
_TEXT = "text/plain; charset=utf-8"
Check = Callable[[], str]


class Health:
    """Checks by name; a check returns "" or what is wrong."""

    def __init__(self, checks: Mapping[str, Check], figures: Callable[[], Iterator[str]]) -> None:
        self._checks = checks
        self._figures = figures

    async def version(self, ask: Ask) -> Answer:
        """GET /version."""
        major, minor = KUBERNETES_VERSION.lstrip("v").split(".")[:2]
        version = getattr(sagong, "__version__", "0.1.0")
        return json_answer(
            {
                "major": major,
                "minor": minor,
                "gitVersion": f"{KUBERNETES_VERSION}+sagong{version}",
                "gitCommit": "",
                "gitTreeState": "clean",
                "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": f"python{platform.python_version()}",
                "compiler": platform.python_implementation().lower(),
                "platform": f"linux/{_machine()}",
            }
        )

    async def check(self, ask: Ask) -> Answer:
        """GET /healthz, /livez, /readyz, and one check of them by its name."""
        name, _, wanted = ask.path.strip("/").partition("/")
        if wanted:
            if wanted not in self._checks:
                raise refusal.no_such_path()
            problem = self._checks[wanted]()
            return _plain("ok" if not problem else f"internal server error: {problem}", not problem)
        left_out = set(ask.query.get("exclude") or ())
        results = {k: check() for k, check in self._checks.items() if k not in left_out}
        well = not any(results.values())
        if well and "verbose" not in ask.query:
            return _plain("ok", well)
        lines = [
            f"[-]{key} failed: {problem}" if problem else f"[+]{key} ok"
            for key, problem in results.items()
        ]
        lines.append(f"{name} check {'passed' if well else 'failed'}")
        return _plain("\n".join(lines) + "\n", well)

    async def metrics(self, ask: Ask) -> Answer:
        """GET /metrics."""
        text = "\n".join(self._figures()) + "\n"
        return Answer(text.encode(), 200, "text/plain; version=0.0.4; charset=utf-8")


def _plain(text: str, well: bool) -> Answer:
    return Answer(text.encode(), 200 if well else 500, _TEXT, {"X-Content-Type-Options": "nosniff"})


def _machine() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
