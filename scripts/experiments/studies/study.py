"""What the studies share: their data, their options, and where their runs are kept."""

from dataclasses import dataclass
from pathlib import Path

from sc2keras import datasets

from ..recipes import recipe_of
from ..records import Store, environment
from ..runs import Run, diverged, hold_out, run_all

L1 = 0.1


@dataclass
class Study:
    """A study: its tables are of the datasets in `data`, and of those with records."""

    name: str
    data: dict
    output: Path
    n_atoms: int = 100
    epochs: int | None = None
    seed: int = 0
    only_reads: bool = False

    def __post_init__(self):
        self.store, self.diverged = Store(self.output / self.name), []
        self.held = {name: hold_out(each) for name, each in self.data.items()}
        found = {record["dataset"] for record in self.store.records().values()}
        self.datasets = [n for n in datasets.NAMES if n in found or n in self.data]
        self.note = f"{self.n_atoms} atoms, λ = {L1:g}, seed {self.seed}"

    def recipe(self, dataset, key=None):
        return recipe_of(dataset, key, epochs=self.epochs)

    def new_run(self, dataset, stem, method, recipe, l1=L1, cls=Run, **more):
        name = f"{dataset}-{stem}-l1-{l1:g}-seed{self.seed}"
        more = {"method": method, "l1": l1, "n_atoms": self.n_atoms, **more}
        store = more.pop("store", self.store)
        return cls(name, store, dataset, recipe, seed=self.seed, **more)

    def once(self, key, dataset, label, settings, measure):
        """What `measure()` returns, as a record; only read where it is there.

        An empty one where it is not there and nothing is made.
        """
        record = self.store.find(key, settings=settings)
        if record or self.only_reads:
            return record
        record = {"dataset": dataset, "label": label, "settings": settings}
        record |= {"environment": environment(), **measure()}
        self.store.write(key, record)
        return record

    def make(self, runs, data, protocols=(), optimum=True, may_diverge=False):
        records = run_all(runs, data, self.name, protocols, optimum)
        if not may_diverge:
            self.diverged += diverged(runs, records)
        return records
