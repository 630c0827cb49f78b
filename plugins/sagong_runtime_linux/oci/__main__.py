"""`python -m sagong_runtime_linux.oci` is `sagong-runtime`."""

from sagong_runtime_linux.oci.entry import main

main()
