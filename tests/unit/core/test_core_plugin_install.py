"""What `sagong plugin install` says when pip fails."""

from __future__ import annotations

from sagong.cli.plugin import reason

SILENT_INDEX = """
  error: subprocess-exited-with-error
  × pip subprocess to install build dependencies did not run successfully.
  │ exit code: 1
  ╰─> [7 lines of output]
      WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(…)'
      ERROR: Could not find a version that satisfies the requirement hatchling>=1.25
      ERROR: No matching distribution found for hatchling>=1.25
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
"""


def test_the_errors_of_pips_children_are_told_and_that_an_index_is_silent() -> None:
    said = reason(SILENT_INDEX)
    assert "No matching distribution found for hatchling>=1.25" in said
    assert "its index does not answer" in said
    assert "note:" not in said
    assert "index" not in reason(SILENT_INDEX.replace("connection broken by", ""))


def test_what_says_no_error_is_told_by_its_last_lines() -> None:
    assert reason("one\ntwo\n\nthree\nfour\n") == "two; three; four"
