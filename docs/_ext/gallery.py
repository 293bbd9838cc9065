"""How the programs of the gallery are run while the book is built."""

import tempfile


def arguments(gallery_conf, script_vars):
    """Their figures go where nothing is kept."""
    return ["--output", tempfile.mkdtemp()]
