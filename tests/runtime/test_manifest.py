from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.adaptation import ADAPTATION, AdaptationEntry, Source
from edgeser.runtime.errors import BundleError
from edgeser.runtime.manifest import MOST_BYTES, FileEntry, InputEntry, Manifest, ModelEntry, sealed_json
from edgeser.runtime.names import is_shown

GRAPH = FileEntry("0" * 64, 12)
MANIFEST = Manifest(
    name="tiny",
    version="1.0",
    model=ModelEntry("ks-transformer", "compact", {"keep_rate": 0.8}),
    labels=("angry", "sad"),
    inputs={"audio": InputEntry(460, 80, {"kind": "log-mel", "bins": 80})},
    graphs={"portable": "model.onnx"},
    metrics={"ua": 0.7},
    files={"model.onnx": GRAPH},
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name.strip() and all(map(is_shown, name)))


def spelled(content: Any) -> bytes:
    """Spell any content as `Manifest.to_json` spells its own, with a seal that fits it."""
    content.pop("seal", None)
    return sealed_json(content)


def changed(**fields: Any) -> bytes:
    return spelled({**json.loads(MANIFEST.to_json()), **fields})


def refusal(raw: bytes) -> str:
    with pytest.raises(BundleError, match=r"manifest\.json: ") as caught:
        Manifest.from_json(raw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(
    st.lists(NAMES, min_size=2, max_size=6, unique=True),
    st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
def test_round_trip(labels: list[str], metrics: dict[str, float]) -> None:
    whole = dataclasses.replace(MANIFEST, labels=tuple(labels), metrics=metrics)
    assert Manifest.from_json(whole.to_json()) == whole


def test_is_plain_json_with_a_schema() -> None:
    content = json.loads(MANIFEST.to_json())
    assert content["schema"] == 1
    assert content["inputs"]["audio"] == {"length": 460, "dim": 80, "frontend": {"kind": "log-mel", "bins": 80}}


@pytest.mark.parametrize("schema", [0, 3, 99, "1", 1.0, True, None, [1]])
def test_unknown_schema(schema: Any) -> None:
    message = refusal(changed(schema=schema))
    if schema != 1:
        assert f"got schema {schema!r}, this EdgeSER reads 1 and 2: update one of them" in message


def test_no_schema() -> None:
    content = json.loads(MANIFEST.to_json())
    del content["schema"]
    assert "got schema None" in refusal(spelled(content))


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nonsense", b"1" * 5000])
def test_not_json(raw: bytes) -> None:
    assert "not readable" in refusal(raw) or "expected an object" in refusal(raw)


@pytest.mark.parametrize("raw", [b"[]", b'"text"', b"1", b"null"])
def test_not_an_object(raw: bytes) -> None:
    assert "expected an object" in refusal(raw)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Manifest)])
@pytest.mark.parametrize("value", [None, 7, "", [], [[]], {"a": 1}, {"a": None}, {"a": "b\nc"}])
def test_any_field_missing_or_of_another_kind(field: str, value: Any) -> None:
    content = json.loads(MANIFEST.to_json())
    if field in {"metrics", "provenance"} and isinstance(value, dict):
        return
    if field == "version" and value == "":
        return
    refusal(spelled({**content, field: value}))
    if field not in {"adaptation", "confidence", "recogniser"}:
        del content[field]
        refusal(spelled(content))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name is empty"),
        ({"labels": ["sad"]}, r"labels \['sad'\]"),
        ({"labels": ["sad", "sad"]}, r"labels \['sad', 'sad'\]"),
        ({"inputs": {}}, r"inputs \[\]"),
        ({"inputs": {"video": {"length": 1, "dim": 1, "frontend": {}}}}, r"inputs \['video'\]"),
        ({"inputs": {"audio": {"length": 0, "dim": 80, "frontend": {}}}}, "input audio of 0 x 80"),
        ({"graphs": {"plugin": "model.onnx"}}, "no portable graph"),
        ({"graphs": {"portable": "other.onnx"}}, "graph 'other.onnx' is not among the files"),
        ({"precision": "int4"}, "precision 'int4'"),
        ({"files": {"model.onnx": {"sha256": "F" * 64, "bytes": 1}}}, "file entry of 'model.onnx'"),
        ({"files": {"model.onnx": {"sha256": "0" * 64, "bytes": -1}}}, "file entry of 'model.onnx'"),
        ({"metrics": None}, "metrics is None, expected dict"),
        ({"surplus": 1}, "unknown fields surplus"),
        ({"model": {"family": "f", "preset": "p"}}, "a field is of the wrong kind: .*'config'"),
    ],
)
def test_what_a_manifest_must_hold(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=f"^manifest.json: {message}"):
        Manifest.from_json(changed(**fields))


