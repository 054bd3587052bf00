#!/usr/bin/env bash
# transformers 5.24.0: Whisper's English text normaliser, with which word error rates of recognisers are compared.
#
# Guess:  numbers in words become digits, one for one ("one two three" "1 2 3"); an exclamation stays what it is; the
#         same number spoken and written ends the same; a possessive stays ("smith's").
# Seen:   "one two three" is one word, "123", so that one wrong digit is one word of one; "oh my" is "0 my", "one
#         o'clock" is "10 clock"; "minus five" keeps its sign and "-5" loses it, so that a recogniser that writes digits
#         is wrong where it is right; "smith's dog" is "smith is dog".
. "$(dirname "$0")/venv.sh"
venv env transformers==5.24.0 numpy==2.2.6

"$work/env/bin/python" - 2>/dev/null <<'PYTHON'
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

normalize = EnglishTextNormalizer({})
seen = {
    "one two three": "123",
    "oh my": "0 my",
    "one o'clock": "10 clock",
    "minus five": "-5",
    "-5": "5",
    "mr. smith's dog": "mister smith is dog",
    "a hundred and one": "a 101",
}
for text, expected in seen.items():
    print(f"{text!r:22} {normalize(text)!r}")
    assert normalize(text) == expected
PYTHON
