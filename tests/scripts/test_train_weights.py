import json
import shutil

import keras
import pytest
import train_weights
from experiments import weights
from experiments.records import Store
from experiments.runs import Run
from helpers import small_digits

from sc2keras import applications, datasets
from sc2keras.applications import pretrained

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def little_work(monkeypatch):
    small = small_digits(300)
    monkeypatch.setattr(train_weights, "load_data", lambda name, data_dir: small)
    l1, recipe = weights.TRAINING["digits"]
    monkeypatch.setitem(weights.TRAINING, "digits", (l1, recipe.replace(epochs=1)))


def train(tmp_path, *builders):
    folders = {name: tmp_path / name for name in ("work", "output")}
    options = [f"--{name}={folder}" for name, folder in folders.items()]
    options.append(f"--table={tmp_path / 'table.md'}")
    train_weights.main(["--datasets", "digits", "--builders", *builders, *options])
    return folders["output"]


def test_a_model_and_its_card_are_what_the_package_ships(tmp_path, monkeypatch):
    folder = train(tmp_path, "SC2Net", "LFISTA")
    monkeypatch.setattr(pretrained, "_FOLDER", folder)
    assert applications.list_weights() == {"LFISTA": ["digits"], "SC2Net": ["digits"]}
    card = applications.weights_card("SC2Net", "digits")
    assert card["command"].endswith("--datasets digits --builders SC2Net")
    assert card["settings"]["epochs"] == 1 and "300 samples" in card["data"]["split"]
    model = applications.SC2Net(weights="digits")
    made = keras.saving.load_model(tmp_path / "work/runs/models/sc2net-digits.keras")
    x = datasets.load("digits").x_test[:20]
    assert (model.encode(x) == made.encode(x)).all()
    assert not model.compiled
    # A card has no figure that the run did not measure.
    record = Store(tmp_path / "work/runs").find("sc2net-digits")
    assert card["test"]["full"] == record["full"]
    assert card["test"]["gap"] == record["gap"]


def test_what_is_trained_is_kept_and_the_table_holds_every_card(tmp_path, monkeypatch):
    folder = train(tmp_path, "LISTA")
    shutil.rmtree(folder)
    monkeypatch.setattr(Run, "train", lambda *args: pytest.fail("trained again"))
    train(tmp_path, "LISTA")
    card = json.loads((folder / "lista-digits.json").read_text())
    row = (tmp_path / "table.md").read_text().splitlines()[2].strip("| ").split(" | ")
    assert row[:4] == ["LISTA", "digits", "0.1", "5"]
    assert f"{100 * card['test']['full']:.2f}" in row
