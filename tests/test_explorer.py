import json
import re
import tempfile

import keras
import numpy as np
import pytest
from chromium import Chromium, find_chromium
from helpers import signals, unit_atoms
from keras import ops

import sc2keras
from sc2keras import applications, cli, datasets, io, plotting
from sc2keras.evaluation import mean_objective
from sc2keras.explorer import explorer, figures, view_file
from sc2keras.explorer.packing import pack, unpack
from sc2keras.objective import lasso_objective, relative_duality_gap
from sc2keras.sklearn import SparseCodeTransformer
from sc2keras_command import parse_arguments

EVIL = "</script><script>alert(1)</script><b title='\"{{data}}'>&"


def data_of(page):
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(pattern, page.html, re.DOTALL)[1])


def tiles_of(page):
    pattern = r'<dt>([^<]*)</dt><dd><data value="([^"]*)">'
    return {name: float(value) for name, value in re.findall(pattern, page.html)}


def make_model(input_shape, n_atoms=12, name="LISTA", **kwargs):
    n_features = int(np.prod(input_shape))
    atoms = unit_atoms(n_atoms, n_features)
    atoms[0] = -np.abs(atoms[0])  # It never fires on signals that are positive.
    builder = getattr(applications, name)
    return builder(n_atoms, input_shape, dictionary=atoms, **kwargs)


@pytest.fixture(scope="module")
def gray():
    model = applications.SC2Net(weights="digits")
    return model, datasets.load("digits").x_test


@pytest.fixture(scope="module")
def gray_page(gray):
    return explorer(*gray)


# What the page says.


def test_figures_are_those_of_evaluate_and_of_the_evaluation(gray, gray_page):
    model, x = gray
    tiles, codes = tiles_of(gray_page), model.encode(x)
    copy = applications.SC2Net(weights="digits")
    copy.compile(duality_gap=True)
    expected = copy.evaluate(x, batch_size=len(x), verbose=0, return_dict=True)
    assert tiles["objective"] == pytest.approx(expected["loss"], rel=1e-5)
    assert tiles["duality gap"] == pytest.approx(expected["duality_gap"], rel=1e-4)
    assert tiles["nonzero"] == pytest.approx(expected["nonzero"], rel=1e-5)
    of_dictionary = mean_objective(x, codes, model.dictionary, model.encoder.l1)
    assert tiles["objective"] == pytest.approx(of_dictionary, rel=1e-5)
    share = np.sum((x - model.reconstruct(x)) ** 2) / np.sum(x**2)
    assert tiles["left over"] == pytest.approx(share, rel=1e-4)
    assert tiles["dead atoms"] == np.sum(~(np.abs(codes) > 1e-3).any(axis=0))


