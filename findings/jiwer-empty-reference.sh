#!/usr/bin/env bash
# jiwer 4.0.0: the word error rate of a recording in which nobody speaks.
#
# Guess:  a ValueError: a rate over no words has no denominator.
# Seen:   the number of words that were made up, as if the reference had one word: 3 for three of them, and 0 for none.
#         So a mean of rates over recordings counts silence by words, and everything else by shares.
. "$(dirname "$0")/venv.sh"
venv env jiwer==4.0.0

"$work/env/bin/python" - <<'PYTHON'
import jiwer

for heard, expected in (("", 0), ("you", 1), ("thank you very", 3)):
    rate = jiwer.wer("", heard)
    print(f"nothing said, {heard!r} heard: {rate}")
    assert rate == expected
together = jiwer.wer(["", "kids are talking"], ["thank you very", "kids are talking"])
print(f"with a sentence of three words, right: {together}")
assert together == 1.0
PYTHON
