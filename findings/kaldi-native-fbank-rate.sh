#!/usr/bin/env bash
# kaldi-native-fbank 1.22.5 and 1.23.0, set to 16 kHz, given samples that are said to be at 8 kHz; and 128 mel bins.
#
# Guess:  `accept_waveform(8000, samples)` resamples or raises, as Kaldi's own does; 128 bins at 16 kHz and 512 points work.
# Seen:   1.22.5 takes the samples for 16 kHz ones without a word, and the fourth of 128 bins covers no line of the
#         spectrum: it is always at the floor. 1.23.0 raises ValueError for both.
. "$(dirname "$0")/venv.sh"

cat > "$work/check.py" <<'PYTHON'
import sys
import numpy as np
import kaldi_native_fbank as knf

samples = np.random.default_rng(0).normal(0, 3000, 16000).astype(np.float32)

def features(bins, told):
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = 16000
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = bins
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(told, samples)
    fbank.input_finished()
    return np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])

def outcome(bins, told):
    try:
        return features(bins, told)
    except ValueError as error:
        return str(error)

told, wide = outcome(80, 8000), outcome(128, 16000)
print(knf.__version__, "8 kHz:", told if isinstance(told, str) else "taken for 16 kHz")
print(knf.__version__, "128 bins:", wide if isinstance(wide, str) else f"dead bins {np.flatnonzero(np.ptp(wide, axis=0) < 1e-4)}")
if sys.argv[1] == "old":
    assert np.array_equal(told, features(80, 16000))
    assert np.flatnonzero(np.ptp(wide, axis=0) < 1e-4).tolist() == [3]
else:
    assert told == "sampling_rate does not match the options"
    assert "num_mel_bins too large" in wide
PYTHON
venv old kaldi-native-fbank==1.22.5 numpy==2.2.6
venv new kaldi-native-fbank==1.23.0 numpy==2.2.6
"$work/old/bin/python" "$work/check.py" old
"$work/new/bin/python" "$work/check.py" new
