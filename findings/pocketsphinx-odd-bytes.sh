#!/usr/bin/env bash
# pocketsphinx 5.1.1: 16-bit samples handed over in blocks of an odd number of bytes, as they come from a pipe.
#
# Guess:  `process_raw` refuses half a sample, or keeps it for the next block.
# Seen:   it drops it without a word, and from then on takes the high byte of one sample and the low byte of the next for
#         one: a sentence that is heard right in blocks of 3,200 bytes is "fifth fifth" in blocks of 3,201.
. "$(dirname "$0")/venv.sh"
venv env pocketsphinx==5.1.1 soundfile==0.13.1 numpy==2.2.6

"$work/env/bin/python" - "$(dirname "$0")/../edgeser/clips/03-01-03-01-02-02-11.flac" <<'PYTHON'
import sys
import soundfile
from pocketsphinx import Decoder

pcm = soundfile.read(sys.argv[1], dtype="int16")[0].tobytes()
decoder = Decoder(samprate=16000, loglevel="FATAL")

def heard(size):
    decoder.start_utt()
    for place in range(0, len(pcm), size):
        decoder.process_raw(pcm[place : place + size], False, False)
    decoder.end_utt()
    return decoder.hyp().hypstr if decoder.hyp() else ""

even, odd = heard(3200), heard(3201)
print("blocks of 3,200 bytes:", repr(even))
print("blocks of 3,201 bytes:", repr(odd))
assert "dogs are sitting by the door" in even
assert "dogs" not in odd and "door" not in odd
PYTHON
