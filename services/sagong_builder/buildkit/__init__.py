"""BuildKit's protocol: gRPC on HTTP/2, as clients of the `docker` driver of buildx speak it.

Imported with the first such client.
"""
