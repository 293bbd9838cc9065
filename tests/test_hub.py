"""Models in folders and on a stand-in for the Hugging Face Hub, over real HTTP."""

import hashlib
import http.server
import json
import os
import shutil
import socket
import threading

import keras
import numpy as np
import pytest
from huggingface_hub import constants

import sc2keras
from sc2keras import cli, io
from sc2keras.applications import LISTA, SC2Net, weights_card
from sc2keras.hub import save_to_preset
from sc2keras.sklearn import SparseCodeTransformer
from sc2keras_command import parse_arguments

COMMIT = "0123456789abcdef" * 2 + "01234567"
ADDRESS = "hf://someone/lista"


class Hub(http.server.ThreadingHTTPServer):
    """Serves the files of a folder as the repository `someone/lista`."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder

    def answer(self, path):
        """Content and headers, or None."""
        files = {p.name: p for p in sorted(self.folder.iterdir()) if p.is_file()}
        if path == "/api/models/someone/lista/revision/main":
            return self.json({"id": "someone/lista", "sha": COMMIT, "siblings": []})
        if path == f"/api/models/someone/lista/tree/{COMMIT}":
            return self.json(
                [
                    {"type": "file", "path": name, "oid": name, "size": len(content)}
                    for name, content in ((k, v.read_bytes()) for k, v in files.items())
                ]
            )
        start, name = os.path.split(path)
        if start == f"/someone/lista/resolve/{COMMIT}" and name in files:
            content = files[name].read_bytes()
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return content, {"ETag": etag, "X-Repo-Commit": COMMIT}
        return None

    def json(self, content):
        return json.dumps(content).encode(), {"Content-Type": "application/json"}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self):
        found = self.server.answer(self.path.partition("?")[0])
        content, headers = found or (b"{}", {"X-Error-Code": "RepoNotFound"})
        self.send_response(200 if found else 404)
        for name, value in {**headers, "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        """Keeps the tests' output to themselves."""


