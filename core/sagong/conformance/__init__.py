"""Conformance suites: one module a slot; an implementation that passes it fills the slot."""
