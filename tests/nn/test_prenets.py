"""Highway, phoneme embedding and pre-nets against plain NumPy."""

from __future__ import annotations

import numpy as np
import torch

from edgeser.nn.highway import Highway
from edgeser.nn.phonemes import PhonemeEmbedding
from edgeser.nn.positions import masked_max
from edgeser.nn.prenets import EncoderPrenet, MelPrenet


def test_highway_is_equation_3():
    torch.manual_seed(0)
    highway = Highway(6, 2)
    u = torch.randn(3, 4, 6)
    expected = u.numpy()
    for transform, gate in zip(highway.transforms, highway.gates, strict=True):
        h = np.maximum(expected @ transform.weight.detach().numpy().T + transform.bias.detach().numpy(), 0.0)
        t = 1.0 / (1.0 + np.exp(-(expected @ gate.weight.detach().numpy().T + gate.bias.detach().numpy())))
        expected = h * t + expected * (1.0 - t)
    np.testing.assert_allclose(highway(u).detach(), expected, atol=1e-6)


def test_highway_that_never_opens_copies():
    highway = Highway(5, 2)
    for gate in highway.gates:
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, -50.0)
    u = torch.randn(2, 5)
    torch.testing.assert_close(highway(u), u)


def test_phonemes_are_convolved_and_the_strongest_stays():
    torch.manual_seed(0)
    embedding = PhonemeEmbedding(8, 3, 4, kernel=3)
    ids = torch.tensor([[[1.0, 5.0, 2.0, 0.0], [7.0, 0.0, 0.0, 0.0]]])
    table = embedding.embed.weight.detach().numpy()
    weight, bias = embedding.convolve.weight.detach().numpy(), embedding.convolve.bias.detach().numpy()
    for word in range(2):
        row = np.pad(table[ids[0, word].long().numpy()], ((1, 1), (0, 0)))
        places = [[float((row[i : i + 3].T * weight[f]).sum() + bias[f]) for f in range(4)] for i in range(4)]
        np.testing.assert_allclose(embedding(ids)[0, word].detach(), np.max(places, axis=0), atol=1e-6)
    assert (table[0] == 0).all()


def test_ids_from_outside_the_table_do_not_crash():
    ids = torch.tensor([[[-3.0, 99.0, 1.4]]])
    assert torch.isfinite(PhonemeEmbedding(8, 3, 4)(ids)).all()


def test_words_do_not_see_the_padding_behind_them():
    torch.manual_seed(0)
    prenet = EncoderPrenet(5, 8, dropout=0.5).eval()
    x = torch.randn(2, 10, 5)
    other = x.clone()
    other[:, 4:] = 100.0
    length = torch.tensor([4, 4], dtype=torch.int32)
    torch.testing.assert_close(prenet(x, length)[:, :4], prenet(other, length)[:, :4])
    assert prenet(x, length).shape == (2, 10, 8)


def test_mel_prenet_is_two_layers_row_by_row():
    prenet = MelPrenet(4, 6, dropout=0.5).eval()
    x = torch.randn(2, 7, 4)
    rows, length = prenet(x, torch.tensor([7, 3]))
    assert (rows.shape, length.tolist()) == ((2, 7, 6), [7, 3])
    torch.testing.assert_close(prenet(x[:, 2:3], length)[0], rows[:, 2:3])


def test_masked_max_takes_valid_rows_alone():
    x = torch.tensor([[[-2.0], [-5.0], [9.0]]]).repeat(2, 1, 1)
    assert masked_max(x, torch.tensor([2, 0]))[:, 0].tolist() == [-2.0, 0.0]
