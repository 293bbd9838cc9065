"""What the studies share: their data, their options, and where their runs are kept."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sc2keras import datasets

from ..data import hold_out
from ..recipes import recipe_of
from ..records import Store
from ..runs import Run, check_settings, diverged, run_all

L1 = 0.1


@dataclass
class Study:
    """The study of a name: its runs are made on the datasets that are in `data`.

    Its tables are of these and of those that there are records of. With `only_reads`
    it makes nothing, not of data of its own either.
    """

    name: str
    data: dict
    output: Path
    n_atoms: int = 100
    epochs: int | None = None
    seed: int = 0
    only_reads: bool = False
    diverged: list = field(default_factory=list)

    @property
    def store(self):
        return Store(self.output / self.name)

    @property
    def datasets(self):
        found = {record["dataset"] for record in self.store.records().values()}
        return [n for n in datasets.NAMES if n in found or n in self.data]

    @cached_property
    def held(self):
        return {name: hold_out(each) for name, each in self.data.items()}

    @property
    def note(self):
        return f"{self.n_atoms} atoms, λ = {L1:g}, seed {self.seed}"

    def recipe(self, dataset, key=None):
        """What the variations of a study start from."""
        return recipe_of(dataset, key, epochs=self.epochs)

    def new_run(self, dataset, stem, method, recipe, l1=L1, cls=Run, **more):
        return cls(
            name=f"{dataset}-{stem}-l1-{l1:g}-seed{self.seed}",
            dataset=dataset,
            method=method,
            recipe=recipe,
            l1=l1,
            seed=self.seed,
            n_atoms=self.n_atoms,
            **{"store": self.store, **more},
        )

    def make(self, runs, data, protocols=(), optimum=True, may_diverge=False):
        """The record of every run, `{key: record}`."""
        check_settings(runs.values())
        records = run_all(runs, data, self.name, protocols, optimum)
        if not may_diverge:
            self.diverged += diverged(runs, records)
        return records
