"""The book: its Python runs, its commands parse, and it leaves out no result."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import EXHAUSTIVE, load_program, run_python_of

import sc2keras
import sc2keras_command
from sc2keras import registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text()
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
# These train for seconds, and what they show has tests of its own.
LONG = {
    **dict.fromkeys(("scikit_learn", "given_dictionary"), pytest.mark.slow),
    **dict.fromkeys(("codes_as_wanted", "sae_libraries", "recovery"), pytest.mark.slow),
    **dict.fromkeys(("own_data", "train", "slstm_cell"), EXHAUSTIVE),
}
WITH_PYTHON = [
    pytest.param(name, marks=LONG.get(Path(name).stem, ()))
    for name, text in PAGES.items()
    if "```python" in text
]
COMMANDS = [
    pytest.param(line.partition("   #")[0], id=f"{name}-{line[:40]}")
    for name, text in PAGES.items()
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.S)
    for line in block.splitlines()
    if re.match(r"(\S*/)?(sc2keras|python) ", line) and "train.py" not in line
]


@pytest.fixture
def registered(monkeypatch):
    """What a page registers is gone after it."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_of_a_page_runs_as_it_stands(
    name, tmp_path, monkeypatch, registered
):
    monkeypatch.chdir(tmp_path)
    assert run_python_of(PAGES[name])


@pytest.mark.parametrize("line", COMMANDS)
def test_the_arguments_of_a_command_are_those_of_the_program(line, capsys):
    program, *arguments = shlex.split(line)
    if program.endswith("sc2keras"):
        assert sc2keras_command.parse_arguments(arguments).command in line
        return
    if arguments[0].startswith("applications/"):  # A program without a function.
        offered = (ROOT / arguments[0]).read_text()
    else:
        with pytest.raises(SystemExit):
            load_program(arguments[0]).main(["--help"])
        offered = capsys.readouterr().out
    options = {each for each in arguments if each.startswith("--")}
    assert options <= set(re.findall(r"--[\w-]+", offered))


def test_the_book_has_every_table_of_the_results():
    included = {
        (DOCS / name).parent.joinpath(path).resolve()
        for name, text in PAGES.items()
        for path in re.findall(r"```\{include\} (\S+)", text)
    }
    tables = set((ROOT / "results").rglob("*.md"))
    assert tables and tables <= included


def test_the_api_lists_what_the_package_offers():
    listed = (DOCS / "api/index.rst").read_text().split()
    assert set(sc2keras.__all__) - {"__version__"} <= set(listed)


def test_changelog_and_citation_are_of_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changelog, re.M)[0] == sc2keras.__version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {sc2keras.__version__}\n" in citation


def test_the_figures_of_the_sequences_are_those_of_the_results():
    def figures(name):
        return json.loads((ROOT / f"results/applications/{name}.json").read_text())

    page = " ".join(PAGES["how_to/slstm_cell.md"].split())
    rows, sine = figures("sequence_coding"), figures("noisy_sine")
    text = (
        "an error of {SLSTM:.3f} on the rows of digits, where the LSTM has {LSTM:.3f}"
    )
    assert text.format(**rows) in page
    for label, each in sine.items():
        cells = f"| {label} | {each['error']:.4f} | {100 * each['nonzero']:.0f} % |"
        assert cells in page


@pytest.fixture(scope="module")
def docstrings():
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        import keras_docstrings
    finally:
        sys.path.pop(0)
    return keras_docstrings


@pytest.mark.parametrize(
    ("line", "converted"),
    [
        ("the norm |x_j| of `Shrinkage`", r"the norm \|x_j\| of :py:obj:`Shrinkage`"),
        ('`"lasso"`, or `x * 2`', '``"lasso"``, or ``x * 2``'),
        ("a `.npy` file, ``as it is``", "a ``.npy`` file, ``as it is``"),
    ],
)
def test_a_line_of_a_docstring_becomes_restructured_text(docstrings, line, converted):
    assert docstrings.convert_line(line) == converted


def test_a_formula_of_a_docstring_keeps_its_lines(docstrings):
    text = ["By", "", "    a = b", "    c = d", "", "so that", "", "Args:", "    x: y."]
    expected = [*text[:2], "::", "", *text[2:]]
    assert docstrings.mark_formulas(text) == expected


def test_the_figures_of_the_gallery_are_those_of_the_results():
    def figures(name):
        return json.loads((ROOT / f"results/applications/{name}.json").read_text())

    gallery = " ".join(PAGES["results/applications.md"].split())
    accuracies, mnist = (
        figures(name) for name in ("feature_extraction", "mnist/feature_extraction")
    )
    few, many = (
        [100 * np.mean(by_labels[n]) for by_labels in accuracies.values()]
        for n in ("100", "1149")
    )
    text = (
        "at {2:.1f} % with 100 labels, where raw pixels reach {0:.1f} % and PCA {1:.1f}"
    )
    assert text.format(*few) in gallery
    assert "1,149 labels {2:.1f}, {0:.1f} and {1:.1f} %".format(*many) in gallery
    few, many = (
        [f"{100 * np.mean(by_labels[n]):.1f} %" for by_labels in mnist.values()]
        for n in ("500", "4000")
    )
    assert "reach {2} (raw pixels {0}, PCA {1})".format(*few) in gallery
    assert f"than raw pixels do with 4,000 ({many[0]})" in gallery
    for noise, method, psnr, ssim, seconds in figures("image_denoising"):
        cell = f"{psnr:.2f}, {ssim:.3f}"
        if method != "noisy":
            cell += f", {seconds:.2f} s"
        assert f"| {cell} |" in gallery, (noise, method)
    by_method: dict[str, list[str]] = {}
    for _, method, psnr, seconds in figures("compressed_sensing"):
        by_method.setdefault(method, []).append(f"{psnr:.2f}, {seconds:.2f} s")
    for method, cells in by_method.items():
        assert f"| {method} | {' | '.join(cells)} |" in gallery
    directions = figures("direction_of_arrival")
    for snr in next(iter(directions.values()))["solved"]:
        cells = (f"{100 * each['solved'][snr]:.1f}" for each in directions.values())
        assert f"| {snr} dB | {' | '.join(cells)} |" in gallery
    times = (f"{each['microseconds']:.0f}" for each in directions.values())
    assert f"| µs a snapshot | {' | '.join(times)} |" in gallery
    areas = list(figures("anomaly_detection").values())
    means = [np.mean([each[method] for each in areas]) for method in areas[0]]
    for mean in means:
        assert f"{mean:.3f}" in gallery
    for accuracy, _, _ in figures("supervised_codes").values():
        assert f"{100 * accuracy:.1f} %" in gallery
    for label in ("SLSTM", "LSTM", "last row repeated"):
        assert f"{figures('sequence_coding')[label]:.3f}" in gallery
