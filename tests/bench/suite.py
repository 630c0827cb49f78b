"""All benchmarks one after the other, each a process of its own: see `tests/bench/run`."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import figures

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: written by tests/bench/run --write -->", "<!-- end of figures -->"
# Seconds for one benchmark: one that hangs must not keep the others from their turn.
LONGEST = 300


def names() -> list[str]:
    """Of all benchmarks there are."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run(name: str, words: list[str], target: Path) -> bool:
    """One benchmark; whether it ended well."""
    environment = {**os.environ, figures.VARIABLE: str(target)}
    command = [sys.executable, "-m", f"tests.bench.bench_{name}", *words]
    began = time.monotonic()
    try:
        code = subprocess.run(command, env=environment, timeout=LONGEST).returncode
    except subprocess.TimeoutExpired:
        print(f"{name}: not done within {LONGEST} s", file=sys.stderr)
        return False
    print(f"({name}: {time.monotonic() - began:.0f} s)\n", flush=True)
    if code:
        print(f"{name}: ended with {code}", file=sys.stderr)
    return code == 0


def write(table: str) -> None:
    """Replace the table in the page."""
    text = PAGE.read_text()
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.S)
    if not pattern.search(text):
        raise SystemExit(f"{PAGE} has no place for the table: {BEGIN} … {END}")
    PAGE.write_text(pattern.sub(lambda _: f"{BEGIN}\n{table}{END}", text))


def main() -> None:
    """Run, print, and write if wished."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/benchmarks.md"
    )
    parser.add_argument("name", nargs="?", choices=names(), help="one benchmark instead of all")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="its options")
    options = parser.parse_args()
    if options.write and options.name:
        raise SystemExit("tests/bench/run: --write is for the table of all, without a name")
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "figures")
        target.touch()
        chosen = [options.name] if options.name else names()
        failed = [name for name in chosen if not run(name, options.words, target)]
        table = figures.markdown(figures.read(target))
    print(table)
    if options.write:
        write(table)
    if failed:
        raise SystemExit(f"tests/bench/run: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
