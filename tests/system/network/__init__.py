"""Tests of networks in network namespaces of their own: the machine's own one is never touched."""
