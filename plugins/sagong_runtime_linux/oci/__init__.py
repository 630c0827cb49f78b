"""`sagong-runtime`: the engine of runtime_linux with the command line of an OCI runtime.

Made for podman, containerd and whoever else calls a runtime's binary. No daemon, no monitor: the
caller's own (conmon, containerd-shim) collects the container. Nothing here imports asyncio, zmq or
msgspec, since every call is a process of its own.
"""
