"""From phoneme ids to one vector per word."""

from __future__ import annotations

from torch import Tensor, nn


class PhonemeEmbedding(nn.Module):
    """Embeds each word's phonemes, convolves over them, and takes the maximum (Kim 2014; Seo et al. 2017).

    Multilevel Transformer paper, section 3.1.3.

    Args:
        phonemes: How many ids there are, 0 for padding included.
        dim: Width of a phoneme's embedding.
        width: Width of a word's vector.
        kernel: Phonemes that one filter sees.
    """

    def __init__(self, phonemes: int, dim: int, width: int, kernel: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(phonemes, dim, padding_idx=0)
        self.convolve = nn.Conv1d(dim, width, kernel, padding=kernel // 2)

    def forward(self, ids: Tensor) -> Tensor:
        """Take `(N, words, phonemes)` float ids, return `(N, words, width)`."""
        words, phonemes = ids.shape[1:]
        embedded = self.embed(ids.round().long().clamp(0, self.embed.num_embeddings - 1))  # (N, W, P, dim)
        by_word = embedded.reshape(-1, phonemes, self.embed.embedding_dim).transpose(1, 2)  # (N W, dim, P)
        strongest: Tensor = self.convolve(by_word).amax(dim=2)
        return strongest.reshape(-1, words, strongest.shape[1])
