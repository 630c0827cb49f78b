"""Checks of the runtime suite: input, output, terminals, clients and logs."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import struct

from sagong.conformance.runtime_lab import RuntimeLab, Stream, raises, wait_until
from sagong.contracts.runtime import AttachRequest, ContainerRef, LogSpec, ResizeRequest
from sagong.contracts.streams import Address
from sagong.errors import FailedPrecondition
from sagong.frames import Frame

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


async def check_stdout_and_stderr_are_apart(lab: RuntimeLab) -> None:
    """Two streams stay two."""
    found = await lab.shell("echo out; echo err >&2")
    assert (found.stdout, found.stderr, found.code) == (b"out\n", b"err\n", 0)


async def check_stdin_reaches_the_program_and_ends(lab: RuntimeLab) -> None:
    """Input arrives whole; its end is seen."""
    spec = lab.spec(lab.process("cat", "-", stdin=True, stdin_once=True))
    stream = await lab.attached(spec, stdin=True)
    await stream.write(b"one\n")
    await stream.write(b"x" * 300_000)
    await stream.end_input()
    found = await stream.rest()
    assert found.stdout == b"one\n" + b"x" * 300_000
    assert found.code == 0


async def check_without_stdin_input_is_at_its_end(lab: RuntimeLab) -> None:
    """A program without stdin reads nothing, and does not wait."""
    found = await lab.output(lab.spec(lab.process("cat", "-")))
    assert (found.stdout, found.code) == (b"", 0)


async def check_stdin_survives_a_client_unless_once(lab: RuntimeLab) -> None:
    """Without stdin_once another client goes on where the first one left."""
    spec = lab.spec(lab.process("cat", "-", stdin=True))
    first = await lab.attached(spec, stdin=True)
    await first.write(b"first\n")
    await first.until(b"first\n")
    await first.end_input()
    await first.close()
    second = await lab.attach(spec.id, stdin=True)
    await second.write(b"second\n")
    await second.until(b"second\n")
    await second.close()


async def check_a_client_without_stdin_can_not_write(lab: RuntimeLab) -> None:
    """What a mere reader sends does not reach the program."""
    spec = lab.spec(lab.process("cat", "-", stdin=True))
    reader = await lab.attached(spec)
    await reader.write(b"ignored\n")
    writer = await lab.attach(spec.id, stdin=True)
    await writer.write(b"taken\n")
    await reader.until(b"taken\n")
    assert b"ignored" not in reader.stdout
    for stream in (reader, writer):
        await stream.close()


async def check_terminal_is_one(lab: RuntimeLab) -> None:
    """With tty all three streams are a terminal, output is one stream with CR LF."""
    script = "tty; test -t 0 && test -t 1 && test -t 2 && echo yes; echo err >&2"
    found = await lab.output(lab.spec(lab.process(script, tty=True, stdin=True)))
    assert b"/dev/pts/" in found.stdout or b"/dev/console" in found.stdout, found.stdout
    assert b"yes\r\nerr\r\n" in found.stdout
    assert found.stderr == b""


async def check_terminal_controls_the_program(lab: RuntimeLab) -> None:
    """^C in the terminal interrupts, as from a keyboard."""
    # No `cat`: the signal may reach the shell's child between its fork and its exec, and be lost.
    script = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done"
    process = lab.process(script, tty=True, stdin=True)
    stream = await lab.attached(lab.spec(process), stdin=True)
    await stream.until(b"ready")
    await stream.write(b"\x03")
    found = await stream.rest()
    assert b"caught" in found.stdout
    assert found.code == 7


async def check_terminal_has_its_first_size(lab: RuntimeLab) -> None:
    """Rows and columns of the process are there from the start."""
    process = lab.process("stty size", tty=True, stdin=True, rows=33, columns=101)
    found = await lab.output(lab.spec(process))
    assert found.stdout.split() == [b"33", b"101"]


async def check_terminal_is_resized(lab: RuntimeLab) -> None:
    """By the method and by a frame; the program hears of it."""
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    spec = lab.spec(lab.process(script, tty=True, stdin=True))
    stream = await lab.attached(spec, stdin=True)
    await stream.until(b"ready")
    await lab.runtime.resize(ResizeRequest(id=spec.id, rows=40, columns=132))
    await stream.until(b"40 132")
    await stream.resize(25, 90)
    await stream.until(b"25 90")
    await stream.close()


async def check_all_clients_get_the_output(lab: RuntimeLab) -> None:
    """Several clients see the same."""
    spec = lab.spec(
        lab.process("read line; echo got $line; sleep 0.2", stdin=True, stdin_once=True)
    )
    first = await lab.attached(spec, stdin=True)
    second = await lab.attach(spec.id, replay=True)
    await first.write(b"this\n")
    results = await asyncio.gather(first.rest(), second.rest())
    assert [r.stdout for r in results] == [b"got this\n"] * 2
    assert [r.code for r in results] == [0, 0]


async def check_replay_gives_the_past_and_the_present(lab: RuntimeLab) -> None:
    """A client that comes late misses nothing of this run, and gets nothing twice."""
    log = LogSpec(path=str(lab.scratch / "replay.log"))
    script = "echo early; echo err >&2; printf part; read go; echo -late"
    spec = lab.spec(lab.process(script, stdin=True), log=log)
    first = await lab.attached(spec)
    await first.until(b"part")
    second = await lab.attach(spec.id, stdin=True, replay=True)
    await second.until(b"part")
    await second.write(b"\n")
    found = await second.rest()
    assert found.stdout == b"early\npart-late\n"
    assert found.stderr == b"err\n"
    await first.close()


async def check_without_replay_only_the_present(lab: RuntimeLab) -> None:
    """A client that does not ask for the past gets none of it."""
    spec = lab.spec(lab.process("echo early; read go; echo late", stdin=True))
    first = await lab.attached(spec)
    await first.until(b"early\n")
    second = await lab.attach(spec.id, stdin=True)
    await second.write(b"\n")
    assert (await second.rest()).stdout == b"late\n"
    await first.close()


async def check_expected_attach_loses_nothing(lab: RuntimeLab) -> None:
    """Output of a program that has long ended still waits for its first client."""
    spec = lab.spec("echo quick; exit 5", expect_attach=True)
    await lab.runtime.run(spec)
    await asyncio.sleep(0.3)
    found = await (await lab.attach(spec.id)).rest()
    assert (found.stdout, found.code) == (b"quick\n", 5)


async def check_a_run_answers_with_the_streams_that_it_expects(lab: RuntimeLab) -> None:
    """If it does, they are those of an attach: all of the output, input if asked for, the end."""
    script = "echo first; read word; echo $word >&2; read more || exit 4"
    process = lab.process(script, stdin=True, stdin_once=True)
    spec = lab.spec(process, expect_attach=True, attach_stdin=True)
    stream = await lab.begun(spec)
    await stream.until(b"first\n")
    await stream.write(b"word\n")
    await stream.end_input()
    found = await stream.rest()
    assert (found.stdout, found.stderr, found.code) == (b"first\n", b"word\n", 4)


async def check_a_run_without_input_leaves_it_open(lab: RuntimeLab) -> None:
    """Who attaches without input, and goes, does not end it for who has it."""
    process = lab.process("echo first; read word; echo $word", stdin=True, stdin_once=True)
    spec = lab.spec(process, expect_attach=True)
    without = await lab.begun(spec)
    await without.until(b"first\n")
    await without.close()
    stream = await lab.attach(spec.id, stdin=True)
    await stream.write(b"word\n")
    assert (await stream.rest()).stdout == b"word\n"


async def check_token_is_good_once(lab: RuntimeLab) -> None:
    """The second to show it, and who has none, are turned away."""
    container = await lab.running()
    address = await lab.runtime.attach(AttachRequest(id=container.id))
    first = await Stream.open(address)
    forged = Address(path=address.path, token="0" * 32, protocol="frames")
    for bad in (address, forged):
        second = await Stream.open(bad)
        assert (await second.rest()).code is None
    await first.close()


async def check_attach_needs_a_running_container(lab: RuntimeLab) -> None:
    """FailedPrecondition after the end."""
    spec = lab.spec("true")
    await lab.runtime.run(spec)
    await lab.ended(spec.id)
    with raises(FailedPrecondition, "not running"):
        await lab.runtime.attach(AttachRequest(id=spec.id))


async def check_much_output_arrives_whole(lab: RuntimeLab) -> None:
    """A slow client slows the program and loses nothing."""
    spec = lab.spec("head -c 6000000 /dev/zero | tr '\\0' x; echo; echo done >&2")
    stream = await lab.attached(spec)
    await asyncio.sleep(0.3)
    found = await stream.rest()
    assert len(found.stdout) == 6_000_001, len(found.stdout)
    assert found.stderr == b"done\n"


async def check_nonsense_from_a_client_ends_only_the_client(lab: RuntimeLab) -> None:
    """A frame of absurd length closes that connection; the container runs on."""
    container = await lab.running()
    address = await lab.runtime.attach(AttachRequest(id=container.id, stdin=True))
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n" + struct.pack(">BxxxI", Frame.STDIN, 1 << 31))
    assert await asyncio.wait_for(reader.read(), 40.0) == b""
    writer.close()
    found = await lab.runtime.inspect(ContainerRef(id=container.id))
    assert found.state == "running"


async def check_json_log_is_dockers(lab: RuntimeLab) -> None:
    """One JSON object a line: log with its newline, stream, attrs, time."""
    path = lab.scratch / "json.log"
    log = LogSpec(path=str(path), attributes=(("colour", "blue"),), tag="t")
    found = await lab.shell("echo 'a \"b\" <c>'; printf 'no newline' >&2", log=log)
    assert found.code == 0
    lines = sorted(path.read_text().splitlines(), key=lambda line: json.loads(line)["stream"])
    entries = [json.loads(line) for line in lines]
    assert [(e["log"], e["stream"]) for e in entries] == [
        ("no newline", "stderr"),
        ('a "b" <c>\n', "stdout"),
    ]
    assert all(e["attrs"] == {"colour": "blue", "tag": "t"} for e in entries)
    assert all(_TIME.fullmatch(e["time"]) for e in entries)
    assert "\\u003cc\\u003e" in lines[1], "json-file escapes < and > as Docker does"


async def check_cri_log_is_kubernetes(lab: RuntimeLab) -> None:
    """`time stream F|P text`; lines above 16 KiB come in parts."""
    path = lab.scratch / "cri.log"
    script = "head -c 20000 /dev/zero | tr '\\0' x; echo; echo short"
    await lab.shell(script, log=LogSpec(driver="cri", path=str(path)))
    fields = [line.split(" ", 3) for line in path.read_text().splitlines()]
    assert all(_TIME.fullmatch(f[0]) and f[1] == "stdout" for f in fields)
    assert [f[2] for f in fields] == ["P", "F", "F"]
    assert len(fields[0][3]) == 16384
    assert len(fields[1][3]) == 20000 - 16384
    assert fields[2][3] == "short"


async def check_logs_rotate(lab: RuntimeLab) -> None:
    """No file beyond its size, no more files than allowed, the newest line in the newest file."""
    path = lab.scratch / "rotate.log"
    log = LogSpec(driver="cri", path=str(path), max_size=4096, max_files=3)
    await lab.shell("for i in $(seq 1 400); do echo line number $i; done", log=log)
    files = sorted(p.name for p in lab.scratch.glob("rotate.log*"))
    assert files == ["rotate.log", "rotate.log.1", "rotate.log.2"], files
    assert all(p.stat().st_size <= 4096 for p in lab.scratch.glob("rotate.log*"))
    assert path.read_text().splitlines()[-1].endswith("line number 400")


async def check_rotated_logs_are_compressed(lab: RuntimeLab) -> None:
    """Where it is asked for; the newest file is not."""
    path = lab.scratch / "packed.log"
    log = LogSpec(driver="cri", path=str(path), max_size=4096, max_files=3, compress=True)
    await lab.shell("for i in $(seq 1 400); do echo line number $i; done", log=log)
    wanted = ["packed.log", "packed.log.1.gz", "packed.log.2.gz"]
    await wait_until(
        lambda: sorted(p.name for p in lab.scratch.glob("packed.log*")) == wanted, "files packed"
    )
    older = gzip.decompress((lab.scratch / "packed.log.1.gz").read_bytes())
    lines = (older + path.read_bytes()).splitlines()
    numbers = [int(line.rpartition(b" ")[2]) for line in lines]
    assert numbers == list(range(numbers[0], 401)), numbers


async def check_log_none_writes_nothing(lab: RuntimeLab) -> None:
    """Driver none leaves no file, and attach works all the same."""
    path = lab.scratch / "none.log"
    found = await lab.shell("echo hello", log=LogSpec(driver="none", path=str(path)))
    assert found.stdout == b"hello\n"
    assert not path.exists()


async def check_log_goes_on_over_runs(lab: RuntimeLab) -> None:
    """A second run adds to the log; replay is of its own run only."""
    path = lab.scratch / "runs.log"
    log = LogSpec(path=str(path))
    first = lab.spec("echo first", log=log)
    await lab.output(first)
    await lab.ended(first.id)
    script = lab.process("echo second; read x", stdin=True)
    second = lab.spec(script, id=first.id, run=2, log=log)
    stream = await lab.attached(second, stdin=True, replay=True)
    await stream.until(b"second\n")
    await stream.write(b"\n")
    assert (await stream.rest()).stdout == b"second\n"
    assert [json.loads(x)["log"] for x in path.read_text().splitlines()] == ["first\n", "second\n"]
