#!/usr/bin/env bash
# soundfile: a streamed FLAC (length not known in its header) cannot be read to
# its end, neither whole nor in blocks; the last block is thrown away.
#
# Expected: FLAC allows 0 ("unknown") as the total sample count; encoders that
#   write to a pipe leave it so. Reading in blocks until nothing comes, as
#   one does for streams, gives every sample.
# Seen: info() reports 2**63 - 1 frames (at 44.1 kHz: some six million
#   years); read() fails with "array is too big" before decoding; and, less
#   expected, block reading gives all FULL blocks, then raises LibsndfileError in
#   place of the last, shorter block: libsndfile has decoded it by then, but
#   soundfile's own seek after each read fails at the end, so the samples are
#   lost. Even read(frames=N) with the exact true length N fails.
# Controls: the same bytes with the count filled in read well both ways; N - 1
#   frames of the unknown-length file are right; libsndfile's own
#   sf_readf_float returns all N samples of it.
# What helps: write the true count into the header (36 bits from byte 21.5 of
#   the file), or re-encode once to a file that can be seeked.
# Versions: soundfile 0.14.0 (its Linux wheel brings libsndfile 1.2.2), numpy 2.3.5.
#   Python 3.11 to 3.13.
# Source: RFC 9639, section on the streaminfo block (0 means unknown);
#   soundfile.py, SoundFile._cdata_io; libsndfile issue 1038 tells of the
#   length and of read(), not of the lost tail.
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
rate = n = 44100
x = (np.random.default_rng(0).integers(-9000, 9000, n)).astype("int16")
sf.write("known.flac", x, rate)
raw = bytearray(open("known.flac", "rb").read())
assert raw[:4] == b"fLaC" and raw[4] & 127 == 0
field = int.from_bytes(raw[18:26], "big")
assert field & (2**36 - 1) == n
raw[18:26] = (field & ~(2**36 - 1)).to_bytes(8, "big")
open("unknown.flac", "wb").write(raw)


def blocks(name, size=4096):
    parts, error = [], None
    with sf.SoundFile(name) as f:
        try:
            while True:
                part = f.read(size, dtype="int16")
                if not len(part):
                    break
                parts.append(part)
        except sf.LibsndfileError as e:
            error = type(e).__name__
    return np.concatenate(parts), error


def attempt(**kw):
    try:
        return sf.read("unknown.flac", dtype="int16", **kw)[0], None
    except (ValueError, sf.LibsndfileError) as e:
        return None, f"{type(e).__name__}: {str(e)[:20]}"


assert np.array_equal(sf.read("known.flac", dtype="int16")[0], x)
got, error = blocks("known.flac")
assert np.array_equal(got, x) and error is None
frames = sf.info("unknown.flac").frames
print("frames reported:", frames)
whole, exact, less = attempt(), attempt(frames=n), attempt(frames=n - 1)
print("read():", whole[1], "| read(frames=N):", exact[1], "| read(frames=N-1) right:",
      np.array_equal(less[0], x[:-1]))
got, error = blocks("unknown.flac")
print("blocks of 4096:", len(got), "of", n, "samples, then", error)
with sf.SoundFile("unknown.flac") as f:
    out = np.empty(n + 5000, "int16")
    c = sf._snd.sf_readf_short(f._file, sf._ffi.cast("short*", out.ctypes.data), n + 5000)
print("libsndfile itself:", c, "samples")
assert c == n and np.array_equal(out[:n], x) and np.array_equal(less[0], x[:-1]), "a control failed"
assert frames == 2**63 - 1 and whole[0] is None and exact[0] is None, "such a file reads now"
assert error == "LibsndfileError" and len(got) == n // 4096 * 4096
assert np.array_equal(got, x[:len(got)])
print("HOLDS: the last", n - len(got), "samples cannot be had through soundfile's block reads")
PY
"$work/venv/bin/python" check.py
