"""What watches containers and outlives all above it: launcher, monitors, streams, logs, adoption.

A runtime brings two things: plans (`runtime.Plans`: from a spec to a message) and an engine
(`starting.Engine`: from the message to a process). It knows nothing of monitors; the shim knows nothing
of namespaces, bundles or plans. What runs in launcher and monitors imports neither asyncio nor zmq
nor msgspec: memory is paid once for each container.
"""
