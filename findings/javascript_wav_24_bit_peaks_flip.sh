#!/usr/bin/env bash
# node-wav and wav-decoder: the lowest 24-bit sample is read as the highest, so clipped troughs turn into peaks.
#
# Expected: in a WAV of 24 bits -8388608 is -1, as -32768 is in one of 16.
# Seen: both take it for +8388608 and give +1.0000001. A recording that was clipped in a recorder of 24 bits has runs of this
#   sample; of a 440 Hz tone, 6 dB too loud, each trough is read as a peak: a click of twice full scale at either side.
# Control: wavefile reads -1 from the same file; both libraries read -1 at 16 bits.
# What helps: wavefile, or the browser's decodeAudioData.
# Versions: node-wav 0.0.2, wav-decoder 1.3.0, wavefile 11.0.0. Node 20; Python is not needed.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit node-wav@0.0.2 wav-decoder@1.3.0 wavefile@11.0.0
cat > check.cjs <<'JS'
const assert = require("assert");
const nodeWav = require("node-wav");
const wavDecoder = require("wav-decoder");
const { WaveFile } = require("wavefile");

const [rate, seconds] = [16000, 0.1];
const clip = (bits) => {
  const [low, high] = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
  return Array.from({ length: rate * seconds }, (_, i) =>
    Math.max(low, Math.min(high, Math.round(2 * high * Math.sin((2 * Math.PI * 440 * i) / rate)))));
};

async function main() {
  for (const bits of [16, 24]) {
    const samples = clip(bits);
    const wav = new WaveFile();
    wav.fromScratch(1, rate, String(bits), samples);
    const bytes = Buffer.from(wav.toBuffer());
    const again = new WaveFile(bytes).getSamples(false, Float64Array);
    const found = {
      "node-wav": nodeWav.decode(bytes).channelData[0],
      "wav-decoder": (await wavDecoder.decode(new Uint8Array(bytes).buffer)).channelData[0],
      wavefile: again.map((value) => value / 2 ** (bits - 1)),
    };
    const troughs = samples.flatMap((value, i) => (value === -(2 ** (bits - 1)) ? [i] : []));
    assert(troughs.length > 500);
    for (const [name, values] of Object.entries(found)) {
      const flipped = troughs.filter((i) => values[i] > 0).length;
      console.log(`${bits} bits, ${name}: ${flipped} of ${troughs.length} samples at the bottom are read as positive`);
      assert.strictEqual(flipped, bits === 24 && name !== "wavefile" ? troughs.length : 0);
    }
  }
}
main();
JS
node check.cjs
echo "As described: at 24 bits two libraries flip the troughs."
