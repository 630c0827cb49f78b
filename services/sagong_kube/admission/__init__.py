"""Admission that is built in: each step is a function of one review."""
