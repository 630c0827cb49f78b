"""The kernel process: directory, supervisor, zygote, live swap. Nothing else imports it."""