@pytest.mark.parametrize(
    "entry",
    [
        InputEntry(460.5, 80, {"kind": "log-mel"}),  # type: ignore[arg-type]
        InputEntry(True, 80, {"kind": "log-mel"}),
        InputEntry(460, "80", {"kind": "log-mel"}),  # type: ignore[arg-type]
        InputEntry(460, 80, ["log-mel"]),  # type: ignore[arg-type]
        InputEntry(460, 80, None),  # type: ignore[arg-type]
    ],
)
def test_an_input_is_two_whole_numbers_and_an_object(entry: InputEntry) -> None:
    refusal(changed(inputs={"audio": dataclasses.asdict(entry)}))
    with pytest.raises((BundleError, TypeError)):  # in our own hands: the same check, or the language's
        dataclasses.replace(MANIFEST, inputs={"audio": entry})


def test_unknown_names_do_not_break_the_line() -> None:
    """One flipped byte makes `fr\\ntend` of `frontend`, which JSON reads as a line break."""
    raw = MANIFEST.to_json()
    assert raw.count(b"frontend") == raw.count(b"config") == 1
    refusal(raw.replace(b"frontend", b"fr\\ntend"))
    refusal(raw.replace(b"config", b"c\\nfig"))
    refusal(changed(**{"a\nb": 1}))


def test_a_model_is_two_names_and_an_object() -> None:
    for entry in (ModelEntry("f", "p", 3), ModelEntry(1, "p", {})):  # type: ignore[arg-type]
        refusal(changed(model=dataclasses.asdict(entry)))
        with pytest.raises((BundleError, TypeError)):
            dataclasses.replace(MANIFEST, model=entry)


PATHS = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a\\b",
    "..\\x",
    "C:/x",
    "",
    ".",
    "..",
    "a//b",
    "a/",
    "./a",
    "x\n",
    "ä",
    "~/x\0",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_climb_out_or_are_not_plain(path: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    assert f"path {path!r} is not a plain relative path" in refusal(
        changed(files={"model.onnx": dataclasses.asdict(GRAPH), path: entry})
    )
    refusal(changed(graphs={"portable": path}))


def test_the_manifest_is_no_file_of_its_own() -> None:
    """It would lie in the zip twice, and in a folder replace the manifest."""
    files = {name: dataclasses.asdict(GRAPH) for name in ("model.onnx", "manifest.json")}
    refusal(changed(files=files))


@pytest.mark.parametrize("change", [bytes.rstrip, bytes.upper, lambda raw: b" " + raw, lambda raw: raw + b"\n"])
def test_only_one_spelling(change: Any) -> None:
    assert change(MANIFEST.to_json()) != MANIFEST.to_json()
    refusal(change(MANIFEST.to_json()))


def test_a_key_twice() -> None:
    raw = MANIFEST.to_json().replace(b'"name": "tiny"', b'"name": "tiny",\n "name": "tiny"')
    assert "edited by hand or damaged" in refusal(raw)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_are_none(number: bytes) -> None:
    refusal(MANIFEST.to_json().replace(b'"ua": 0.7', b'"ua": ' + number))


@pytest.mark.parametrize("depth", [400, 900, 5_000])
def test_deeper_than_anything_real(depth: int) -> None:
    refusal(MANIFEST.to_json().replace(b'"ua": 0.7', b'"ua": ' + b"[" * depth + b"]" * depth))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([field.name for field in dataclasses.fields(Manifest)]), JSON)
