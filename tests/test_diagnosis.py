import json
import re

import keras
import numpy as np
import pytest
from experiments.studies import own_data
from helpers import (
    EXHAUSTIVE,
    FEW_OF_THE_LASSO,
    eagerly,
    signals,
    unit_atoms,
    with_slow,
)

import sc2keras
from sc2keras import applications, diagnosis, evaluation, layers
from sc2keras.diagnosis import diagnose, l1_from
from sc2keras.hub import save_to_preset
from sc2keras.plotting import explorer
from sc2keras.sklearn import SparseCodeTransformer

X = signals(60, 12)


def narrow(found):
    assert max(map(len, str(found).splitlines())) <= 80
    return " ".join(str(found).split())


def solver(**kwargs):
    options = {"l1": 0.1, "tol": 1e-6, "n_steps": 2000, **kwargs}
    return applications.FISTA(8, (12,), **options)


@pytest.mark.parametrize("entry", FEW_OF_THE_LASSO, ids=lambda entry: entry.name)
def test_every_encoder_is_diagnosed(entry):
    model = applications.build(entry.name, n_atoms=5, input_shape=(3, 4), n_steps=2)
    x = X.reshape(60, 3, 4)
    found, codes = diagnose(model, x), model.encode(x)
    quality = evaluation.code_quality(model, x, codes)
    assert found.objective == pytest.approx(quality.objective, rel=1e-4)
    assert found.optimum == pytest.approx(quality.optimum, rel=1e-4)
    assert found.zero == pytest.approx(np.mean(codes == 0))
    assert found.n_dead == np.sum(~(codes != 0).any(axis=0))
    lost = np.sum((x - model.decode(codes)) ** 2) / np.sum(x**2)
    assert found.error == pytest.approx(lost, rel=1e-4)
    assert "all 60" in narrow(found)
    assert json.loads(json.dumps(found.as_dict()))["n_atoms"] == 5


def test_codes_without_a_lasso_have_no_optimum():
    model = applications.LISTA(5, (12,), activation="top_k", classes=3)
    found = diagnose(model, X)
    assert found.optimum is found.gap is found.l1 is None
    error = np.mean(np.sum((X - model.reconstruct(X)) ** 2, axis=1)) / 2
    assert found.objective == pytest.approx(error, rel=1e-5)
    assert "optimum" not in narrow(found)


def test_entries_that_never_become_zero_are_explained():
    found = diagnose(applications.LISTA(5, (12,), activation="double_tanh"), X)
    assert found.zero == 0.0 and 'activation="shrinkage"' in narrow(found)


def test_what_works_has_nothing_off():
    dictionary = np.eye(12)
    x = np.random.default_rng(0).standard_normal((50, 12))
    model = applications.FISTA(12, (12,), l1=0.7, dictionary=dictionary, tol=1e-5)
    found = diagnose(model, x)
    assert found.findings == () and narrow(found).endswith("off nothing")
    assert found.n_at_limit == 12 and found.gap < 1e-3


@pytest.mark.parametrize(
    ("model", "x", "words"),
    [
        (lambda: solver(l1=50.0), X, "All codes are zero. Lower l1=50, for instance"),
        (lambda: solver(l1=1e-3), X, "entries are zero. Raise l1=0.001"),
        (lambda: solver(l1=1.2), X, "of the signal is lost. To keep more"),
        (
            lambda: solver(n_steps=1, tol=None),
            X,
            "more than the best ones. Give tol=1e-3",
        ),
        (lambda: applications.LISTA(8, (12,), l1=0.0, n_steps=1), X, "Train for more"),
        (
            lambda: solver(dictionary=np.eye(8, 12)),
            X * (np.arange(12) < 3),
            "5 of 8 atoms are dead: no code of these samples uses them. Build",
        ),
        (lambda: solver(dictionary=np.eye(8, 12) / 2), X, "atoms that codes use are"),
    ],
)
def test_what_is_off_has_a_remedy(model, x, words):
    assert words in narrow(diagnose(model(), x))


