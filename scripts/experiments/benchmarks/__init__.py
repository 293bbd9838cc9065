"""How fast the package encodes and trains, a section a module."""
