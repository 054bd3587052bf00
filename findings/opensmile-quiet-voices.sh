#!/usr/bin/env bash
# opensmile 2.6.0: eGeMAPSv02 functionals, the field's standard set, of the same voice at lower levels.
#
# Guess:  only loudness changes: pitch, jitter, harmonicity and formants are ratios and do not know the level.
# Seen:   between peaks of -40 and -50 dBFS the voice is gone, without a warning: pitch, jitter, harmonics-to-noise ratio, formants and
#         the number of voiced segments are all exactly 0. (A clip of RAVDESS loses its pitch the
#         same way when it is played 20 dB lower.)
. "$(dirname "$0")/venv.sh"
venv env opensmile==2.6.0 numpy==2.2.6 pandas==2.3.3

"$work/env/bin/python" - <<'PYTHON'
import numpy as np
import opensmile

RATE = 16_000
NAMES = {
    "pitch": "F0semitoneFrom27.5Hz_sma3nz_amean",
    "harmonics to noise": "HNRdBACF_sma3nz_amean",
    "first formant": "F1frequency_sma3nz_amean",
    "voiced segments a second": "VoicedSegmentsPerSec",
}
seconds = np.arange(2 * RATE) / RATE
hz = 150 * 2 ** (np.sin(2 * np.pi * 0.7 * seconds) / 24)
phase = 2 * np.pi * np.cumsum(hz) / RATE
voice = sum(np.cos(k * phase) / k for k in range(1, 20))
voice = (voice / np.abs(voice).max()).astype(np.float32)
smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
found = {}
for peak in (0, -20, -40, -50):
    row = smile.process_signal(voice * np.float32(10 ** (peak / 20)), RATE).iloc[0]
    found[peak] = [float(row[name]) for name in NAMES.values()]
    print(f"{peak:4} dBFS", {name: round(value, 2) for name, value in zip(NAMES, found[peak])})
assert np.allclose(found[-40], found[0], rtol=0.02)
assert found[-50] == [0.0] * len(NAMES)
PYTHON