def test_each_sample_has_its_own_objective_and_gap(gray, gray_page):
    model, x = gray
    held = data_of(gray_page)["samples"]
    rows = unpack(held["rows"])
    assert len(set(rows.tolist())) == len(rows) > 300
    x = x[rows].reshape(len(rows), -1)
    asked = x, model.encode(x.reshape(-1, 8, 8, 1)), model.dictionary, model.encoder.l1
    objectives = ops.convert_to_numpy(lasso_objective(*asked))
    np.testing.assert_allclose(unpack(held["objective"]), objectives, rtol=1e-4)
    gaps = ops.convert_to_numpy(relative_duality_gap(*asked))
    np.testing.assert_allclose(unpack(held["gap"]), gaps, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(unpack(held["x"]), x, atol=1 / 510 + 1e-6)
    np.testing.assert_allclose(unpack(held["codes"]), asked[1], rtol=1e-3, atol=1e-5)


def test_what_is_decoded_is_what_the_model_decodes(gray, gray_page):
    model, x = gray
    data = data_of(gray_page)
    codes = model.encode(x)
    atoms, offset = unpack(data["atoms"]), unpack(data["offset"])
    decoded = (codes @ atoms + offset).reshape(x.shape)
    np.testing.assert_allclose(decoded, model.decode(codes), atol=2e-3)
    norms = np.linalg.norm(model.dictionary, axis=1)
    np.testing.assert_allclose(unpack(data["norm"]), norms, rtol=1e-5)


def test_atoms_are_counted_where_they_fire():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((200, 5)) * (rng.random((200, 5)) < 0.3)
    codes[:, 2] = 1e-4  # No more than a double tanh leaves of a zero.
    codes[3, 4] = -7.0
    found = figures.atom_figures(codes)
    fires = np.abs(codes) > 1e-3
    np.testing.assert_allclose(found.fires, fires.mean(axis=0))
    assert found.fires[2] == 0 and (found.top[2] == -1).all()
    assert found.largest[4] == -7.0 and found.top[4, 0] == 3
    np.testing.assert_array_equal(found.counts.sum(axis=1), fires.sum(axis=0))
    for j in (0, 1, 3, 4):
        values = codes[fires[:, j], j]
        assert found.mean[j] == pytest.approx(np.abs(values).mean())
        assert (found.low[j], found.high[j]) == (values.min(), values.max())
        top = np.abs(codes[found.top[j], j])
        best = np.sort(np.abs(values))[::-1][: figures.N_TOP]
        np.testing.assert_array_equal(top, best)


def test_the_best_sample_of_every_atom_comes_before_the_second_best_of_any():
    top = np.arange(100, 140).reshape(20, 2)
    rows, n_spread = figures.choose_samples(top, 1000, 40)
    assert n_spread == 20 and len(rows) == 40
    assert rows[20:].tolist() == top[:, 0].tolist()
    rows, n_spread = figures.choose_samples(top, 1000, 1000)
    assert set(top.ravel()) <= set(rows.tolist()) and n_spread == 48


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32"])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e7])
def test_arrays_come_back_up_to_their_rounding(dtype, scale):
    x = scale * np.random.default_rng(0).uniform(-1, 2, (7, 3))
    x = x.astype(int) if dtype == "int32" else x
    back = unpack(json.loads(json.dumps(pack(x, dtype))))
    step = {"uint8": 3 / 510, "float16": 1e-3}.get(dtype, 1e-6)
    np.testing.assert_allclose(back, x, atol=1.01 * step * scale)
    assert unpack(pack(np.zeros((2, 0)), dtype)).shape == (2, 0)
    assert not unpack(pack(np.zeros((2, 3)), dtype)).any()


def test_of_other_codes_than_of_the_lasso_no_gap_is_told():
    model = make_model((6,), activation=sc2keras.layers.TopK(3))
    page = explorer(model, signals(20, 6))
    data = data_of(page)
    assert data["l1"] is None and data["samples"]["gap"] is None
    assert "duality gap" not in tiles_of(page) and "objective" in tiles_of(page)


def test_without_samples_the_page_tells_what_the_model_tells():
    model = make_model((6,), l1=0.25)
    page = explorer(model)
    norms = np.linalg.norm(model.dictionary, axis=1)
    tiles = tiles_of(page)
    assert tiles == {"atoms": 12, "features": 6, "λ": 0.25, "norms": norms.max()}
    assert data_of(page)["samples"] is None and "LISTABlock(n_atoms=12" in page.html


def test_what_reaches_the_page_is_text():
    names = [EVIL, *"abcde"]
    model, x = make_model((6,)), signals(9, 6)
    page = explorer(model, x, title=EVIL, feature_names=names, facts={EVIL: EVIL})
    assert "alert(1)</script>" not in page.html
    assert page.html.count("<script") == 2 and page.html.count("</script>") == 2
    assert data_of(page)["features"] == names


def test_the_columns_of_a_frame_name_the_features():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(signals(9, 6), columns=list("abcdef"))
    assert data_of(explorer(make_model((6,)), frame))["features"] == list("abcdef")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (4, 2)}, r"image_shape=\(4, 2\).*the 6 features"),
        ({"image_shape": (1, 3, 2)}, r"image_shape=\(1, 3, 2\).*1 or 3 channels"),
        ({"feature_names": ["a"]}, r"the model's 6 features; received 1"),
        ({"x": np.zeros((0, 6))}, r"at least one sample.*\(0, 6\)"),
        ({"x": np.zeros((2, 5))}, r"x must have shape \(n_samples, 6\)"),
        ({"x": np.full((2, 6), np.nan)}, r"x must be finite.*x\[0\]"),
    ],
)
def test_what_does_not_fit_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        explorer(make_model((6,)), **arguments)


def test_a_model_of_another_kind_is_an_error_and_a_transformers_is_shown():
    with pytest.raises(ValueError, match="received a Sequential"):
        explorer(keras.Sequential())
    coder = SparseCodeTransformer(n_atoms=3, builder="FISTA", start="samples")
    page = explorer(coder.fit(signals(20, 6)))
    assert page.html == explorer(coder.model_).html


def test_a_dictionary_that_no_page_holds_is_an_error(monkeypatch):
    monkeypatch.setattr("sc2keras.explorer.page._MOST_NUMBERS", 71)
    with pytest.raises(ValueError, match=r"\(12, 6\), more than the 71 numbers"):
        explorer(make_model((6,)))


