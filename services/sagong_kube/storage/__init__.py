"""API objects over the slot `state`: a cache of encoded bytes kept by a watch, and its watchers."""
