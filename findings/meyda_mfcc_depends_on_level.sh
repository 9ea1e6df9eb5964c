#!/usr/bin/env bash
# Meyda: the MFCCs of a sound shrink towards zero as it gets quieter, all of them.
#
# Expected: a cepstrum is made of logarithms, so a gain adds a constant to each band's and changes coefficient 0 alone;
#   coefficients 1 to 12 tell the shape of the spectrum, at whatever level.
# Seen: Meyda takes the logarithm of 1 + a band's energy. Where energies are below 1, as in a quiet frame, that is about the
#   energy itself. The same noise with an RMS of 0.075, 0.0075 and 0.00075 has a coefficient 1 of 37, 7 and 0.1: a distance
#   between MFCCs tells levels, hardly timbre. Its `melBands` are such logarithms too.
# Control: the same bands, in plain logarithms, have one set of coefficients 1 to 12 at all three levels.
# What helps: `melBands` without that logarithm (expm1), and plain ones of one's own; or frames brought to one level first.
# Versions: meyda 5.6.3. Node 20; Python is not needed.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit meyda@5.6.3
cat > check.cjs <<'JS'
const assert = require("assert");
const Meyda = require("meyda");

const [frame, bands] = [512, 26];
Meyda.bufferSize = frame;
Meyda.sampleRate = 16000;
let [state, last] = [1, 0];
const noise = Float32Array.from({ length: frame }, () => {
  state = (state * 48271) % 2147483647; // a minimal standard generator: the same noise everywhere
  last = 0.9 * last + 0.1 * ((2 * state) / 2147483647 - 1);
  return last;
});

function cosines(values) {
  return Array.from({ length: 13 }, (_, k) =>
    values.reduce((sum, value, n) => sum + value * Math.cos((Math.PI * k * (n + 0.5)) / bands), 0));
}

const [theirs, plain] = [[], []];
for (const gain of [1, 0.1, 0.01]) {
  const { mfcc, melBands, rms } = Meyda.extract(["mfcc", "melBands", "rms"], noise.map((value) => value * gain));
  theirs.push(mfcc);
  plain.push(cosines(melBands.map((value) => Math.log(Math.expm1(value)))));
  console.log(`RMS ${rms.toPrecision(2)}: MFCC 1 to 3 ${mfcc.slice(1, 4).map((c) => c.toFixed(2)).join(", ")}; ` +
    `by plain logarithms ${plain.at(-1).slice(1, 4).map((c) => c.toFixed(2)).join(", ")}`);
}
const size = (values) => Math.hypot(...values.slice(1));
const apart = (a, b) => Math.hypot(...a.slice(1).map((value, k) => value - b[k + 1]));
assert(size(theirs[1]) < 0.5 * size(theirs[0]) && size(theirs[2]) < 0.02 * size(theirs[0]));
assert(apart(plain[0], plain[2]) < 1e-3 * size(plain[0]));
JS
node check.cjs
echo "As described: MFCCs fade with the level."
