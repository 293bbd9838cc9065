"""What works where: encoders × backends × fit, encode, files and every export.

    python scripts/support.py --output results/support
    python scripts/support.py --output results/support --encoders LISTA  # only its rows
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
found = support.on_this_backend(pathlib.Path(sys.argv[1]), sys.argv[2:])
pathlib.Path(sys.argv[1], "found.json").write_text(json.dumps(found))
"""


def main(argv=None):
    parser = arguments.make_parser(__doc__, "out/support")
    parser.add_argument("--tables", action="store_true", help="only of what is there")
    parser.add_argument("--int8", action="store_true", help="what 8 bits cost")
    parser.add_argument(
        "--encoders",
        nargs="+",
        choices=support.ENCODERS,
        default=list(support.ENCODERS),
        help="try these alone, and keep what is there of the others",
    )
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.int8:
        publish(args, "int8", lambda _: int8.measured(), int8.table)
    else:
        publish(args, "table", lambda old: tried(old, args.encoders), support.table)


def publish(args, name, measure, table):
    path = args.output / f"{name}.json"
    if not args.tables:
        old = path.read_text(encoding="utf-8") if path.exists() else "{}"
        write_json(path, measure(json.loads(old)))
    found = json.loads(path.read_text(encoding="utf-8"))
    write_text(args.output / f"{name}.md", table(found))


def tried(old, names):
    found = {}
    for backend in support.BACKENDS:
        known = old.get(backend, {}) | found_on(backend, names)
        found[backend] = {name: known[name] for name in support.ENCODERS}
    return found


def found_on(backend, names):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", TRY, folder, *names],
            env={**os.environ, "KERAS_BACKEND": backend},
            cwd=Path(__file__).parent,
            check=True,
        )
        return json.loads(Path(folder, "found.json").read_text())


if __name__ == "__main__":
    arguments.run_program(main)
