"""Byte streams of the API: exec, attach, port-forward and log, over WebSocket and SPDY/3.1."""