def test_any_json_in_any_field_is_read_whole_or_refused_in_one_line(field: str, value: Any) -> None:
    try:
        assert Manifest.from_json(changed(**{field: value})).to_json() == changed(**{field: value})
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    "bad", ["", " ", "a\x1b[2J", "a\r", "a\nb", "\x9b", "\u202ea", "a\u2066", "\ud800", "a\u2028", "x" * 501]
)
def test_names_that_a_terminal_must_not_be_shown(bad: str) -> None:
    content = json.loads(MANIFEST.to_json())
    model, audio = content["model"], content["inputs"]["audio"]
    places: list[dict[str, Any]] = [
        {"name": bad},
        {"labels": ["angry", bad]},
        {"model": {**model, "family": bad}},
        {"model": {**model, "preset": bad}},
        {"metrics": {bad: {"wa": 0.5}}},
        {"metrics": {"protocol": {bad: 0.5}}},
        {"provenance": {"licence": bad}},
        {"inputs": {"audio": {**audio, "frontend": {**audio["frontend"], bad: 1}}}},
    ]
    if bad:
        places += [{"version": bad}]
    for fields in places:
        assert refusal(changed(**fields)).isprintable()


@pytest.mark.parametrize("bad", ["a\x1b[2J", "a\r", "\x9b", "\u202ea", "\ud800", "a\u2028"])
def test_texts_of_no_terminal_and_no_file(bad: str) -> None:
    for field, value in {
        "metrics": {"a": [{"b": bad}]},
        "provenance": {"corpora": ["a", bad]},
        "inputs": {"audio": {"length": 1, "dim": 1, "frontend": {"kind": "log-mel", "name": bad}}},
    }.items():
        assert refusal(changed(**{field: value})).isprintable()


def test_texts_of_several_lines_are_texts() -> None:
    notes = dataclasses.replace(MANIFEST, provenance={"notice": "Größe:\n\t1\n", "licence": "CC BY 4.0"})
    assert Manifest.from_json(notes.to_json()) == notes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": [f"l{i}" for i in range(257)]}, "257, expected 2 to 256 different ones"),
        (
            {"inputs": {"audio": {"length": 1 << 20, "dim": 1 << 20, "frontend": {}}}},
            "expected 1 to 16,777,216 numbers",
        ),
        ({"inputs": {"audio": {"length": 10**30, "dim": 1, "frontend": {}}}}, "expected 1 to 16,777,216 numbers"),
        ({"files": {f"{i}.onnx": dataclasses.asdict(GRAPH) for i in range(501)}}, "501 files, expected at most 500"),
        ({"files": {"model.onnx": {"sha256": "0" * 64, "bytes": (1 << 31) + 1}}}, "2,147,483,649 bytes, expected at"),
        (
            {"files": {"model.onnx": {"sha256": "0" * 64, "bytes": 1}, "a": {"sha256": "0" * 64, "bytes": 1 << 27}}},
            "'a'",
        ),
        ({"files": {"a" * 201 + ".onnx": dataclasses.asdict(GRAPH)}}, "plain relative path of at most 200 characters"),
        ({"graphs": {"portable": "model.onnx", "other": "model.onnx"}}, "expected portable and plugin"),
        ({"graphs": {"portable": "model.bin"}}, r"expected a name that ends with \.onnx"),
        ({"provenance": {"licence": ["CC0"]}}, r"licence \['CC0'\], expected a text"),
        ({"provenance": {"notes": "x" * MOST_BYTES}}, "bytes, expected at most 1,048,576"),
    ],
)
def test_limits_of_what_is_declared(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=rf"^manifest\.json: .*{message}"):
        Manifest.from_json(changed(**fields))


def with_prior(prior: Any, name: str = "audio") -> bytes:
    return changed(inputs={name: {"length": 460, "dim": 80, "frontend": {"kind": "log-mel"}, "mean_prior": prior}})


def test_a_prior_of_the_running_mean() -> None:
    assert Manifest.from_json(with_prior(5.0)).inputs["audio"].mean_prior == 5.0
    assert b"mean_prior" not in MANIFEST.to_json()


@pytest.mark.parametrize("prior", [0.0, -1.0, 5, True, "5", [5.0], 1e7])
def test_impossible_priors(prior: Any) -> None:
    assert f"input audio: mean_prior {prior!r}, expected a float above 0, at most 1,000,000" in refusal(
        with_prior(prior)
    )


def test_only_audio_has_a_prior() -> None:
    assert "input text has a mean_prior, which only audio may have" in refusal(with_prior(5.0, "text"))


def test_an_encoder_is_its_frontend_and_its_files() -> None:
    audio = FileEntry("1" * 64, 3)
    whole = dataclasses.replace(MANIFEST, files={"model.onnx": GRAPH, "frontends/audio/statistics.safetensors": audio})
    known = whole.encoder_sha256()
    other = dataclasses.replace(whole, name="other", files={**whole.files, "model.onnx": FileEntry("2" * 64, 9)})
    assert other.encoder_sha256() == known
    assert dataclasses.replace(whole, files={"model.onnx": GRAPH}).encoder_sha256() != known
    wider = {"audio": InputEntry(460, 80, {"kind": "log-mel", "bins": 80, "hop_ms": 20})}
    assert dataclasses.replace(whole, inputs=wider).encoder_sha256() != known


