"""Experiment files: what they mean, and one line for each mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeser.experiments.reading import read_experiment
from edgeser.experiments.spec import Published
from edgeser.runtime.errors import InputError

READY_MADE = sorted((Path(__file__).parents[2] / "experiments").rglob("*.toml"))
Toml = Callable[..., Path]


def test_rows_have_what_all_share_and_their_own(toml: Toml, tmp_path: Path) -> None:
    more = 'variant = "dense attention"\nset = { heads = 2, sparse = true }\nrecipe = { seed = 7 }\npreset = "paper"'
    experiment = read_experiment(toml('variant = "dense attention"', more, "columns", "repeats = 2\ncolumns"))
    sparse, other, reference = experiment.rows
    assert (sparse.slug, other.slug) == ("key-sparse", "dense-plain")
    assert sparse.published == {"WA": Published(0.743), "UA": Published(0.753, 0.002, 4)}
    options = experiment.options(other, 8, tmp_path)
    assert options.changes == {"sparse": True, "heads": 2}, "what a row sets goes before what its variant does"
    assert options.modalities == ("text",)
    assert (options.preset, options.recipe.epochs, options.recipe.seed) == ("paper", 1, 8)
    assert options.out == tmp_path / "runs" / "dense-plain" / "seed-8"
    assert experiment.seeds(sparse) == (1, 2)
    assert experiment.seeds(other) == (7, 8)
    assert not reference.is_trained
    assert reference.published["WA"] == Published(0.711)


def test_a_sweep_is_a_row_for_each_point_of_its_grid(toml: Toml, tmp_path: Path) -> None:
    sweep = """
    [[sweep]]
    name = "k {keep_rate}, layers {layers}"
    grid = { keep_rate = [0.25, 0.5], layers = [[1, 0, 1], [2, 0, 1]], "recipe.learning_rate" = [1e-3] }
    published = [{ keep_rate = 0.5, layers = [1, 0, 1], "recipe.learning_rate" = 1e-3, UA = 0.753 }]
    [figure]
    kind = "lines"
    x = "keep_rate"
    series = "layers"
    [[references]]"""
    name = 'name = "key-sparse"\n'
    experiment = read_experiment(
        toml(
            "\n[[references]]",
            sweep,
            name,
            name + "at = { keep_rate = 1, layers = 1 }\n",
            'variant = "dense attention"',
            "set = { keep_rate = 0.9, layers = [1, 0, 1] }",
        )
    )
    swept = experiment.trained[2:]
    assert [row.name for row in swept] == [
        f"k {rate}, layers {layers}" for rate in (0.25, 0.5) for layers in ((1, 0, 1), (2, 0, 1))
    ]
    assert [bool(row.published) for row in swept] == [False, False, True, False]
    options = experiment.options(swept[1], 1, tmp_path)
    assert options.changes == {"keep_rate": 0.25, "layers": (2, 0, 1)}
    assert options.recipe.learning_rate == 1e-3


SPARSE = 'name = "key-sparse"'
MISTAKES = [
    (("title", "titel"), "title is missing, expected a text"),
    (("[options]", "[figur]\n[options]"), "got figur, expected some of title, corpus, columns"),
    (('"UA", "param', '"AU", "param'), "columns: got WA, AU, parameters, expected some of WA, UA, WF1, parameters"),
    (('["WA", "UA", "parameters"]', '["p50 ms"]'), "columns: got p50 ms, expected one of WA, UA, WF1 at least"),
    (("columns =", "repeats = 0\ncolumns ="), "repeats: got 0, expected at least 1"),
    (("columns =", "repeats = true\ncolumns ="), "repeats: got True, expected a whole number"),
    (("columns =", 'protocol = "leave-one-out"\ncolumns ='), "protocol: got 'leave-one-out', expected one of leave-"),
    (('published_on = "IEMOCAP"', ""), "published_on is missing, expected the corpus of the published figures"),
    (("modalities = ", "modality = "), "options: got modality, expected some of family, preset, modalities"),
    (('["text"]', '"text"'), "options: modalities: got 'text', expected a list"),
    (('["text"]', '["video"]'), "row 'key-sparse': modalities: got video, ks-transformer takes audio,text or audio"),
    (("epochs = 1", "epoch = 1"), "row 'key-sparse': recipe: got unknown epoch, expected some of epochs"),
    (("epochs = 1", 'epochs = "1"'), "row 'key-sparse': recipe: epochs: got '1', expected a whole number"),
    ((SPARSE, "name = 3"), "rows 1: name: got 3, expected a text"),
    (
        (SPARSE, 'name = "dense - plain"'),
        "row 'dense | plain': takes the folder of 'dense - plain', dense-plain: rename",
    ),
    ((SPARSE, 'name = "dense | plain"'), "row 'dense | plain': there are 2 of that name"),
    ((SPARSE, 'name = "?"'), "row '?': expected a letter or digit in its name"),
    ((SPARSE, SPARSE + "\ngrid = {}"), "row 'key-sparse': got grid, expected some of name, published, family"),
    (
        (SPARSE, SPARSE + '\nfamily = "dropper"'),
        "row 'key-sparse': family: got 'dropper', expected one of ks-transformer",
    ),
    ((SPARSE, SPARSE + '\npreset = "huge"'), "row 'key-sparse': ks-transformer: got preset 'huge'"),
    ((SPARSE, SPARSE + "\nset = { keep = 1 }"), "row 'key-sparse': ks-transformer: unknown option among ['keep']"),
    (
        (SPARSE, SPARSE + '\nset = { keep_rate = "a" }'),
        "row 'key-sparse': ks-transformer: unknown option among ['keep_rate']",
    ),
    ((SPARSE, SPARSE + "\naudio_encoder = 1"), "row 'key-sparse': audio_encoder: got 1, expected a text"),
    (('"dense attention"', '"dense"'), "row 'dense | plain': variant: got 'dense', expected one of dense attention"),
    (("WA = 0.743", "WA = 743"), "published: WA: got 743, expected an accuracy"),
    (("WA = 0.743", "F1 = 0.743"), "published: got F1, expected some of WA, UA, WF1"),
    (("WA = 0.743", "WF1 = 0.743"), "published: WF1 is published but not in columns"),
    (("[options]", '[figure]\nkind = "pie"\n[options]'), "figure: kind: got 'pie', expected bars or lines"),
    (("[options]", '[figure]\nkind = "lines"\n[options]'), "figure: x is missing, expected a text"),
    (("[options]", '[figure]\nx = "k"\n[options]'), "figure: got x, expected some of kind"),
    (("[options]", '[figure]\nkind = "lines"\nx = "k"\n[options]'), "row 'key-sparse': has no k for the figure"),
    (("[options]", "[[sweep]]\ngrid = { heads = [] }\n[options]"), "sweep 1: grid: heads is empty, expected values"),
    (("[options]", '[[sweep]]\nname = "{h}"\ngrid = { heads = [2] }\n[options]'), "sweep 1: name: got '{h}'"),
    (
        ("[options]", "[[sweep]]\ngrid = { heads = [2] }\npublished = [{ heads = 4, UA = 1 }]\n[options]"),
        "sweep 1: published 1: got {'heads': 4, 'UA': 1}, which is no point of the grid",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_a_mistake_is_one_line_with_file_and_row(toml: Toml, change: tuple[str, str], message: str) -> None:
    file = toml(*change)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read_experiment(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_a_broken_file_is_named(toml: Toml, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.toml: no such file"):
        read_experiment(tmp_path / "gone.toml")
    with pytest.raises(InputError, match=r"table.toml: not readable as UTF-8 TOML: .*line \d+"):
        read_experiment(toml("[recipe]", "[recipe"))


ODD = ["-1", "nan", '""', '"{"', "[]", "[[1]]", "[1, 'a']", "{}", "{ a = 1 }", "[{ UA = 2 }]", "true", "1979-05-27"]


@given(place=st.integers(0, 10), value=st.sampled_from(ODD))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_is_taken_or_refused_in_one_line(toml: Toml, place: int, value: str) -> None:
    file = toml()
    lines = file.read_text(encoding="utf-8").splitlines()
    settings = [number for number, line in enumerate(lines) if " = " in line]
    chosen = settings[place % len(settings)]
    lines[chosen] = f"{lines[chosen].partition(' = ')[0]} = {value}"
    file.write_text("\n".join(lines), encoding="utf-8")
    refused = ""
    try:
        assert read_experiment(file).trained
    except InputError as error:
        refused = str(error)
    assert "\n" not in refused


@pytest.mark.parametrize("file", READY_MADE, ids=[f"{file.parent.name}/{file.stem}" for file in READY_MADE])
def test_every_ready_made_file_is_valid(file: Path) -> None:
    experiment = read_experiment(file)
    assert experiment.source or not any(row.published for row in experiment.rows), "figures need a paper and table"


def test_there_are_ready_made_files_for_every_corpus() -> None:
    assert {file.parent.name for file in READY_MADE} == {"iemocap", "lssed", "meld", "proxy", "voices"}
