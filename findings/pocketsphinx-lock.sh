#!/bin/sh
# PocketSphinx decodes with Python's interpreter lock held: no other thread runs until a whole utterance is done.
#
# The guess, written before the run: like NumPy and ONNX Runtime it lets go of the lock in its long native calls, so that
# a program decodes in one thread and captures audio in another. It does not. `Decoder.process_raw(full_utt=True)` and
# `end_utt()` return after about as long as the audio lasts, and until then every other Python thread stands still and no
# signal is handled. The same C functions, called through ctypes from the same shared object, take as long and let the
# others run.
#
# Versions: pocketsphinx 5.1.1, CPython 3.11, Linux x86-64. Seen:
#
#   decoding for 1.8 s: another thread ran 2 times
#   sleeping for 1.8 s: another thread ran 141 times
#
# Exits with a status other than 0 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pocketsphinx==5.1.1
"$folder/venv/bin/python" - <<'PYTHON'
import random
import struct
import sys
import threading
import time

import pocketsphinx

RATE = 16_000
draw = random.Random(0)
noise = struct.pack(f"<{2 * RATE}h", *(round(draw.gauss(0, 3000)) for _ in range(2 * RATE)))  # 2 s, 16 bits
decoder = pocketsphinx.Decoder(samprate=RATE, loglevel="FATAL")


def decode():
    decoder.start_utt()
    decoder.process_raw(noise, full_utt=True)
    decoder.end_utt()


def beats_during(call):
    """Return how long a call takes, and how often a thread that sleeps 10 ms at a time wakes up meanwhile."""
    beats, over = [], threading.Event()

    def beat():
        while not over.wait(0.01):
            beats.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    before = time.monotonic()
    call()
    after = time.monotonic()
    over.set()
    thread.join()
    return after - before, sum(before < at < after for at in beats)


decode_s, beats = beats_during(decode)
print(f"decoding for {decode_s:.1f} s: another thread ran {beats} times")
sleep_s, others = beats_during(lambda: time.sleep(decode_s))
print(f"sleeping for {sleep_s:.1f} s: another thread ran {others} times")
if beats > 5 or others < 10 * max(1, beats):
    sys.exit("this has changed: the thread ran while PocketSphinx decoded, or the decoding was too short to tell")
PYTHON