ADAPTED = dataclasses.replace(
    MANIFEST,
    labels=("angry", "happy", "sad"),
    adaptation=AdaptationEntry(
        Source("tiny", "1.0", "ab" * 32), ("angry", "sad"), {"angry": 3, "sad": 2}, {"shipped": 0.5, "adapted": 0.75}
    ),
    files={"model.onnx": GRAPH, ADAPTATION: FileEntry("1" * 64, 100)},
)


def adapted(**changes: Any) -> dict[str, Any]:
    content = json.loads(ADAPTED.to_json())
    return {**content, "adaptation": {**content["adaptation"], **changes}}


class TestAdaptation:
    def test_round_trip(self) -> None:
        with_prior = dataclasses.replace(ADAPTED.adaptation, prior={"angry": 0.25, "sad": 0.75})
        for manifest in (ADAPTED, dataclasses.replace(ADAPTED, adaptation=with_prior)):
            assert Manifest.from_json(manifest.to_json()) == manifest
        assert ADAPTED.answers == ("angry", "sad")
        assert MANIFEST.answers == MANIFEST.labels

    def test_its_schema_is_another_so_that_an_older_edgeser_refuses_it(self) -> None:
        assert json.loads(ADAPTED.to_json())["schema"] == 2

    @pytest.mark.parametrize(("manifest", "schema"), [(MANIFEST, 2), (ADAPTED, 1)])
    def test_the_schema_says_whether_there_is_one(self, manifest: Manifest, schema: int) -> None:
        refusal(spelled({**json.loads(manifest.to_json()), "schema": schema}))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": ["angry"]}, "expected 2 or more"),
            ({"labels": ["angry", "angry"]}, "different ones"),
            ({"labels": ["sad", "angry"]}, "in that order"),
            ({"labels": ["angry", "fear"], "clips": {"angry": 1, "fear": 1}}, "expected some of"),
            ({"labels": [1, 2]}, "expected texts"),
            ({"labels": "angry"}, "labels is of the wrong kind"),
            ({"clips": {"angry": 3}}, "a count of each label"),
            ({"clips": {"angry": 3, "sad": 0}}, "whole numbers above 0"),
            ({"clips": {"angry": 3, "sad": True}}, "whole numbers above 0"),
            ({"ua": {"adapted": 0.5}}, "shipped and adapted"),
            ({"ua": {"adapted": 0.5, "shipped": 1.5}}, "from 0 to 1"),
            ({"ua": {"adapted": "0.5", "shipped": 0.5}}, "from 0 to 1"),
            ({"prior": {"angry": 1.0}}, "that of each label"),
            ({"prior": []}, "prior is of the wrong kind"),
            ({"source": {"name": "a"}}, "name, version and sha256"),
            ({"source": {"name": "a", "version": "1", "sha256": "x"}}, "expected a SHA-256"),
            ({"source": {"name": "a\x1b", "version": "1", "sha256": "ab" * 32}}, "control characters"),
            ({"more": 1}, "got .*more"),
        ],
    )
    def test_what_is_no_entry(self, changes: dict[str, Any], message: str) -> None:
        assert re.search(message, refusal(spelled(adapted(**changes))))

    def test_an_entry_and_its_file_go_together(self) -> None:
        content = json.loads(ADAPTED.to_json())
        del content["files"][ADAPTATION]
        assert "no file 'adaptation.safetensors'" in refusal(spelled(content))
        with pytest.raises(BundleError, match="without an adaptation"):
            dataclasses.replace(ADAPTED, adaptation=None)

    def test_words_alone_have_no_voice_to_adapt_to(self) -> None:
        words = {"text": InputEntry(20, 50, {"kind": "word-vectors"})}
        with pytest.raises(BundleError, match="without an audio input"):
            dataclasses.replace(ADAPTED, inputs=words)

    @given(JSON)
    def test_anything_else_is_refused_in_one_line(self, value: Any) -> None:
        refusal(spelled({**json.loads(ADAPTED.to_json()), "adaptation": value}))
