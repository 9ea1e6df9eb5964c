// The networks, beside the page, so that it stays responsive. Takes { job, sound, about }, tells of { job, done } as it
// goes and of { job, h, channels, spectrograms } at the end, or of { job, error }. A newer job ends the one before it.

import * as ort from "./runtime/ort.wasm.bundle.min.mjs";
import { Joined, OVERLAP, PIECE_SECONDS, begins } from "./pieces.js";
import { logMel } from "./spectrogram.js";

ort.env.wasm.numThreads = 1; // more would need headers that a plain host does not send
const WINDOWS = 8; // of the encoder, at once
const sessions = {};
let latest = 0, queue = Promise.resolve(); // one job at a time: a session runs once at a time

async function network(name) {
  sessions[name] ??= ort.InferenceSession.create(`networks/${name}.onnx`, { executionProviders: ["wasm"] });
  try {
    return await sessions[name];
  } catch (error) {
    delete sessions[name]; // to be tried again with the next sound
    throw error;
  }
}

// What the network makes of rows (clips, samples), one after the other in a Float32Array.
async function run(name, rows, samples) {
  const session = await network(name);
  const given = new ort.Tensor("float32", rows, [rows.length / samples, samples]);
  const made = await session.run({ [session.inputNames[0]]: given });
  return made[session.outputNames[0]].data;
}

// The mean of h over the windows of a sound; one that is shorter than a window is filled up with zeros.
async function embedded(sound, { window, hop }, step) {
  const count = 1 + Math.max(0, Math.floor((sound.length - window) / hop));
  let mean = null;
  for (let first = 0; first < count; first += WINDOWS) {
    const rows = new Float32Array(Math.min(WINDOWS, count - first) * window);
    for (let i = 0; i * window < rows.length; i++) rows.set(sound.subarray((first + i) * hop, (first + i) * hop + window), i * window);
    const h = await run("encoder", rows, window);
    const d = h.length / (rows.length / window);
    mean ??= new Float32Array(d);
    h.forEach((value, i) => { mean[i % d] += value / count; });
    await step(rows.length / window);
  }
  return mean;
}

async function separated(name, sound, rate, step) {
  const length = Math.min(sound.length, PIECE_SECONDS * rate), common = Math.round(OVERLAP * PIECE_SECONDS * rate);
  const joined = new Joined(sound.length, common);
  for (const begin of begins(sound.length, length, common)) {
    const channels = await run(name, sound.slice(begin, begin + length), length);
    joined.add([channels.subarray(0, length), channels.subarray(length)], begin);
    await step(length / rate);
  }
  return joined.channels;
}

class Replaced extends Error {}

async function work({ job, sound, about }) {
  const { rate, window, hop } = about, names = Object.keys(about.snapshots);
  const pieces = begins(sound.length, PIECE_SECONDS * rate, OVERLAP * PIECE_SECONDS * rate).length;
  const windows = 1 + Math.max(0, Math.floor((sound.length - window) / hop));
  const all = names.length * pieces * Math.min(sound.length / rate, PIECE_SECONDS) + windows; // both kinds of step: seconds
  let done = 0;
  const step = async (seconds) => {
    done += seconds;
    postMessage({ job, done: done / all });
    await new Promise((resolve) => setTimeout(resolve)); // a newer job is heard of here
    if (job !== latest) throw new Replaced();
  };
  try {
    const h = await embedded(sound, about, step), channels = {};
    for (const name of names) channels[name] = await separated(name, sound, rate, step);
    const spectrograms = [sound, ...Object.values(channels).flat()].map((samples) => logMel(samples, rate));
    postMessage({ job, h, channels, spectrograms });
  } catch (error) {
    if (!(error instanceof Replaced)) postMessage({ job, error: String(error.message ?? error) });
  }
}

onmessage = ({ data }) => {
  latest = data.job;
  queue = queue.then(() => work(data));
};
