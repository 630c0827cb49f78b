"""Templates of `sagong new-plugin`: what a plugin's repository begins with."""
