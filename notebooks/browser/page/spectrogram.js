// Log-mel spectrograms, as `LogMel("vggish")` of sepcl_keras makes them, and how they are drawn and told.

const WINDOW = 400, HOP = 160, FFT = 512, BINS = FFT / 2 + 1, BANDS = 64, LOW = 125, HIGH = 7500, OFFSET = 0.01;
const mel = (hertz) => 1127 * Math.log1p(hertz / 700); // of HTK
const hertz = (mel) => 700 * Math.expm1(mel / 1127);
const edge = (index) => mel(LOW) + ((mel(HIGH) - mel(LOW)) * index) / (BANDS + 1);
const hann = Float64Array.from({ length: WINDOW }, (_, t) => 0.5 - 0.5 * Math.cos((2 * Math.PI * t) / WINDOW));

// Of each band { first, weights }, its first bin and the weights from there on: triangles that are straight on the mel axis.
function triangles(rate) {
  return Array.from({ length: BANDS }, (_, band) => {
    const weights = Array.from({ length: BINS }, (_, bin) => {
      const at = mel((bin * rate) / FFT), [low, centre, high] = [edge(band), edge(band + 1), edge(band + 2)];
      return bin ? Math.max(0, Math.min((at - low) / (centre - low), (high - at) / (high - centre))) : 0;
    });
    const first = Math.max(0, weights.findIndex((weight) => weight > 0));
    return { first, weights: weights.slice(first, weights.findLastIndex((weight) => weight > 0) + 1) };
  });
}

// The discrete Fourier transform of FFT numbers, in place, by halves.
const cosines = Float64Array.from({ length: FFT / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / FFT));
const sines = Float64Array.from({ length: FFT / 2 }, (_, k) => -Math.sin((2 * Math.PI * k) / FFT));
function transform(re, im) {
  for (let i = 1, j = 0; i < FFT; i++) {
    let bit = FFT >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      const x = re[i], y = im[i];
      re[i] = re[j], im[i] = im[j], re[j] = x, im[j] = y;
    }
  }
  for (let half = 1; half < FFT; half *= 2) {
    for (let k = 0, turn = 0; k < half; k++, turn += FFT / 2 / half) {
      const c = cosines[turn], s = sines[turn];
      for (let a = k; a < FFT; a += 2 * half) {
        const b = a + half, x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
        re[b] = re[a] - x, im[b] = im[a] - y, re[a] += x, im[a] += y;
      }
    }
  }
}

// { frames, values }: frame after frame, 64 bands each, the natural logarithm of mel + 0.01.
export function logMel(samples, rate) {
  const frames = Math.max(1, 1 + Math.floor((samples.length - WINDOW) / HOP)), values = new Float32Array(frames * BANDS);
  const filters = triangles(rate), re = new Float64Array(FFT), im = new Float64Array(FFT);
  for (let frame = 0; frame < frames; frame++) {
    re.fill(0), im.fill(0);
    for (let t = 0; t < WINDOW; t++) re[t] = (samples[frame * HOP + t] ?? 0) * hann[t];
    transform(re, im);
    for (let bin = 0; bin < BINS; bin++) re[bin] = Math.sqrt(re[bin] ** 2 + im[bin] ** 2);
    for (let band = 0; band < BANDS; band++) {
      const { first, weights } = filters[band];
      let sum = OFFSET;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * re[first + i];
      values[frame * BANDS + band] = Math.log(sum);
    }
  }
  return { frames, values };
}

// From dark to bright, evenly: a few colours of viridis.
const COLOURS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];

// Draws a spectrogram; silence is dark, `most` is bright.
export function draw(canvas, { frames, values }, most) {
  canvas.width = frames, canvas.height = BANDS;
  const context = canvas.getContext("2d"), image = context.createImageData(frames, BANDS), least = Math.log(OFFSET);
  values.forEach((value, i) => {
    const level = Math.max(0, Math.min(1, (value - least) / Math.max(1e-6, most - least))) * (COLOURS.length - 1);
    const below = Math.min(Math.floor(level), COLOURS.length - 2), part = level - below;
    const pixel = 4 * ((BANDS - 1 - (i % BANDS)) * frames + Math.floor(i / BANDS));
    for (let c = 0; c < 3; c++) image.data[pixel + c] = COLOURS[below][c] + part * (COLOURS[below + 1][c] - COLOURS[below][c]);
    image.data[pixel + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

// What is to be seen, in words: when it is loudest and at which pitch.
export function told({ frames, values }, rate) {
  const tenth = (rate / HOP) / 10, times = new Float64Array(Math.ceil(frames / tenth)), bands = new Float64Array(BANDS);
  values.forEach((value, i) => {
    const above = Math.exp(value) - OFFSET;
    times[Math.floor(Math.floor(i / BANDS) / tenth)] += above, bands[i % BANDS] += above;
  });
  const most = (sums) => sums.indexOf(Math.max(...sums)), second = most(times) / 10;
  const pitch = hertz(edge(most(bands) + 1));
  return `loudest ${second.toFixed(1)} seconds after the beginning, and strongest around ${Number(pitch.toPrecision(2))} Hz`;
}
