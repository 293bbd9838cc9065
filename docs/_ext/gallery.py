"""How the programs of the gallery are run while the book is built."""

import tempfile
from pathlib import Path

# Of the longer ones a part.
SHORTER = {
    "anomaly_detection": ["--digits", "0", "1", "8"],
    "compressed_sensing": ["--share", "0.25", "--epochs", "3", "--updates", "25"],
    "direction_of_arrival": ["--epochs", "3"],
    "image_denoising": ["--noise", "0.1", "--updates", "200"],
    "sequence_coding": ["--epochs", "20"],
    "supervised_codes": ["--epochs", "40"],
}


def arguments(gallery_conf, script_vars):
    """Their figures go where nothing is kept."""
    shorter = SHORTER.get(Path(script_vars["src_file"]).stem, [])
    return [*shorter, "--output", tempfile.mkdtemp()]
