import json
from pathlib import Path

import keras
import numpy as np
import pytest
from experiments.benchmarks import report
from helpers import fista, load_program, signals, unit_atoms

RESULTS = Path(__file__).parents[2] / "results/gpu"
of_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")


@pytest.fixture(scope="module")
def script():
    return load_program("scripts/benchmark_gpu.py")


def test_its_table_is_that_of_its_records():
    results = json.loads((RESULTS / "results.json").read_text())
    assert results["environment"]["device"] != "CPU"
    expected = (RESULTS / "table.md").read_text()
    assert report.accelerator_markdown(results).strip() == expected.strip()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="of the others")
def test_another_backend_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match="KERAS_BACKEND=jax"):
        script.main(["--output", str(tmp_path)])


@of_jax
def test_a_quick_run_measures_every_case_once(script, tmp_path, monkeypatch):
    from experiments.benchmarks import accelerator

    monkeypatch.setattr(accelerator, "SECONDS", 1e-3)
    monkeypatch.setattr(accelerator, "N_REPEATS", 1)
    monkeypatch.setattr(accelerator, "peer", lambda *args: None)
    monkeypatch.setattr(accelerator, "POLICIES", {"float32": "float32"})
    monkeypatch.setattr(accelerator, "STEPS", {"LISTA": 2, "FISTA": 3})
    options = ["--quick", "--output", str(tmp_path)]
    assert script.main(options) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    cases = {name: r for name, r in results.items() if "operations" in r}
    assert len(cases) == 3
    for name, record in cases.items():
        assert min(s for s in record["seconds"].values() if s is not None) > 0, name
        row = "| {} | {} |".format(*name.split(", ", 1))
        assert row in (tmp_path / "table.md").read_text()
    again = dict.fromkeys(results, lambda: pytest.fail("it was measured before"))
    monkeypatch.setattr(accelerator, "cases", lambda quick: again)
    assert script.main(options) == 0


def test_the_peers_are_fista_and_its_first_steps():
    torch = pytest.importorskip("torch")
    from experiments.benchmarks import torch_peers

    x, atoms = signals(5, 8).astype("float32"), unit_atoms(6, 8).astype("float32")
    operands = torch_peers._start(torch.from_numpy(atoms), 0.1)
    codes = torch_peers._fista(torch.from_numpy(x), *operands, 500).numpy()
    np.testing.assert_allclose(codes, fista(x, atoms, 0.1, 500)[:, -1], atol=1e-5)
    both = (torch_peers._fista, torch_peers._lista)
    codes = [peer(torch.from_numpy(x), *operands, 2).numpy() for peer in both]
    np.testing.assert_allclose(*codes, atol=1e-6)  # The momentum begins thereafter.


@of_jax
def test_products_are_counted_in_loops_and_beside_them():
    import jax.numpy as jnp
    from experiments.benchmarks import accelerator

    def function(x, w):
        y = keras.ops.fori_loop(0, 5, lambda _, y: jnp.dot(y, w), x)
        return jnp.dot(y, w[:, :2], precision="highest")

    counts = accelerator.products_of(function, jnp.ones((3, 4)), jnp.ones((4, 4)))
    assert accelerator.operations(counts) == 5 * 2 * 3 * 4 * 4 + 2 * 3 * 4 * 2
    assert len({precision for *_, precision in counts}) == 2
