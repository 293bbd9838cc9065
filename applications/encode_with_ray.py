"""
Ten billion vectors: a folder of shards through Ray
===================================================

Each file of a folder is one task of Ray Data, on this machine or on a cluster whose
machines share the folders: start one with `ray start`, and Ray finds it. What is done
stays done: after a kill the same command goes on, and every row is encoded once.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

try:
    import ray.data
except ImportError:
    sys.exit("error: Ray is not installed. Run: pip install 'sc2keras[ray]'")

import sc2keras

parser = argparse.ArgumentParser(description="Codes of a folder of arrays, with Ray.")
parser.add_argument("model", help="a .keras file, or a name such as SC2Net/digits")
parser.add_argument("source", type=Path, help="a folder of .npy files of vectors")
parser.add_argument("target", type=Path, help="a folder for files of the same names")
parser.add_argument("--sparse", action="store_true", help="write .npz, CSR arrays")
parser.add_argument("--threshold", type=float, help="leave out what is at most it")
parser.add_argument("--overwrite", action="store_true", help="replace other targets")
parser.add_argument("--workers", type=int, default=1, help="models at a time")
parser.add_argument("--cpus", type=float, default=1, help="of Ray, for one of them")
args = parser.parse_args()
if args.threshold is not None and not args.sparse:
    parser.error("--threshold leaves entries out of CSR arrays: give --sparse as well.")

# %%
# A task: its source, and its target
# ----------------------------------
suffix = ".npz" if args.sparse else ".npy"
tasks = [
    {
        "source": str(path.resolve()),
        "target": str((args.target / path.name).with_suffix(suffix).resolve()),
    }
    for path in sorted(args.source.glob("*.npy"))
]
if not tasks:
    sys.exit(f"error: {args.source} holds no .npy file. Name a folder of shards.")
args.target.mkdir(parents=True, exist_ok=True)


# %%
# A worker: it loads the model once
# ---------------------------------
# `encode_shard` leaves a target that is done as it is, and goes on with one that was
# killed; so a task may be tried again, here or elsewhere. What one shard lacks does not
# stop the others.


class Encoder:
    def __init__(self, model, **options):
        (self.model, _), self.options = sc2keras.io.load_model(model), options

    def __call__(self, task):
        try:
            files = task["source"], task["target"]
            done = sc2keras.io.encode_shard(self.model, *files, **self.options)
        except (sc2keras.io.TransferError, OSError) as error:
            said = f"error: {error}".replace("overwrite=True", "--overwrite")
            return {**task, "rows": 0, "said": said, "failed": True}
        said = "was done" if done.was_done else f"{done.seconds:.1f} s"
        return {**task, "rows": done.rows, "said": said, "failed": False}


# %%
# All of them
# -----------
# Workers are in folders of their own.
model = str(Path(args.model).resolve()) if os.path.exists(args.model) else args.model
began, n_rows, n_failed = time.monotonic(), 0, 0
ray.data.DataContext.get_current().enable_progress_bars = False
shards = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
    Encoder,
    fn_constructor_args=(model,),
    fn_constructor_kwargs={"threshold": args.threshold, "overwrite": args.overwrite},
    compute=ray.data.ActorPoolStrategy(size=args.workers),
    num_cpus=args.cpus,
)
for i, shard in enumerate(shards.iter_rows(), 1):
    n_rows, n_failed = n_rows + shard["rows"], n_failed + shard["failed"]
    name = Path(shard["target"]).name
    print(
        f"{i}/{len(tasks)} {name}: {shard['rows']:,} rows, {shard['said']}", flush=True
    )
print(f"{n_rows:,} rows in {time.monotonic() - began:.1f} s: {args.target}")
if n_failed:
    sys.exit(f"error: {n_failed} of {len(tasks)} shards failed; see above.")
