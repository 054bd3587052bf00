from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.lssed import Columns, Layout, parse_layout
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import InputError

ROWS = [
    "spk1/v1_0.wav,Angry,How dare you!,spk1,train",
    'spk1/v1_1.wav,Happy,"Well, hello.",spk1,train',
    "spk2/v2_0.wav,Neutral,,spk2,dev",
    "spk2/v2_1.wav,Sad,I miss her.,spk2,test",
    "spk2/v2_2.wav,Disgusted,Yuck.,spk2,test",
]
HEADER = "file,emotion,transcript,speaker,split"


@pytest.fixture
def root(speech: Samples, tmp_path: Path) -> Path:
    """A corpus as `lssed:` expects it without being told."""
    root = tmp_path / "LSSED"
    for number, row in enumerate(ROWS):
        file = root / "wav" / row.partition(",")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, speech[4000 * number : 4000 * number + 8000], SAMPLE_RATE, subtype="PCM_16")
    (root / "wav" / "spk1" / "._v1_0.wav").write_bytes(b"Mac OS X")
    write(root, ROWS)
    return root


def write(root: Path, rows: list[str], header: str = HEADER) -> None:
    (root / "metadata.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")


def configure(root: Path, text: str) -> None:
    (root / "lssed.toml").write_text(text, encoding="utf-8")


def read(root: Path) -> list[Utterance]:
    return read_corpus(f"lssed:{root}")


def warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    return record.getMessage()


def test_the_layout_that_is_expected(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    utterances = read(root)
    assert caplog.records == []
    assert utterances[0] == Utterance(
        "spk1/v1_0", root / "wav/spk1/v1_0.wav", "angry", "How dare you!", speaker="spk1", split="train", corpus="lssed"
    )
    assert [u.emotion for u in utterances] == ["angry", "happy", "neutral", "sad", "disgust"]
    assert [u.transcript for u in utterances[1:3]] == ["Well, hello.", ""]
    assert [u.split for u in utterances] == ["train", "train", "dev", "test", "test"]
    assert {u.session for u in utterances} == {""}
    assert [load_audio(u.audio).shape for u in utterances] == [(8000,)] * 5


def test_two_columns_are_enough(root: Path) -> None:
    write(root, ["spk1/v1_0.wav,angry", "spk2/v2_1.wav,sad"], "file,emotion")
    assert [(u.transcript, u.speaker, u.split) for u in read(root)] == [(None, "", "")] * 2


def test_a_layout_of_its_own(root: Path) -> None:
    expected = read(root)
    (root / "wav").rename(root / "clips")
    rows = [row.replace(",", "\t", 2).replace('"', "") for row in ROWS]
    tabbed = ["\t".join([*row.split("\t")[:2], *row.split("\t")[2].rsplit(",", 2)]) for row in rows]
    (root / "list.tsv").write_text("\n".join(["path\tlabel\ttext\tid\tpart", *tabbed]), encoding="utf-8")
    (root / "metadata.csv").unlink()
    configure(
        root,
        'metadata = "list.tsv"\naudio = "clips"\ndelimiter = "\\t"\n'
        '[columns]\nfile = "path"\nemotion = "label"\ntranscript = "text"\nspeaker = "id"\nsplit = "part"\n',
    )
    moved = [(u.id, u.emotion, u.transcript, u.speaker, u.split) for u in read(root)]
    assert moved == [(u.id, u.emotion, u.transcript, u.speaker, u.split) for u in expected]
    assert read(root)[0].audio == root / "clips/spk1/v1_0.wav"


def test_labels_as_numbers(root: Path) -> None:
    numbers = {"Angry": "0", "Neutral": "1", "Happy": "2", "Sad": "3", "Disgusted": "4"}
    write(root, [row.replace(f",{name},", f",{numbers[name]},") for row in ROWS for name in numbers if name in row])
    configure(root, '[emotions]\n0 = "angry"\n1 = "neutral"\n2 = "joy"\n3 = "sad"\n')
    assert [u.emotion for u in read(root)] == ["angry", "happy", "neutral", "sad"]


def test_unknown_labels_are_left_out_and_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = ["Other", "Disappointed", "Other", "Excited", ""]
    write(root, ROWS + [f"spk1/v1_0.wav,{label},,," for label in others])
    assert len(read(root)) == 5
    assert warning(caplog) == (
        f"{root}: 5 utterances; 5 rows left out for 4 unknown labels ('Other' 2, 'Disappointed' 1, 'Excited' 1, ...)"
    )


def test_excited_is_happy_only_where_the_user_says_so(root: Path) -> None:
    write(root, [row.replace("Happy", "Excited") for row in ROWS])
    assert "happy" not in {u.emotion for u in read(root)}
    configure(root, '[emotions]\nExcited = "happy"\n')
    assert Counter(u.emotion for u in read(root))["happy"] == 1


def test_missing_audio_is_left_out_and_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "wav/spk2/v2_0.wav").unlink()
    write(root, [*ROWS, ",angry,,,", f"{'x' * 5000},sad,,,", "../metadata.csv,sad,,,"])
    assert len(read(root)) == 4
    assert "missing: 4 audio files (spk2/v2_0.wav, line 7, xxx" in warning(caplog)


