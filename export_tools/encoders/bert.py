"""BERT (MiniLM included) and RoBERTa, by token or by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeser.export_tools.encoders.encoder import Encoder, additive_mask, load_pretrained
from edgeser.runtime.errors import InputError


class BertEncoder(Encoder):
    """BERT or RoBERTa over a start token, `length` tokens and an end token; rows are those of the tokens between.

    With `pool` there is one row for the whole line instead. `start` takes the start token's: BERT's CLS embedding, as
    He et al. use it (Multilevel Transformer, section 3.2.2). `mean` takes the mean over all tokens, start and end among
    them: what sentence encoders such as MiniLM are trained to give, here not scaled to length 1.

    Args:
        model: `transformers`' model without a head.
        length: Tokens.
        special: Ids of the start, end and padding tokens.

    Attributes:
        pool: `start`, `mean`, or `None` for a row for each token.
    """

    input = "text"
    masks_padding = True
    learned = None
    pool: str | None = None

    def __init__(self, model: nn.Module, length: int, special: dict[str, int]) -> None:
        super().__init__()
        self.model: Any = model
        config: Any = model.config
        self.architecture = config.model_type
        self.layers = config.num_hidden_layers
        self.length = length
        self._special = special
        # RoBERTa's positions start after its padding token's.
        first = config.pad_token_id + 1 if self.architecture == "roberta" else 0
        if first + length + 2 > config.max_position_embeddings:
            raise InputError(
                f"--length: got {length}, expected at most {config.max_position_embeddings - first - 2} "
                "tokens for this encoder"
            )
        self.register_buffer("places", torch.arange(first, first + length + 2)[None])

    def hidden(self, values: Tensor, valid: Tensor | None, depth: int) -> list[Tensor]:
        assert valid is not None
        ids = values.long()
        rows = self.model.embeddings(
            input_ids=ids, position_ids=self.get_buffer("places"), token_type_ids=torch.zeros_like(ids)
        )
        mask = additive_mask(valid, self.length + 2)
        states = [rows]
        for layer in self.model.encoder.layer[:depth]:
            states.append(layer(states[-1], mask))
        return [self._rows(state, valid) for state in states]

    def _rows(self, state: Tensor, valid: Tensor) -> Tensor:
        """Return what of a hidden state `(N, length + 2, dim)` leaves the encoder."""
        if self.pool is None:
            return state[:, 1:-1]
        if self.pool == "start":
            return state[:, :1]
        inside = (torch.arange(self.length + 2, device=state.device) < valid[:, None]).float()
        return (state * inside[:, :, None]).sum(dim=1, keepdim=True) / inside.sum(dim=1)[:, None, None]

    def describe(self) -> dict[str, Any]:
        return {**self._special, **({} if self.pool is None else {"pool": self.pool})}


def bert_from_transformers(folder: Path, length: int) -> BertEncoder:
    """Read a folder that `transformers` wrote, its tokenizer (`tokenizer.json`) with it.

    Raises:
        InputError: It is not readable, lacks weights, or has no tokenizer.
    """
    from tokenizers import Tokenizer
    from transformers import AutoModel

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{folder}: has no tokenizer.json: save the encoder's fast tokenizer there too")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{file}: not readable as a tokenizer: {str(error).splitlines()[0]}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model, _ = load_pretrained(folder, AutoModel, ("pooler.",))
    around = tokenizer.encode("").ids
    if len(around) != 2:
        raise InputError(f"{file}: puts {len(around)} tokens around a text, expected a start and an end token")
    special = {"start": around[0], "end": around[1], "padding": int(model.config.pad_token_id or 0)}
    return BertEncoder(model, length, special)
