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
LONGEST = 600


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


def write(table: str, ran: list[str]) -> None:
    """Replace the rows of the benchmarks that ran in the page's table."""
    text = PAGE.read_text()
    pattern = re.compile(f"{re.escape(BEGIN)}(.*){re.escape(END)}", re.S)
    found = pattern.search(text)
    if not found:
        raise SystemExit(f"{PAGE} has no place for the table: {BEGIN} … {END}")
    rows = merged(found[1].strip().splitlines(), table.splitlines(), ran)
    PAGE.write_text(pattern.sub(lambda _: "\n".join([BEGIN, *rows, END]), text))


def merged(old: list[str], new: list[str], ran: list[str]) -> list[str]:
    """The table's head, and each benchmark's rows: new ones where it ran, in the order of the old."""
    rows: dict[str, list[str]] = {}
    for row in old[2:]:
        rows.setdefault(_bench(row), []).append(row)
    rows |= {name: [row for row in new[2:] if _bench(row) == name] for name in ran}
    return [*new[:2], *(row for group in rows.values() for row in group)]


def _bench(row: str) -> str:
    """The benchmark that a row's last column names."""
    return row.rsplit("tests/bench/run ", 1)[-1].partition("`")[0].split()[0]


def main() -> None:
    """Run, print, and write if wished."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="put the figures into docs/benchmarks.md"
    )
    parser.add_argument("name", nargs="?", choices=names(), help="one benchmark instead of all")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="its options")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "figures")
        target.touch()
        chosen = [options.name] if options.name else names()
        failed = [name for name in chosen if not run(name, options.words, target)]
        table = figures.markdown(figures.read(target))
    print(table)
    if options.write:
        write(table, [name for name in chosen if name not in failed])
    if failed:
        raise SystemExit(f"tests/bench/run: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
