"""Coverage-guided fuzzing of one target: `python -m tests.fuzz TARGET [--seconds N]` (needs atheris).

A crash is written beside the corpus, with its path; memory is bounded to 1 GiB, an input to 20 s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from types import FunctionType, ModuleType


def _instrument(module: ModuleType) -> None:
    """Let atheris see the branches of a module's functions and methods."""
    import atheris

    for value in list(vars(module).values()):
        owner = getattr(value, "__module__", None) == module.__name__
        if owner and isinstance(value, FunctionType):
            atheris.instrument_func(value)
        elif owner and isinstance(value, type):
            for method in vars(value).values():
                if isinstance(method, FunctionType):
                    atheris.instrument_func(method)


def main() -> None:
    """Instrument, then hand over to atheris, which ends the process."""
    import atheris

    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=None)
    options = parser.parse_args()
    target = TARGETS[options.target]

    def once(data: bytes) -> None:
        try:
            target.run(data)
        except target.errors:
            pass

    for seed in target.seeds:  # imports what the target imports when it runs
        once(seed)
    for name in [n for n in sys.modules if n.partition(".")[0].startswith("sagong")]:
        _instrument(sys.modules[name])
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="sagong-fuzz-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    limits = [f"-max_total_time={options.seconds}", "-rss_limit_mb=1024", "-timeout=20"]
    places = [f"-artifact_prefix={corpus}/", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *places], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
