"""API objects as Structs, a module for each group and version; generated, imported when used."""
