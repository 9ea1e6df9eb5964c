#!/usr/bin/env bash
# soundfile: reading an MP3 straight through in blocks is not the same as
# reading it at once, even though the caller never seeks.
#
# Expected: SoundFile.read(n) called over and over, with no seek() of one's
#   own, gives the samples of one read() of the whole file.
# Seen: for a low-quality variable-rate MP3 the samples just after EVERY block
#   border are wrong by tenths of full scale. After each read soundfile
#   itself seeks to the position where it already is ("update read & write
#   position"), which makes libsndfile's MP3 decoder (mpg123) drop what it holds;
#   the first frames after that lack the bytes ("bit reservoir") that lie
#   in earlier frames.
# Controls: (a) the same block reads made directly through libsndfile's
#   sf_readf_float, with no seek between, agree with the whole-file read;
#   (b) a FLAC file read in the same blocks with soundfile agrees.
# What helps: read compressed files whole (then slice), or decode to FLAC or
#   WAV first.
# Versions: soundfile 0.14.0 (its Linux wheel brings libsndfile 1.2.2), numpy 2.3.5.
#   Python 3.11 to 3.13.
# Source: soundfile.py, SoundFile._cdata_io; the read() documentation says
#   only that reading goes on from the current position. A related seek
#   trouble for Ogg: bastibe/python-soundfile pull request 329.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check numpy==2.3.5 soundfile==0.14.0
cd "$work"
cat > check.py <<'PY'
import numpy as np
import soundfile as sf

print("soundfile", sf.__version__, "libsndfile", sf.__libsndfile_version__, "numpy", np.__version__)
rate, seconds = 44100, 5
t = np.arange(rate * seconds) / rate
noise = np.random.default_rng(0).normal(size=t.size)
x = (0.3 * np.sin(2 * np.pi * 440 * t) + 0.05 * noise).astype("float32")
sf.write("a.mp3", x, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.99)
sf.write("a.flac", x, rate)


def blocks(name):
    parts = []
    with sf.SoundFile(name) as f:
        while True:
            part = f.read(rate, dtype="float32")
            if not len(part):
                return np.concatenate(parts)
            parts.append(part)


def raw_blocks(name):
    parts = []
    with sf.SoundFile(name) as f:
        while True:
            out = np.empty(rate, "float32")
            n = sf._snd.sf_readf_float(f._file, sf._ffi.cast("float*", out.ctypes.data), rate)
            if not n:
                return np.concatenate(parts)
            parts.append(out[:n])


def gap(a, b):
    assert a.shape == b.shape, (a.shape, b.shape)
    return np.abs(a - b)


whole = sf.read("a.mp3", dtype="float32")[0]
bad = gap(blocks("a.mp3"), whole)
per_border = [float(bad[k * rate:k * rate + 2400].max()) for k in range(1, seconds)]
between = [float(bad[k * rate + 8000:(k + 1) * rate].max()) for k in range(seconds)]
raw = float(gap(raw_blocks("a.mp3"), whole).max())
flac = float(gap(blocks("a.flac"), sf.read("a.flac", dtype="float32")[0]).max())
print("MP3, soundfile blocks, largest error after each border:", np.round(per_border, 3))
print("MP3, soundfile blocks, largest error 8000+ samples after a border:", max(between))
print("MP3, libsndfile blocks without the extra seek:", raw)
print("FLAC, soundfile blocks:", flac)
assert min(per_border) > 0.05, "block reads of MP3 now agree with the whole-file read"
assert max(between) < 1e-4 and raw < 1e-6 and flac == 0.0, "a control failed"
print("HOLDS: sequential MP3 blocks differ from the whole-file read at every border")
PY
"$work/venv/bin/python" check.py