def go_to(endpoint, cache, monkeypatch):
    """As the variables HF_ENDPOINT and HF_HOME, which are read but once."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    # The client compiles addresses of files with the endpoint it was imported with.
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def model():
    return LISTA(6, (2, 4), n_steps=2, l1=0.3)


@pytest.fixture
def x():
    return np.random.default_rng(0).random((9, 2, 4), dtype="float32")


@pytest.fixture
def folder(model, tmp_path):
    return save_to_preset(model, tmp_path / "lista", {"data": "noise|dots"})


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    with Hub(folder) as server:
        thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True
        )
        thread.start()
        go_to(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache", monkeypatch)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # Nobody listens there.
        port = closed.getsockname()[1]
        go_to(f"http://127.0.0.1:{port}", tmp_path / "empty", monkeypatch)
        yield


def encode(name, x, folder):
    np.save(folder / "x.npy", x)
    arguments = ["encode", str(name), f"{folder}/x.npy", f"{folder}/codes.npy"]
    cli.run(parse_arguments(arguments))
    return np.load(folder / "codes.npy")


def test_a_folder_is_loaded_by_keras_builders_and_commands(model, folder, x, tmp_path):
    expected = model.encode(x)
    for copy in (keras.saving.load_model(folder), LISTA(weights=folder)):
        np.testing.assert_array_equal(copy.encode(x), expected)
    np.testing.assert_allclose(encode(folder, x, tmp_path), expected, atol=1e-6)


def test_an_address_of_the_hub_is_one_of_a_model(hub, model, x, tmp_path, capsys):
    copy = LISTA(weights=ADDRESS)
    np.testing.assert_array_equal(copy.encode(x), model.encode(x))
    codes = encode(ADDRESS, x, tmp_path)
    np.testing.assert_allclose(codes, model.encode(x), atol=1e-6)
    cli.run(parse_arguments(["info", ADDRESS]))
    assert "LISTABlock(n_atoms=6" in capsys.readouterr().out
    with pytest.raises(ValueError, match=f"{ADDRESS}.*n_atoms=6; received n_atoms=7"):
        LISTA(7, weights=ADDRESS)
    with pytest.raises(ValueError, match="made with the encoder sc2keras>LISTABlock"):
        SC2Net(weights=ADDRESS)


def test_a_transformer_takes_an_address_and_a_folder(hub, folder, model, x):
    rows = x.reshape(len(x), -1)
    for name in (ADDRESS, folder):
        coder = SparseCodeTransformer(model=name).fit(rows)
        np.testing.assert_array_equal(coder.transform(rows), model.encode(x))
    with pytest.raises(ValueError, match="hf://someone/else cannot be loaded"):
        SparseCodeTransformer(model="hf://someone/else").fit(rows)


def test_what_was_downloaded_needs_no_network(hub, model, x):
    LISTA(weights=ADDRESS)
    hub.answer = lambda path: None
    np.testing.assert_array_equal(LISTA(weights=ADDRESS).encode(x), model.encode(x))


def test_a_model_that_the_hub_has_not_is_an_error_with_its_name(hub):
    with pytest.raises(OSError, match=r"hf://someone/else cannot be .*its name"):
        LISTA(weights="hf://someone/else")
    os.remove(hub.folder / "config.json")
    with pytest.raises(OSError, match=r"config\.json.*what sc2keras\.hub"):
        LISTA(weights=ADDRESS)


def test_without_a_network_the_error_says_so(no_network, x, tmp_path):
    with pytest.raises(OSError, match=f"^{ADDRESS} cannot be loaded.*the network"):
        LISTA(weights=ADDRESS)
    with pytest.raises(SystemExit, match=f"^error: {ADDRESS} cannot .*the network"):
        encode(ADDRESS, x, tmp_path)


def test_without_the_package_the_error_names_it(monkeypatch):
    monkeypatch.setattr("keras.src.saving.saving_lib.huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'sc2keras\[hub\]'"):
        LISTA(weights=ADDRESS)
    with pytest.raises(io.ModelError, match=r"pip install 'sc2keras\[hub\]'"):
        io.load_model(ADDRESS)


@pytest.mark.parametrize("name", ["hf://lista", "hf://a/b/c", "hf://a/b?x"])
def test_an_address_has_an_owner_and_a_model(name):
    with pytest.raises(ValueError, match="is hf://owner/model; received 'hf://"):
        LISTA(weights=name)


def test_the_readme_is_the_card(folder, tmp_path):
    text = (folder / "README.md").read_text()
    assert r"| data | noise\|dots |" in text and "license" not in text
    assert "| n_atoms | 6 |" in text and "hf://OWNER/lista" in text
    card = weights_card("LISTA", "digits")
    save_to_preset(LISTA(weights="digits"), tmp_path / "digits", card)
    text = (tmp_path / "digits" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: keras\nlicense: apache-2.0\n")
    assert f"{card['test']['objective']:.4f} on test" in text
    assert f"| made by | {card['command']} |" in text


@pytest.mark.parametrize(
    ("licence", "written"),
    [("Apache-2.0", "apache-2.0"), ("MIT: for\nall", "other"), (3, "other")],
)
def test_a_licence_is_a_name_of_the_hub(model, tmp_path, licence, written):
    folder = save_to_preset(model, tmp_path / "lista", {"licence": licence})
    head = (folder / "README.md").read_text().split("---")[1].splitlines()
    assert f"license: {written}" in head and len(head) == 6


def test_what_is_no_model_or_card_is_named(model, tmp_path):
    with pytest.raises(ValueError, match="received a Sequential"):
        save_to_preset(keras.Sequential(), tmp_path / "a")
    with pytest.raises(ValueError, match="card must be a dictionary"):
        save_to_preset(model, tmp_path / "a", "a text")


def test_an_earlier_export_is_replaced_and_nothing_else(model, folder):
    save_to_preset(model, folder)
    assert "noise" not in (folder / "README.md").read_text()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        save_to_preset(model, folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_weights_that_are_not_finite_are_neither_written_nor_read(
    model, folder, tmp_path
):
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(ValueError, match="nothing was saved"):
        save_to_preset(model, folder)
    keras.saving.save_model(model, tmp_path / "nan", zipped=False)
    with pytest.raises(ValueError, match="NaN"):
        LISTA(weights=tmp_path / "nan")


def test_another_model_is_refused_by_name(folder):
    shutil.rmtree(folder)
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    keras.saving.save_model(other, folder, zipped=False)
    with pytest.raises(ValueError, match="holds a Sequential, and no SparseCoder"):
        LISTA(weights=folder)
    with pytest.raises(io.ModelError, match="holds a Sequential"):
        sc2keras.io.load_model(folder)