def test_plotting_has_it_too_and_a_notebook_shows_it():
    page = plotting.explorer(make_model((6,)))
    assert page._repr_html_().startswith('<iframe srcdoc="&lt;!doctype html&gt;')


def mnist_page_is_small(x):
    page = explorer(applications.SC2Net(weights="mnist"), x)
    assert len(page.html.encode()) < 2_000_000
    data = data_of(page)
    assert len(unpack(data["samples"]["rows"])) > 500
    assert (unpack(data["figures"]["top"]) >= 0).mean() > 0.9


def test_images_of_the_size_of_mnist_take_less_than_two_megabytes():
    # Noise, which nothing compresses.
    mnist_page_is_small(signals(1500, 784).reshape(-1, 28, 28, 1))


@pytest.mark.slow
def test_mnist_takes_less_than_two_megabytes(require_dataset):
    mnist_page_is_small(require_dataset("mnist").x_test)


# From files.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    make_model((6,)).save(path)
    return path


def save_rows(path, x):
    np.save(path, x)
    return path


def view(*arguments):
    cli.run(parse_arguments(["view", *map(str, arguments)]))


def test_the_command_writes_a_page_and_does_not_replace_one(saved, tmp_path, capsys):
    x, target = save_rows(tmp_path / "x.npy", signals(30, 6)), tmp_path / "page.html"
    target.write_text("precious")
    with pytest.raises(SystemExit, match=r"page\.html exists.*with --overwrite"):
        view(saved, x, "-o", target)
    assert target.read_text() == "precious"
    view(saved, x, "-o", target, "--overwrite")
    assert capsys.readouterr().out.startswith(f"{target}: open it in a browser")
    model = io.load_model(saved)[0]
    asked = np.load(x), model.encode(np.load(x)), model.dictionary, model.encoder.l1
    page = sc2keras.explorer.Page(target.read_text(encoding="utf-8"))
    assert tiles_of(page)["objective"] == pytest.approx(mean_objective(*asked))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "x.npy"]


