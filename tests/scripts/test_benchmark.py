import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from experiments.benchmarks import encoding, measure, report, scale, training
from helpers import fista, load_program, signals, to_numpy, unit_atoms

import sc2keras
from sc2keras import datasets
from sc2keras.applications import SC2Net


@pytest.fixture(scope="module")
def script():
    return load_program("scripts/benchmark.py")


def use_little_work(monkeypatch):
    data = datasets.load("digits")
    small = data._replace(x_train=data.x_train[:300], x_test=data.x_test[:40])
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None: small)
    monkeypatch.setattr(encoding, "NETWORKS", {"SC2Net": [3], "StepLFISTA": [2]})
    monkeypatch.setattr(measure, "STEPS", (3,))
    monkeypatch.setattr(scale, "QUICK_AXES", {"n_atoms": [4, 6]})
    monkeypatch.setattr(scale, "N_REPEATS", 1)


def arguments(output):
    sizes = ["--dataset", "digits", "--n-atoms", "8", "--repeats", "1"]
    return [*sizes, "--quick", "--output", str(output)]


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory):
    output = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        use_little_work(patch)
        assert script.main(arguments(output)) == 0
    return output


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_run_writes_figures_table_and_picture(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {"results.json", "table.md", "pareto.png"}
    results = json.loads((finished / "results.json").read_text())
    (record,) = results["encoding"]
    points = {(p["kind"], p["label"]): p for p in record["points"]}
    exact = points["peer", "scikit-learn lasso_cd"]
    assert abs(exact["gap"]) < 1e-4
    assert abs(points["peer", "SPAMS lasso"]["gap"]) < 1e-3
    assert abs(points["peer", "celer Lasso"]["gap"]) < 1e-3
    assert abs(points["solver", "FISTA, duality gap ≤ 0.0001"]["gap"]) < 1e-4
    assert points["network", "SC2Net, 3 steps"]["gap"] > 1e-4
    assert points["network", "StepLFISTA, 2 steps"]["gap"] > 1e-4
    proven = points["network", "StepLFISTA, 2 steps, proven to 0.0001"]
    assert abs(proven["gap"]) < 1e-4
    assert all(p["codes_per_second"] > 0 for p in record["points"])
    table = (finished / "table.md").read_text()
    for label in ("SPAMS lasso", "hand-written loop", "LiteRT", "exponent of n_atoms"):
        assert label in table


@pytest.mark.parametrize("fixed", [True, False])
def test_networks_keep_a_given_dictionary_or_learn_their_own(monkeypatch, fixed):
    monkeypatch.setattr(encoding, "NETWORKS", {"LISTA": [2]})
    # To compile takes longer than to train.
    monkeypatch.setattr(encoding, "fast", dict)
    x = datasets.load("digits").x_train[:300]
    dictionary = sc2keras.sample_dictionary(x, 8)
    shape = {"n_atoms": 8, "input_shape": x.shape[1:], "l1": 0.1}
    args = SimpleNamespace(quick=True)
    networks = encoding._networks(x, dictionary, shape, fixed, args)
    ((kind, label), network) = networks.popitem()
    assert ("own" in kind) != fixed and label == "LISTA, 2 steps"
    moved = np.abs(network.dictionary - dictionary).max()
    assert moved < 1e-6 if fixed else moved > 1e-3


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_finished_section_is_not_measured_again(script, finished, monkeypatch):
    use_little_work(monkeypatch)
    path = finished / "results.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in before.items() if k != "latency"}))
    for module, name in [(encoding, "against_the_bound"), (scale, "scale")]:
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("measured again"))
    script.main(arguments(finished))
    after = json.loads(path.read_text())
    assert after["bound"] == before["bound"]
    assert len(after["latency"]) == len(before["latency"])
    with pytest.raises(SystemExit, match=r"was made with .*Choose another --output"):
        script.main([*arguments(finished), "--n-atoms", "9"])


def test_guard_fails_where_fit_is_slower_than_it_asks(script, monkeypatch, capsys):
    monkeypatch.setattr(
        training, "against_a_loop", lambda *_: {"best_fit_over_loop": 0.9}
    )
    assert script.main(["--guard", "0.8"]) == 0
    assert script.main(["--guard", "0.95"]) == 1
    assert "less than 0.95" in capsys.readouterr().err


def test_the_tables_that_are_published_come_from_their_figures():
    folder = Path(__file__).parents[2] / "results/benchmark"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    published = (folder / "table.md").read_text(encoding="utf-8")
    assert report.markdown(results) == published


