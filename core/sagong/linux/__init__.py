"""Bindings to the Linux kernel by ctypes and files: the standard library only, cheap to import.

What runs in a process that forks containers may import this package and nothing heavier.
"""