def test_options_of_samples_need_samples(saved, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: --split needs samples"):
        view(saved, "-o", tmp_path / "page.html", "--split", "train")
    assert not any(tmp_path.iterdir())


def test_weights_that_ship_bring_their_card(tmp_path):
    target = view_file("LISTA/digits", None, tmp_path / "page.html")
    card = applications.weights_card("LISTA", "digits")
    content = target.read_text(encoding="utf-8")
    assert card["command"] in content and card["data"]["licence"] in content


@pytest.mark.parametrize(
    ("x", "target", "message"),
    [
        (np.ones((3, 6), "float32"), "page.txt", r"page\.txt must end in \.html"),
        (np.ones((3, 6), "float32"), "no/page.html", "There is no folder"),
        (np.ones((3, 5), "float32"), "page.html", r"rows of shape \(5,\)"),
        (np.ones((3, 6), "int64"), "page.html", "dtype int64"),
        (np.ones((0, 6), "float32"), "page.html", "holds no sample"),
        (np.full((3, 6), np.nan, "float32"), "page.html", r"x must be finite"),
    ],
)
def test_what_cannot_be_shown_is_an_error_of_a_line(
    saved, tmp_path, x, target, message
):
    source = save_rows(tmp_path / "x.npy", x)
    with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
        view(saved, source, "-o", tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_of_many_samples_evenly_spread_ones_are_read(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("sc2keras.explorer.files._MOST_SAMPLES", 5)
    x = np.arange(9 * 6, dtype="uint8").reshape(9, 6)
    target = view_file(
        saved, save_rows(tmp_path / "x.npy", x), tmp_path / "page.html", progress=print
    )
    page = sc2keras.explorer.Page(target.read_text(encoding="utf-8"))
    assert "5 of 9, evenly spread" in page.html
    held = unpack(data_of(page)["samples"]["x"])
    np.testing.assert_allclose(held, x[::2] / 255, atol=1e-3)


def test_an_image_that_goes_while_they_are_read_is_an_error(saved, tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in "ab":
        pixels = np.zeros((2, 3), "uint8")
        image.fromarray(pixels).save(tmp_path / f"{name}.png")

    def remove(task, n_done, n_rows):
        if task == "reading samples":
            (tmp_path / "b.png").unlink(missing_ok=True)

    with pytest.raises(io.InputChangedError, match="fewer images"):
        view_file(saved, tmp_path, tmp_path / "page.html", progress=remove)


def test_images_are_shown_as_images_to_a_model_of_vectors(saved, tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    pixels = np.arange(6, dtype="uint8").reshape(2, 3)
    image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    target = view_file(saved, tmp_path / "images", tmp_path / "page.html")
    page = sc2keras.explorer.Page(target.read_text(encoding="utf-8"))
    expected = {"height": 2, "width": 3, "channels": 1}
    assert data_of(page)["image"] == expected


# In a browser.


@pytest.fixture(scope="module")
def browser():
    executable = find_chromium()
    if executable is None:
        pytest.skip("There is no Chromium. Install it: apt-get install chromium.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        chromium = Chromium(executable, folder)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, gray_page):
    """Pages of each kind of signal, by name."""
    folder = tmp_path_factory.mktemp("pages")
    colour = make_model((5, 5, 3))
    features = make_model((20,))
    found = {
        "gray": gray_page,
        "colour": explorer(colour, signals(60, 75).reshape(60, 5, 5, 3)),
        "features": explorer(features, signals(60, 20) - 0.5),
        "alone": explorer(make_model((4, 4))),
    }
    for name, page in found.items():
        page.save(folder / f"{name}.html")
    return folder


KINDS = ("gray", "colour", "features", "alone")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_asks_for_nothing_but_itself_and_reports_no_error(browser, pages, kind):
    browser.open(pages / f"{kind}.html")
    assert browser.problems == []
    assert browser.requests == [(pages / f"{kind}.html").as_uri()]
    assert browser.evaluate("byId('problem').hidden")


def test_a_browser_that_is_too_old_is_told_so(browser, pages):
    browser.open(pages / "alone.html")
    without = "delete window.DecompressionStream"
    add = "Page.addScriptToEvaluateOnNewDocument"
    script = browser.call(add, source=without)["identifier"]
    browser.call("Page.reload")
    try:
        browser.wait("document.getElementById('problem')?.hidden === false")
        assert "current browser" in browser.evaluate("byId('problem').textContent")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_is_used_or_seen_has_a_name(browser, pages, kind):
    browser.open(pages / f"{kind}.html")
    wanted = ["option", "button", "combobox", "listbox", "image"]
    for role in wanted if kind == "alone" else [*wanted, "slider"]:
        names = browser.names(role)
        assert names and all(names), (role, names)


@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_a_narrow_screen(browser, pages, kind):
    browser.open(pages / f"{kind}.html", width=360)
    assert browser.evaluate("document.documentElement.scrollWidth") == 360


CONTRAST = """
(() => {
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const weights = [0.2126, 0.7152, 0.0722];
  const light = (colour) =>
    weights.reduce((sum, weight, i) => sum + weight * linear(colour[i] / 255), 0);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !node.checkVisibility() || node.matches(":disabled")) continue;
    const style = getComputedStyle(node);
    const svg = node instanceof SVGElement;
    const pair = [parse(svg ? style.fill : style.color), behind(node)].map(light);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    found.push([ratio, node.tagName + "." + node.className]);
  }
  return found;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_the_contrast_that_accessibility_asks_for(browser, pages, dark):
    browser.open(pages / "features.html", dark=dark)
    found = browser.evaluate(CONTRAST)
    assert len(found) > 50
    assert min(found)[0] >= 4.5, sorted(found)[:3]


def test_pictures_follow_light_and_dark(browser, pages):
    browser.open(pages / "alone.html")
    context = "byId('atom-picture').getContext('2d')"
    pixel = f"String({context}.getImageData(0, 0, 1, 1).data)"
    before = browser.evaluate(pixel)
    browser.set_dark(True)
    browser.wait(f"{pixel} !== '{before}'")


def test_the_reconstruction_and_its_objective_are_those_of_the_library(
    browser, gray, pages
):
    model, x = gray
    browser.open(pages / "gray.html")
    browser.evaluate("showSample(7)")
    row = browser.evaluate("arrays.rows.values[7]")
    decoded = browser.evaluate("[...decode(code)]")
    x = x[row : row + 1]
    np.testing.assert_allclose(decoded, model.reconstruct(x).ravel(), atol=5e-3)
    codes = model.encode(x)
    j = int(np.argmax(np.abs(codes[0])))
    codes[0, j] *= 0.5
    moved = f"const input = byId('entry-{j}'); input.value = {codes[0, j]};"
    browser.evaluate(moved + "input.dispatchEvent(new Event('input'))")
    asked = x.reshape(1, -1), codes, model.dictionary, model.encoder.l1
    expected = float(lasso_objective(*asked)[0])
    assert browser.evaluate("figuresOf(code).objective") == pytest.approx(
        expected, rel=5e-3
    )
    text = browser.evaluate("byId('sample-figures').rows[0].cells[2].textContent")
    assert float(text) == pytest.approx(expected, rel=5e-3)
    browser.evaluate("byId('reset').click()")
    assert browser.evaluate("byId('reset').disabled && code.every(Number.isFinite)")


def test_the_largest_entries_are_kept(browser, gray, pages):
    model, x = gray
    browser.open(pages / "gray.html")
    row = browser.evaluate("arrays.rows.values[place]")
    browser.evaluate("byId('keep').value = 3; keep()")
    kept = browser.evaluate("[...code.keys()].filter((j) => code[j] !== 0)")
    largest = np.argsort(-np.abs(model.encode(x[row : row + 1])[0]))[:3]
    assert sorted(kept) == sorted(largest.tolist())


def test_atoms_are_sorted_by_how_often_they_fire_and_filtered(browser, gray, pages):
    model, x = gray
    browser.open(pages / "gray.html")
    fires = (np.abs(model.encode(x)) > 1e-3).mean(axis=0)
    shown = "[...byId('grid').children].map((option) => Number(option.dataset.index))"
    order = browser.evaluate(shown)
    assert len(order) == 100 and (np.diff(fires[order]) <= 1e-6).all()
    choose = "byId('{}').value = '{}'; byId('{}').dispatchEvent(new Event('change'));"
    browser.evaluate(choose.format("sort", "index", "sort"))
    assert browser.evaluate(shown) == list(range(100))
    browser.evaluate(choose.format("show", "dead", "show"))
    assert browser.evaluate(shown) == np.flatnonzero(fires == 0).tolist()


def test_the_most_alike_atoms_are_those_of_the_largest_cosine(browser, gray, pages):
    atoms = gray[0].dictionary
    unit = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    cosines = unit @ unit[3]
    cosines[3] = 0
    browser.open(pages / "gray.html")
    found = browser.evaluate("mostAlike(3, 4)")
    best = np.argsort(-np.abs(cosines))[:4]
    assert [other for _, other in found] == best.tolist()
    np.testing.assert_allclose([c for c, _ in found], cosines[best], atol=2e-3)


def test_it_works_by_keyboard_alone(browser, pages):
    browser.open(pages / "gray.html")
    title = "byId('atom-title').textContent"
    focused = "document.activeElement.id || document.activeElement.className"
    stops = []
    for _ in range(4):
        browser.press("Tab")
        stops.append(browser.evaluate(focused))
    assert stops == ["skip", "sort", "show", "option"]
    order = browser.evaluate("order")
    browser.press("ArrowRight")
    assert browser.evaluate(title) == f"Atom {order[1]}"
    browser.press("ArrowDown")
    columns = browser.evaluate(
        "getComputedStyle(byId('grid')).gridTemplateColumns.split(' ').length"
    )
    assert columns > 3
    assert browser.evaluate(title) == f"Atom {order[1 + columns]}"
    browser.press("End")
    assert browser.evaluate(title).startswith(f"Atom {order[-1]}")
    browser.press("Home")
    browser.press("Tab")
    assert "thumb" in browser.evaluate(focused)
    place = browser.evaluate("arrays.top.row(chosen)[0]")
    browser.press("Enter")
    assert browser.evaluate("place") == place
    assert browser.evaluate(focused) == "codes-title"
    browser.evaluate("byId('sliders').querySelector('input').focus()")
    before = browser.evaluate("[...code]")
    browser.press("ArrowLeft")
    assert browser.evaluate("[...code]") != before


def test_an_atom_is_added_to_the_code(browser, pages):
    browser.open(pages / "gray.html")
    browser.evaluate("chooseAtom([...code.keys()].find((j) => code[j] === 0))")
    browser.evaluate("byId('add').click()")
    assert browser.evaluate("code[chosen]") != 0
    assert browser.evaluate("document.activeElement.id === `entry-${chosen}`")


def test_of_features_the_largest_weights_are_listed(browser, pages):
    browser.open(pages / "features.html")
    atom = make_model((20,)).dictionary[browser.evaluate("chosen")]
    found = browser.evaluate("byId('weights').firstChild.textContent")
    assert found.startswith(f"feature {np.argmax(np.abs(atom))}")
    assert not browser.evaluate("byId('weights-part').hidden")
