"""`python -m tests.system.chaos --minutes 10 --seed 7`: a run by hand, as root."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from tests.system.chaos.checker import check
from tests.system.chaos.faults import KINDS
from tests.system.chaos.history import History
from tests.system.chaos.trial import run


def main() -> int:
    """Run, check, print; the history and the logs stay where it says."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--port", type=int, default=17443)
    parser.add_argument("--subnet", default="10.229.0", help="the first three bytes of the pods'")
    parser.add_argument("--check", type=Path, help="only check the history in this file")
    parser.add_argument(
        "--faults", type=weights, default=KINDS, help="weights that differ, like swap=20,kill=1"
    )
    parser.add_argument("--load", choices=("both", "docker", "kube"), default="both")
    options = parser.parse_args()
    if options.check:
        return report(msgspec.json.decode(options.check.read_bytes(), type=History))
    home = Path(tempfile.mkdtemp(prefix="sagong-chaos-"))
    print(f"seed {options.seed}, history and logs in {home}", flush=True)
    history = run(
        options.seed,
        options.minutes * 60,
        home,
        port=options.port,
        subnet=options.subnet,
        weights=options.faults,
        load=options.load,
        tell=lambda text: print(time.strftime("%H:%M:%S"), text, flush=True),
    )
    (home / "history.json").write_bytes(msgspec.json.encode(history))
    return report(history)


def weights(text: str) -> dict[str, int]:
    """Kinds of faults by how often they are chosen; those that are not named as always."""
    given = dict(part.partition("=")[::2] for part in text.split(","))
    if unknown := given.keys() - KINDS.keys():
        raise argparse.ArgumentTypeError(f"{sorted(unknown)}: {', '.join(KINDS)} are known")
    return {**KINDS, **{kind: int(weight) for kind, weight in given.items()}}


def report(history: History) -> int:
    """What happened in figures, and what must not have."""
    asked = Counter(attempt.outcome for attempt in history.attempts)
    done = Counter(fault.kind for fault in history.faults)
    print(f"{len(history.faults)} faults: {dict(done)}")
    for kind in sorted(done):
        targets = Counter(fault.target for fault in history.faults if fault.kind == kind)
        print(f"  {kind}: {', '.join(f'{name} {n}' for name, n in sorted(targets.items()))}")
    print(f"{len(history.attempts)} requests: {dict(asked)}")
    violations = check(history)
    for text in violations:
        print(f"VIOLATION {text}")
    print(f"seed {history.seed}: {len(violations)} violations")
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