def test_a_missing_dataset_is_named_with_the_way_out(script, tmp_path):
    arguments = ["--data-dir", str(tmp_path / "none"), "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"(?s)none.*digits"):
        script.main(arguments)


def test_missing_peers_are_named(monkeypatch, script):
    monkeypatch.setitem(sys.modules, "spams", None)
    x, dictionary = signals(5, 8).astype("float32"), unit_atoms(6, 8)
    args = script.parse_arguments(["--n-atoms", "6"])
    with pytest.raises(SystemExit, match=r"spams.*pip install '\.\[benchmark\]'"):
        encoding._peers(x, dictionary, 0.1, args)


def test_the_hand_written_loop_trains_as_fit_does():
    x = signals(training.BATCH_SIZE, 16).astype("float32")
    model = SC2Net(12, (16,), n_steps=3)
    loop = training.HandWrittenLoop(model)
    weights, *_ = loop.state
    model.compile()
    history = model.fit(x, batch_size=training.BATCH_SIZE, shuffle=False, verbose=0)
    expected = loop.loss(weights, x)
    assert history.history["loss"] == [pytest.approx(float(expected), rel=1e-5)]
    loop.fit(x, epochs=1)
    ours = loop.weights_of(model.encoder.cell)
    for theirs, weight in zip(loop.state[0], ours, strict=True):
        np.testing.assert_allclose(to_numpy(theirs), to_numpy(weight.value), atol=2e-5)


def test_fista_in_numpy_is_fista():
    x, dictionary = signals(6, 12).astype("float32"), unit_atoms(20, 12)
    codes = encoding.numpy_fista(x, dictionary.astype("float32"), 0.1, 40)
    np.testing.assert_allclose(codes, fista(x, dictionary, 0.1, 40)[:, -1], atol=2e-5)


def test_functions_take_turns():
    calls = []
    functions = {name: lambda name=name: calls.append(name) or name for name in "ab"}
    results, seconds = measure.interleaved(functions, 2, "turns")
    assert calls == list("ababab")
    assert results == {"a": "a", "b": "b"}
    assert {len(s) for s in seconds.values()} == {2}


def test_products_of_a_training_step():
    encoder = measure.encoder_products(3, 10, 7, 5)
    assert measure.operations(encoder) == 2 * 10 * (7 * 15 + 2 * 5 * 15)
    # Of three products a matrix takes part in, x's own gradient is the one left out.
    training_step = measure.training_products(3, 10, 7, 5)
    decoder, projection, recurrent = 10 * 5 * 7, 10 * 7 * 15, 2 * 10 * 5 * 15
    expected = 2 * (3 * decoder + 2 * projection + 3 * recurrent)
    assert measure.operations(training_step) == expected


def test_products_only_does_them_all():
    run = measure.products_only([((4, 3, 5), 2), ((3, 4, 2), 1)], repeats=3)
    assert np.isfinite(run()).all()


def test_the_front_holds_what_nothing_beats():
    def point(rate, gap):
        return {"codes_per_second": rate, "gap": gap}

    beaten = [point(5, 0.2), point(1, 0.01)]
    front = [point(10, 0.1), point(2, 0.01), point(0.5, 0.001)]
    assert report.pareto_front([*beaten, *front]) == front


def test_the_setting_of_a_label():
    families = {
        "SC2Net, 3 steps, bfloat16": ("SC2Net in bfloat16", "3"),
        "FISTA, duality gap ≤ 0.01": ("FISTA to a duality gap", "0.01"),
        "SPAMS lasso": ("SPAMS lasso", ""),
    }
    for label, expected in families.items():
        assert report.family({"label": label}) == expected


def test_memory_is_that_of_this_process():
    before = measure.memory_mb()
    held = np.ones((40, 1000, 1000), dtype="float32")
    assert measure.memory_mb() - before == pytest.approx(160, abs=30)
    assert measure.memory_mb("VmHWM") > held.nbytes / 1e6


def test_a_section_from_another_machine_says_so(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    report.Results(path, {}).once("early", lambda: 1)
    here = report.environment(report.PEERS)
    monkeypatch.setattr(report, "environment", lambda peers: here | {"cpu": "another"})
    results = report.Results(path, {})
    results.once("early", lambda: 2)
    results.once("late", lambda: 3)
    content = json.loads(path.read_text())
    assert (content["early"], content["late"]) == (1, 3)
    assert {k: v["cpu"] for k, v in content["environments"].items()} == {
        "late": "another"
    }