def test_codes_of_zeros_below_the_limit_are_those_of_a_collapse():
    model = applications.SC2Net(8, (12,), l1=0.1)
    model.encoder.dictionary.assign(1e-20 * model.encoder.dictionary)
    for weight in model.weights:
        weight.assign(keras.ops.zeros_like(weight.value))
    model.encoder.dictionary.assign(np.eye(8, 12))
    (finding,) = diagnose(model, X).findings
    assert finding.startswith("All codes are zero. Build the model anew")
    assert "learning rate" in finding


def test_codes_of_zeros_of_random_atoms_do_not_ask_for_a_tiny_l1():
    model = applications.SC2Net(8, (12,), l1=50.0)
    (finding,) = diagnose(model, X).findings
    assert "dictionary=sc2keras.sample_dictionary(x, 8)" in finding
    assert "scale these samples" in finding and "for instance to" not in finding


def test_a_larger_l1_comes_with_atoms_that_outlive_it():
    found = diagnose(applications.SC2Net(8, (12,), l1=1e-4), X)
    assert "with dictionary=sc2keras.sample_dictionary(x, 8)" in narrow(found)
    given = {"dictionary": np.eye(8, 12), "trainable_dictionary": False}
    found = diagnose(applications.SC2Net(8, (12,), l1=1e-4, **given), X)
    assert "Raise l1=0.0001" in narrow(found) and "sample_dict" not in narrow(found)


def test_dense_codes_that_lose_much_do_not_ask_for_less_and_more_l1():
    model = applications.LISTA(2, (12,), l1=1e-3, n_steps=1)
    text = narrow(diagnose(model, 100 * X))
    assert "Raise l1" in text and "of the signal is lost. To keep more" in text
    assert "lower l1" not in text


def overshooting(factor):
    """A network of one step, that many times as long as it should be."""
    options = {"n_steps": 1, "tied": False, "l1": 1e-3}
    model = applications.LISTA(12, (12,), dictionary=np.eye(12), **options)
    for weight in model.weights:
        if "kernel" in weight.path:
            weight.assign(factor * weight.value)
    return model


def test_samples_of_another_scale_are_told():
    text = narrow(diagnose(overshooting(3), X))
    assert "more than codes of zeros have. Scale these samples" in text
    assert "To keep more" not in text


def test_columns_in_different_units_are_told():
    x = X.copy()
    assert "Standardise" not in narrow(diagnose(solver(), x))
    x[:, 7] *= 1e4
    found = diagnose(solver(), x)
    assert found.findings[0].startswith("Feature 7 is ")
    images = applications.FISTA(8, (3, 4, 1))
    assert "Standardise" not in narrow(diagnose(images, x.reshape(-1, 3, 4, 1)))


def test_figures_far_from_one_are_short():
    dictionary = 1e-3 * np.eye(12)
    found = diagnose(
        solver(l1=1e-6, dictionary=dictionary[:8], n_steps=1, tol=None), 1e4 * X
    )
    assert re.search(r"1e-06, [\d.e-]+ times max \|x Dᵀ\|", narrow(found))
    text = narrow(diagnose(overshooting(3), 1e3 * X))
    assert re.search(r"[\d,.e+]+ times the optimum", text)
    assert re.search(r"cost [\d,.e+]+ times the best ones", text)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_numbers_beyond_float32_are_refused(scale):
    with pytest.raises(ValueError, match="whose squares float32 does not hold"):
        diagnose(solver(), scale * X)


def test_of_fewer_samples_than_atoms_more_are_asked_for():
    found = diagnose(solver(dictionary=np.eye(8, 12)), X[:2] * (np.arange(12) < 3))
    assert "Look at more samples first." in narrow(found)


def test_a_transformer_is_diagnosed():
    coder = SparseCodeTransformer(n_atoms=5, l1=0.1, builder="FISTA", random_state=0)
    assert diagnose(coder.fit(X), X) == diagnose(coder.model_, X)


@pytest.fixture
def untraced():
    with eagerly():
        yield


def fitted(**options):
    how = {"start": unit_atoms(8, 12), "l1": 0.1, "epochs": 1, "random_state": 0}
    return SparseCodeTransformer(**how | options).fit(X)


