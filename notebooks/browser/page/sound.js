// Sounds into the page and out of it: files and recordings to samples, samples to what a player takes.

export const MOST_SECONDS = 60;
const LEAST_SECONDS = 0.1, MOST_BYTES = 100e6;

// What is wrong with what someone gave, in one sentence that is shown as it is.
export class Refused extends Error {}

// Mono samples, Float32Array at `rate`, of the bytes of a sound in any format that this browser reads.
export async function decoded(bytes, name, rate) {
  if (bytes.byteLength > MOST_BYTES) {
    throw new Refused(`${name} has ${Math.round(bytes.byteLength / 1e6)} MB; expected a sound of at most ${MOST_SECONDS} seconds.`);
  }
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes); // which resamples to the context's rate
  } catch {
    throw new Refused(`${name} is no sound that this browser can read; expected wav, flac, ogg, mp3 or the like.`);
  }
  if (sound.duration > MOST_SECONDS + 0.5) { // a recording that was stopped at 60 s may be a bit longer
    throw new Refused(`${name} lasts ${Math.round(sound.duration)} seconds; expected at most ${MOST_SECONDS}.`);
  }
  if (sound.duration < LEAST_SECONDS) throw new Refused(`${name} is shorter than ${LEAST_SECONDS} seconds; expected more of it.`);
  const mono = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, i) => { mono[i] += value / sound.numberOfChannels; });
  }
  if (!mono.every(Number.isFinite)) throw new Refused(`${name} has samples that are no numbers; expected a sound.`);
  if (peak(mono) === 0) throw new Refused(`${name} is silent; expected a sound.`);
  return mono;
}

// Starts to record. Gives { stop, bytes }: a function, and a promise of the bytes once it is stopped, at 60 s by itself.
export async function recording(tick) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Refused("This page may not use a microphone; expected an address that begins with https or is this machine's own.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia(
      { audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  } catch (error) {
    throw new Refused(error.name === "NotFoundError" ? "There is no microphone here; a file or one of our scenes will do."
      : "The microphone was refused; expected leave to use it, which the browser's settings for this page give.");
  }
  const recorder = new MediaRecorder(stream), parts = [], begin = performance.now();
  const timer = setInterval(() => {
    const seconds = (performance.now() - begin) / 1000;
    tick(seconds);
    if (seconds >= MOST_SECONDS) stop();
  }, 200);
  const stop = () => { if (recorder.state !== "inactive") recorder.stop(); };
  const bytes = new Promise((resolve) => {
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      clearInterval(timer);
      stream.getTracks().forEach((track) => track.stop());
      resolve(new Blob(parts).arrayBuffer());
    };
  });
  recorder.start();
  return { stop, bytes };
}

export function peak(samples) {
  return samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

// A wav file of 16-bit integers, as a Blob: samples times `gain`.
export function wav(samples, rate, gain) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"), view.setUint32(4, 36 + 2 * samples.length, true), text(8, "WAVEfmt ");
  view.setUint32(16, 16, true), view.setUint16(20, 1, true), view.setUint16(22, 1, true); // PCM, one channel
  view.setUint32(24, rate, true), view.setUint32(28, 2 * rate, true), view.setUint16(32, 2, true), view.setUint16(34, 16, true);
  text(36, "data"), view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, gain * value))), true));
  return new Blob([view.buffer], { type: "audio/wav" });
}
