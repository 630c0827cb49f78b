"""The kubelet of this machine: pods by the same road as every other container."""
