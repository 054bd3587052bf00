from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeser.runtime.errors import InputError
from edgeser.toml_file import read_toml


def test_it_reads_what_toml_holds(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes('\ufeffname = "grüße"\r\n[columns]\r\nfile = "path"\r\nrates = [0.5, 1]\r\n'.encode())
    assert read_toml(file) == {"name": "grüße", "columns": {"file": "path", "rates": [0.5, 1]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = \n", r"a\.toml: not readable as UTF-8 TOML: .*at line 2, column 5"),
        (b"a = 1\na = 2\n", r"Cannot overwrite a value \(at line 2"),
        (b"a = '\xff'\n", "can't decode byte 0xff in position 5"),
        (b"a = " + b"9" * 5000, "limit"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_toml_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_toml(tmp_path / "a.toml")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: no such file, expected a TOML file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(InputError, match="is a folder, expected a TOML file"):
        read_toml(tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text("[]=\"'a.1\n#{},", max_size=40).map(str.encode))
def test_any_bytes_are_a_dict_or_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    try:
        assert isinstance(read_toml(tmp_path / "a.toml"), dict)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
