"""A scheduler in Perl: this file only marks the directory as a package that holds `plugin.toml`."""
