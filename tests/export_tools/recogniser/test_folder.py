"""What a recogniser's own encoder is exported as."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeser.export_tools.encoders.export import EncoderOptions
from edgeser.export_tools.recogniser import folder


class _Asked(Exception):
    """Carries the options of an encoder that was to be exported."""


def test_its_own_encoder_gives_the_last_layer_of_all_that_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(options: EncoderOptions) -> None:
        raise _Asked(options)

    monkeypatch.setattr(folder, "make_frontend", ask)
    given = EncoderOptions(
        "whisper-tiny.en", tmp_path, layer="1+2", pause_db=30.0, levels_db=(-26.0, -26.0), windows=(100, 460)
    )
    with pytest.raises(_Asked) as caught:
        folder.write_recogniser(given, tmp_path / "words")
    (options,) = caught.value.args
    assert options == EncoderOptions("whisper-tiny.en", tmp_path, layer="last", windows=(100, 460))
    assert not (tmp_path / "words").exists()