@pytest.mark.parametrize(
    "changes",
    [
        {"l1": 0.7},
        {"transform_alpha": 0.7},
        {"positive_code": True},
        {"transform_algorithm": "lasso"},
        {"transform_algorithm": "network"},
    ],
)
@pytest.mark.parametrize(
    "builder", with_slow(["LISTA"], ["ActiveSet", "given"], EXHAUSTIVE)
)
def test_of_a_transformer_the_codes_are_those_of_transform(builder, changes, untraced):
    center = builder != "LISTA"
    if builder == "given":
        coder = SparseCodeTransformer(model=fitted(center=center).model_).fit(X)
    else:
        coder = fitted(builder=builder, center=center)
    coder.set_params(**changes)
    try:
        codes = coder.transform(X)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            diagnose(coder, X)
        return
    found = diagnose(coder, X)
    assert found.zero == pytest.approx(np.mean(codes == 0))
    assert found.n_dead == np.sum(~(codes != 0).any(axis=0))
    mean = X.mean(axis=0) if center else 0.0
    lost = np.sum((X - coder.inverse_transform(codes)) ** 2) / np.sum((X - mean) ** 2)
    assert found.error == pytest.approx(lost, rel=1e-4)
    if builder == "ActiveSet" and "positive_code" not in changes:
        expected = {"l1": 0.7, "transform_alpha": 0.7}.get(*changes, 0.1)
        assert found.l1 == pytest.approx(expected)


@pytest.mark.parametrize("look", [diagnose, explorer, save_to_preset])
@pytest.mark.parametrize("algorithm", ["omp", "threshold"])
def test_codes_that_no_model_makes_are_refused(algorithm, look, tmp_path, untraced):
    coder = fitted(transform_algorithm=algorithm)
    message = f"transform_algorithm='{algorithm}' makes codes .* Set .* or give model_"
    with pytest.raises(ValueError, match=message):
        look(coder, X if look is not save_to_preset else tmp_path / "model")


@pytest.mark.parametrize(
    "options",
    with_slow([{"transform_alpha": 1e-3}], [{}, {"builder": "LISTA"}], EXHAUSTIVE),
)
def test_what_a_transformer_is_told_helps(options, untraced):
    coder = fitted(**{"l1": 1e-3, "transform_algorithm": "lasso"} | options)
    name = "transform_alpha" if "transform_alpha" in options else "l1"
    before = diagnose(coder, X)
    told = re.search(rf"Raise {name}=0.001, for instance to ([\d.]+)", narrow(before))
    coder.set_params(**{name: float(told[1])})
    after = diagnose(coder, X)
    assert after.l1 == float(told[1]) and after.zero > before.zero
    assert "Raise" not in narrow(after)


def test_a_mean_that_is_taken_out_rules_nothing(untraced):
    x = X + 100.0 * (np.arange(12) == 7)
    assert "Feature 7" in narrow(diagnose(fitted().fit(x), x))
    assert "Feature 7" not in narrow(diagnose(fitted(center=True).fit(x), x))
    model = solver(offset=x[0])
    assert diagnose(model, x[:1].repeat(3, axis=0)).zero == 1.0


@pytest.mark.parametrize("activation", ["top_k", "batch_top_k", "relu"])
def test_of_an_autoencoder_what_is_told_to_change_is_what_counts(activation, untraced):
    def told(k, bias):
        model = applications.SparseAutoencoder(8, (12,), k=k, activation=activation)
        model.encoder.bias.assign(np.full(8, bias))
        return narrow(diagnose(model, X))

    many = told(k=7, bias=9.0)
    if activation == "relu":
        assert "entries are zero. Take other arguments of the activation, or" in many
        return
    assert "entries are zero. Take a smaller k than k=7, or more atoms." in many
    few = told(k=1, bias=0.0)
    assert "of the signal is lost. To keep more of it, raise k=1, or take" in few
    assert "l1" not in many + few


@pytest.mark.parametrize("builder", ["LISTA", "SC2Net"])
def test_of_a_network_with_top_k_k_is_named(builder, untraced):
    def told(k):
        model = applications.build(builder, 8, (12,), activation=layers.TopK(k))
        return narrow(diagnose(model, X - 0.5))

    assert "entries are zero. Take a smaller k than k=7" in told(7)
    assert "l1" not in told(7) + told(1)