@pytest.mark.parametrize("name", ["spk1/v1_0", "spk1\\v1_0.wav", "v1_0.wav", "v1_0", "wav/spk1/v1_0.wav", "/data/v1_0"])
def test_names_of_files_as_tables_spell_them(root: Path, name: str) -> None:
    write(root, [f"{name},angry,,,"])
    assert [(u.id, u.audio) for u in read(root)] == [("spk1/v1_0", root / "wav/spk1/v1_0.wav")]


def test_a_bare_name_must_be_that_of_one_file(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(root / "wav/spk1/v1_0.wav", root / "wav/spk2/v1_0.wav")
    write(root, ["v1_0.wav,angry,,,", "spk2/v1_0.wav,sad,,,"])
    assert [u.id for u in read(root)] == ["spk2/v1_0"]
    assert "1 audio file (v1_0.wav)" in warning(caplog)


def test_windows_1252_and_blanks_around_names(root: Path) -> None:
    text = "\n".join(
        ["file , emotion,transcript,speaker,split", " spk1/v1_0.wav , Angry ,I\u2019m caf\u00e9., a , VAL "]
    )
    (root / "metadata.csv").write_bytes(text.encode("cp1252"))
    (only,) = read(root)
    assert (only.transcript, only.speaker, only.split) == ("I\u2019m caf\u00e9.", "a", "dev")


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            ROWS,
            "file,label",
            r"metadata\.csv: no column emotion, it has file, label: name its columns under \[columns\]",
        ),
        ([], "", r"no column emotion, file, it has none"),
        (["spk1/v1_0.wav,sad,,,fold1"], HEADER, r"line 2: split is 'fold1', expected one of train, training, dev"),
        (["spk1/v1_0.wav,sad,,,"] * 2, HEADER, r"metadata\.csv, line 3: 'spk1/v1_0.wav' stands twice"),
        (["a,sad,,,"], HEADER, r"no audio in wav for any labelled row of metadata\.csv: 5 audio files are there"),
        ([f'a,"{"b" * 200_000}"'], HEADER, r"metadata\.csv: not readable as CSV: field larger"),
    ],
)
def test_tables_of_no_use(root: Path, rows: list[str], header: str, message: str) -> None:
    write(root, rows, header)
    with pytest.raises(InputError, match=message):
        read(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metadata = \n", r"lssed\.toml: not readable as UTF-8 TOML: .*line 1"),
        ('table = "a.csv"', r"lssed\.toml: got 'table', expected metadata, audio, delimiter, columns, emotions"),
        ("audio = 3", r"lssed\.toml: 'audio' is 3, expected a text in quotes"),
        ('columns = "file"', r"columns is 'file', expected a table \[columns\]"),
        ('[columns]\npath = "x"', r"\[columns\]: got 'path', expected file, emotion, transcript, speaker, split"),
        ("[columns]\nfile = [1]", r"\[columns\]: 'file' is \[1\], expected a text in quotes"),
        ('[columns]\nspeaker = "who"', r"metadata\.csv: no column who, it has file, emotion"),
        ('[emotions]\nother = "bliss"', r"\[emotions\]: emotion: got 'bliss', expected one of ang"),
        ('delimiter = ", "', r"delimiter is ', ', expected one character such as ',' or"),
        ('metadata = "gone.csv"', r"gone\.csv: no such table, expected metadata\.csv and wav, or lssed\.toml"),
        ('audio = "gone"', "gone: no such folder, expected the folder of the audio files"),
    ],
)
def test_configurations_of_no_use(root: Path, text: str, message: str) -> None:
    configure(root, text)
    with pytest.raises(InputError, match=message) as caught:
        read(root)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: no such folder, expected metadata\.csv and wav, or lssed\.toml"):
        read(tmp_path / "gone")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
keys = st.sampled_from(["metadata", "audio", "delimiter", "columns", "emotions", "named"]) | st.text(max_size=5)


@given(st.dictionaries(keys, values, max_size=4))
def test_any_configuration_is_a_layout_or_one_clear_line(content: dict[str, object]) -> None:
    try:
        assert isinstance(parse_layout(content, "lssed.toml").columns, Columns)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


@given(st.text(max_size=20))
def test_any_label_is_an_emotion_or_none(label: str) -> None:
    assert Layout().emotion(label) is None or label.strip().lower() not in ("excited", "")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120))
def test_any_table_is_read_or_refused_in_one_line(root: Path, content: bytes) -> None:
    (root / "metadata.csv").write_bytes(f"{HEADER}\n{ROWS[0]}\n".encode() + content)
    try:
        assert read(root)[0].id == "spk1/v1_0"
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
