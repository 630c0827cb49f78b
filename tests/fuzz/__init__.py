"""Fuzzing of everything that reads bytes from outside: one table of targets, two drivers.

`tests/fuzz/test_fuzz_targets.py` tries each with hypothesis, briefly; `python -m tests.fuzz TARGET`
goes on for as long as one likes, guided by coverage (atheris).
"""