def test_a_dictionary_without_a_part_in_the_samples_is_diagnosed():
    model = solver(dictionary=np.eye(8, 12))
    found = diagnose(model, X * (np.arange(12) >= 8))
    assert found.n_dead == 8 and "inf% of max" in narrow(found)
    assert found.findings[0].startswith("All codes are zero. Build")


def test_of_many_samples_a_seeded_choice_is_looked_at(monkeypatch, tmp_path):
    monkeypatch.setattr(diagnosis, "_MOST_SAMPLES", 20)
    model = solver()
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = diagnose(model, mapped)
    assert found == diagnose(model, X) and found.n_samples == 20
    assert "20 of 60, drawn with seed 0" in narrow(found)
    assert diagnose(model, X, seed=1).objective != found.objective
    stream = diagnose(model, (part for part in np.split(X, 6)))
    assert stream.n_samples == 20 and "the first 20" in narrow(stream)
    tensor = keras.ops.convert_to_tensor(X)
    assert diagnose(model, tensor).objective == pytest.approx(found.objective)


def test_the_work_for_the_optimum_is_bounded(monkeypatch):
    monkeypatch.setattr(diagnosis, "_MOST_OPTIMA", 7)
    found = diagnose(solver(), X)
    assert found.n_optima == 7 and found.n_samples == 60
    assert "(of 7 samples)" in narrow(found)


def test_unusable_samples_and_models_are_named():
    model, x = solver(), X.copy()
    x[41, 3] = np.nan
    with pytest.raises(ValueError, match=r"x\[41\]"):
        diagnose(model, x)
    with pytest.raises(ValueError, match="holds no samples"):
        diagnose(model, X[:0])
    with pytest.raises(ValueError, match="received a Dense"):
        diagnose(keras.layers.Dense(3), X)
    with pytest.raises(ValueError, match="zero in all of 60 samples"):
        diagnose(model, 0 * X)


def test_l1_is_a_share_of_where_codes_become_zero():
    dictionary = np.eye(8, 12)
    one = X[:1]
    for share, is_zero in ((0.99, False), (1.01, True)):
        model = solver(dictionary=dictionary, l1=l1_from(one, dictionary, share))
        assert (not model.encode(one).any()) == is_zero
    assert l1_from(1e3 * X, dictionary) == pytest.approx(1e3 * l1_from(X, dictionary))
    with pytest.raises(ValueError, match="share must be a finite number > 0"):
        l1_from(X, dictionary, 0)
    with pytest.raises(ValueError, match="no sample that the dictionary"):
        l1_from(0 * X, dictionary)
    with pytest.raises(ValueError, match="no sample that the dictionary"):
        l1_from(X[:0], dictionary)
    with pytest.raises(ValueError, match="dictionary must be finite"):
        l1_from(X, np.nan * dictionary)
    for x, atoms in ((X[0], dictionary), (X, dictionary[:, 1:]), (X, dictionary[0])):
        with pytest.raises(ValueError, match=r"must be \(n_samples, ...\)"):
            l1_from(x, atoms)


@pytest.mark.slow
@pytest.mark.parametrize("name", own_data.DATA)
def test_the_recipe_of_own_data_gives_sparse_codes_of_living_atoms(name):
    load, n_atoms = own_data.DATA[name]
    keras.utils.set_random_seed(0)
    model, train, _ = own_data.page(*load(0), n_atoms, 0, None)
    found = sc2keras.diagnose(model, train)
    assert 1 - found.zero <= 0.4 and found.n_dead <= 0.1 * n_atoms, found


def test_a_recipe_for_samples_makes_a_thousand_updates():
    for n in (1, 31, 200, 455, 12_799, 12_800, 60_000):
        assert sc2keras.Recipe.for_samples(n).n_updates(n) >= 1000
    recipe = sc2keras.Recipe.for_samples(200, epochs=2, learning_rate=0.1)
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (2, 32, 0.1)
    with pytest.raises(ValueError, match="n_samples=0"):
        sc2keras.Recipe.for_samples(0)
