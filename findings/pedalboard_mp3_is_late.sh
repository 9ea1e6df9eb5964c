#!/usr/bin/env bash
# pedalboard: what it reads of an MP3 is 1,105 samples late, and longer than what was encoded.
#
# Expected: an MP3's header says how many samples the encoder put before and behind the sound, and a reader takes them off,
#   so that a clip in MP3 and the same in WAV agree sample by sample and in length.
# Seen: pedalboard.io.AudioFile leaves them in. A clip of two seconds at 16 kHz starts 1,105 samples late (69 ms: 576 of the
#   encoder, 529 of the decoder) and has 1,285 samples more; at 44.1 kHz it is as late (25 ms) and 1,533 longer. Read by it,
#   the MP3 of a clip does not line up with its WAV, with labels in seconds, or with what other readers give.
# Control: soundfile and miniaudio give the clip's own length, with no delay, from the same file.
# What helps: one of those two for MP3.
# Versions: pedalboard 0.9.26, soundfile 0.14.0 (which writes the MP3), miniaudio 1.71, numpy 2.4.6. Python 3.11 to 3.13.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
    pedalboard==0.9.26 soundfile==0.14.0 miniaudio==1.71 numpy==2.4.6
cd "$work"
cat > check.py <<'PY'
import miniaudio
import numpy as np
import soundfile
from pedalboard.io import AudioFile

SIZE = 1 << 18  # of the transforms, longer than two clips


def by_pedalboard(rate):
    with AudioFile("clip.mp3") as file:
        return file.read(file.frames)[0]


def by_miniaudio(rate):
    how = dict(output_format=miniaudio.SampleFormat.FLOAT32, nchannels=1, sample_rate=rate)
    return miniaudio.decode_file("clip.mp3", **how).samples


def delay(found, clip):
    """Samples by which `found` is late: where the correlation with the clip is highest, and that beside the energy."""
    product = np.fft.irfft(np.fft.rfft(found, SIZE) * np.conj(np.fft.rfft(clip, SIZE)), SIZE)
    return int(product.argmax()), product.max() / np.square(clip).sum()


for rate, longer in ((16_000, 1_285), (44_100, 1_533)):
    noise = np.random.default_rng(0).standard_normal(2 * rate + 123)
    clip = 0.2 * np.convolve(noise, np.hanning(9) / np.hanning(9).sum(), "same")
    clip[: rate // 10] = 0
    soundfile.write("clip.mp3", clip, rate)
    readers = {"pedalboard": by_pedalboard, "soundfile": lambda rate: soundfile.read("clip.mp3")[0]}
    for name, read in (readers | {"miniaudio": by_miniaudio}).items():
        found = np.asarray(read(rate), "float64")
        late, alike = delay(found, clip)
        more = len(found) - len(clip)
        print(f"{rate} Hz, {name}: {late} samples late, {more} more, correlation {alike:.2f}")
        assert alike > 0.9
        assert (late, more) == ((1_105, longer) if name == "pedalboard" else (0, 0))
PY
"$work/venv/bin/python" check.py
echo "As described: pedalboard's MP3 is late, the other two are not."
