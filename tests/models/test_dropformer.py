"""DropFormer: what is its own; the rest is in `test_families.py`."""

from __future__ import annotations

import pytest
import torch

from edgeser.models import InputSpec, build_model
from edgeser.nn.attention import dense_attention
from edgeser.nn.sparsity import DropMask
from edgeser.runtime.errors import InputError

WAVLM = {"audio": InputSpec(460, 64, "onnx-encoder")}


def test_paper_blocks_masks_and_lengths():
    model = build_model("dropformer", "paper", WAVLM, 4)
    masks = [block.attention.attend for block in model.blocks]
    assert masks == [DropMask(0.1, (0, 2))] * 2 + [DropMask(0.1, (0, 1, 3))] * 2
    assert [dropout.rows for dropout in model.token_dropouts] == [414, 373, 336, 303]
    assert model.config.audio.stem == "none"


@pytest.mark.parametrize(
    ("variant", "mask", "drops"),
    [
        ("w/o TDM", DropMask(0.1, (0, 2)), False),
        ("w/o TDM & Md", DropMask(None, (0, 2)), False),
        ("w/o TDM & Ms", DropMask(0.1, ()), False),
        ("w/o DA", dense_attention, True),
        ("vanilla transformer", dense_attention, False),
    ],
)
def test_variants_are_the_rows_of_table_1(variant, mask, drops):
    changes = type(build_model("dropformer", "compact", WAVLM, 4)).variants[variant]
    model = build_model("dropformer", "compact", WAVLM, 4, **changes)
    assert model.blocks[0].attention.attend == mask
    assert bool(len(model.token_dropouts)) == drops


def test_what_lies_in_padding_does_not_matter():
    torch.manual_seed(0)
    model = build_model("dropformer", "compact", WAVLM, 4).eval()
    audio = torch.randn(2, 460, 64)
    length = torch.tensor([160, 8], dtype=torch.int32)
    other = audio.clone()
    for i, valid in enumerate(length.tolist()):
        other[i, valid:] = 50.0
    one, two = (model({"audio": rows, "audio_length": length}) for rows in (audio, other))
    torch.testing.assert_close(one.logits, two.logits)
    torch.testing.assert_close(one.importance["audio"], two.importance["audio"])


def test_dropped_rows_have_no_importance_and_the_others_do():
    torch.manual_seed(0)
    model = build_model("dropformer", "paper", WAVLM, 4).eval()
    length = torch.tensor([460, 200], dtype=torch.int32)
    with torch.inference_mode():
        importance = model({"audio": torch.randn(2, 460, 64), "audio_length": length}).importance["audio"]
    # The last block sees what three blocks left of the valid rows.
    for row, left in zip(importance, (336, 146), strict=True):
        assert int((row > 0).sum()) <= left
        assert float(row.sum()) == pytest.approx(left, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_rate": 0.0}, "got keep_rate 0.0, expected above 0"),
        ({"drop_rate": 1.0}, "got drop_rate 1.0, expected 0 to below 1"),
        ({"layers": 0}, "got 0 layers, expected at least 1"),
        ({"heads": 7}, "audio: width 64 is no multiple of 7 heads"),
    ],
)
def test_bad_configurations_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        build_model("dropformer", "compact", WAVLM, 4, **changes)


def test_masks_that_drop_everything_are_refused():
    with pytest.raises(InputError, match="neither a dynamic nor a static mask"):
        DropMask(None, ())
    with pytest.raises(InputError, match=r"keep_rate: got 1\.5"):
        DropMask(1.5, (0,))
