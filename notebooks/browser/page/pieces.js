// A sound of any length piece by piece, as `separate_file` of sepcl_keras does it, with its numbers: one of at most a
// piece is separated whole; longer ones are cut into pieces that overlap, and these are cross-faded there.

export const PIECE_SECONDS = 20, OVERLAP = 0.2;
const DECISIVE = 0.25; // of the squared difference between pieces may be left for channels to change places

// Where the pieces of a sound of so many samples begin; all have one length, so the last one begins earlier.
export function begins(samples, length, common) {
  const found = [0];
  while (found.at(-1) + length < samples) found.push(Math.min(found.at(-1) + length - common, samples - length));
  return found;
}

// Two channels of the whole sound, grown piece by piece.
export class Joined {
  constructor(samples, common) {
    this.channels = [new Float32Array(samples), new Float32Array(samples)];
    this.common = common;
    this.end = 0; // how far the pieces reach so far
  }

  // Adds the two channels of the piece that begins at `begin`.
  add(piece, begin) {
    if (this.end) piece = this.inOrder(piece, begin);
    const fade = this.end - this.common; // where the last `common` samples of what is there begin
    this.channels.forEach((channel, m) => {
      const from = piece[m], first = this.end ? fade : 0;
      for (let t = first; t < begin + from.length; t++) {
        const weight = t < this.end ? Math.sin((Math.PI / 2) * ((t - fade + 0.5) / this.common)) ** 2 : 1;
        channel[t] += weight * (from[t - begin] - channel[t]);
      }
    });
    this.end = begin + piece[0].length;
  }

  // A separator may name its channels anew in each piece: they change places if they agree much better then.
  inOrder(piece, begin) {
    const cost = (a, b) => {
      let sum = 0;
      for (let t = this.end - this.common; t < this.end; t++) sum += (this.channels[a][t] - piece[b][t - begin]) ** 2;
      return sum;
    };
    const exchanged = cost(0, 1) + cost(1, 0) < DECISIVE * (cost(0, 0) + cost(1, 1));
    return exchanged ? [piece[1], piece[0]] : piece;
  }
}

// The largest |sum of channels − sound|.
export function difference(channels, sound) {
  return sound.reduce((most, value, t) => Math.max(most, Math.abs(channels[0][t] + channels[1][t] - value)), 0);
}
