#!/usr/bin/env bash
# tokenizers 0.22.1: text that happens to hold the name of a special token, encoded with `add_special_tokens=False`.
#
# Guess:  what a user wrote is text: `[SEP]` becomes `[`, `sep`, `]`, and no special token comes out where none is added.
# Seen:   it becomes the special token itself, in the middle of a word too. `encode_special_tokens`, off by default and in
#         spite of its name, is what turns that off.
. "$(dirname "$0")/venv.sh"
venv env tokenizers==0.22.1

"$work/env/bin/python" - <<'PYTHON'
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

words = ["[UNK]", "[SEP]", "[MASK]", "no", "yes", "x", "y", "[", "]", "sep", "mask"]
tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.add_special_tokens(["[SEP]", "[MASK]"])
text = "no [SEP] yes x[MASK]y"
as_it_is = tokenizer.encode(text, add_special_tokens=False).tokens
tokenizer.encode_special_tokens = True
switched = tokenizer.encode(text, add_special_tokens=False).tokens
print("as it is:             ", as_it_is)
print("encode_special_tokens:", switched)
assert as_it_is == ["no", "[SEP]", "yes", "x", "[MASK]", "y"]
assert switched == ["no", "[", "sep", "]", "yes", "x", "[", "mask", "]", "y"]
PYTHON
