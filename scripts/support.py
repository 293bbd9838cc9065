"""What works where: encoders × backends × fit, encode, files and every export.

    python scripts/support.py --output results/support
    python scripts/support.py --output results/support --int8  # only: what 8 bits cost

Each backend is tried in a process of its own; all three must be installed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments import arguments, int8, support
from experiments.records import write_json
from experiments.reports import write_text

TRY = """
import json, pathlib, sys
from experiments import support
found = support.on_this_backend(pathlib.Path(sys.argv[1]))
pathlib.Path(sys.argv[1], "found.json").write_text(json.dumps(found))
"""


def main(argv=None):
    parser = arguments.make_parser(__doc__, "out/support")
    parser.add_argument("--tables", action="store_true", help="only of what is there")
    parser.add_argument("--int8", action="store_true", help="what 8 bits cost")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.int8:
        publish(args, "int8", int8.measured, int8.table)
    else:
        publish(args, "table", support_everywhere, support.table)


def publish(args, name, measure, table):
    path = args.output / f"{name}.json"
    if not args.tables:
        write_json(path, measure())
    found = json.loads(path.read_text(encoding="utf-8"))
    write_text(args.output / f"{name}.md", table(found))


def support_everywhere():
    return {name: found_on(name) for name in support.BACKENDS}


def found_on(backend):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", TRY, folder],
            env={**os.environ, "KERAS_BACKEND": backend},
            cwd=Path(__file__).parent,
            check=True,
        )
        return json.loads(Path(folder, "found.json").read_text())


if __name__ == "__main__":
    arguments.run_program(main)
