// The page: takes a sound, has the worker take it apart, and shows what comes of it.

import { difference } from "./pieces.js";
import { MOST_SECONDS, Refused, decoded, peak, recording, wav } from "./sound.js";
import { draw, told } from "./spectrogram.js";

const at = (id) => document.getElementById(id);
const made = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);
const NEAREST = 5, LOUDEST = 0.9; // of what a player takes
const worker = new Worker("worker.js", { type: "module" });
let about, job = 0, current = null, recorder = null, addresses = [];
export const shown = {}; // what is on the page: { name, sound, channels, h, gain, neighbours }, for tests

function say(text, error = "") {
  at("status").textContent = text;
  at("error").textContent = error;
}

// Runs what a reader asked for; what goes wrong is said in one sentence.
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    at("progress").hidden = true;
    say("", error instanceof Refused ? error.message : `That failed: ${error.message}.`);
    if (!(error instanceof Refused)) console.error(error);
  }
}

// Hands a sound, as the bytes of a file, to the worker. `clip`: which of ours it is.
async function take(bytes, name, clip = null) {
  const mine = ++job, begin = performance.now();
  say(`Reading ${name}.`);
  const sound = await decoded(await bytes, name, about.rate);
  if (mine !== job) return; // another one was given since
  current = { job, name, sound, clip, begin };
  say(`Taking ${name} apart, ${(sound.length / about.rate).toFixed(1)} seconds.`);
  Object.assign(at("progress"), { value: 0, hidden: false });
  worker.postMessage({ job, sound, about });
}

worker.onmessage = ({ data }) => attempt(async () => {
  if (data.job !== job) return;
  if (data.error) throw new Error(data.error);
  if (data.done !== undefined) at("progress").value = data.done;
  else await show(data);
});
worker.onerror = (event) => attempt(() => { throw new Error(event.message ?? "the worker did not start"); });

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} is not there`);
  return answer;
}

// The nearest of our clips, { label, cosine, samples } each, without the sound itself.
async function nearest(h, clip) {
  const norm = (x) => Math.max(1e-12, Math.hypot(...x));
  const found = about.clips.filter((each) => each !== clip).map(
    (each) => ({ ...each, cosine: each.h.reduce((sum, value, i) => sum + value * h[i], 0) / norm(each.h) / norm(h) }));
  return Promise.all(found.sort((a, b) => b.cosine - a.cosine).slice(0, NEAREST).map(
    async (each) => ({ ...each, samples: await decoded(await (await fetched(each.file)).arrayBuffer(), each.label, about.rate) })));
}

async function show({ channels, h, spectrograms }) {
  const { name, sound, clip, begin } = current, { snapshots } = about;
  const neighbours = await nearest(h, clip);
  if (current.job !== job) return;
  const sounds = [["Mixture", sound, `what was given: ${name}`]];
  for (const [snapshot, two] of Object.entries(channels)) {
    two.forEach((channel, m) => sounds.push([`${snapshot}, channel ${m + 1}`, channel, snapshots[snapshot]]));
  }
  const gain = LOUDEST / Math.max(...[...sounds.map((each) => each[1]), ...neighbours.map((each) => each.samples)].map(peak));
  addresses.forEach(URL.revokeObjectURL), addresses = [];
  const most = spectrograms.reduce((most, { values }) => values.reduce((a, b) => Math.max(a, b), most), -Infinity);
  at("sounds").replaceChildren(...sounds.map(([title, samples, text], i) => pictured(title, samples, text, spectrograms[i], most, gain)));
  at("neighbours").replaceChildren(...neighbours.map(({ label, cosine, samples }) => {
    const item = made("li", `${label} (cosine ${cosine.toFixed(2)})`);
    item.append(player(label, samples, gain));
    return item;
  }));
  const apart = Object.entries(channels).map(([name, two]) => `${difference(two, sound).toFixed(8)} (${name})`);
  at("sum").textContent = `All players share one gain, × ${gain.toPrecision(2)}: what sounds quieter is quieter. ` +
    `The channels add up to the mixture; the largest difference is ${apart.join(" and ")}.`;
  at("number").textContent = about.clips.length - (clip ? 1 : 0);
  at("progress").hidden = true, at("heard").hidden = false, at("near").hidden = false;
  Object.assign(shown, { name, sound, channels, h, gain, neighbours });
  say(`Done with ${name} in ${((performance.now() - begin) / 1000).toFixed(1)} seconds: its channels and neighbours are below.`);
}

function player(title, samples, gain) {
  const address = URL.createObjectURL(wav(samples, about.rate, gain));
  addresses.push(address);
  const audio = made("audio", "", { controls: true, src: address });
  audio.setAttribute("aria-label", title);
  return audio;
}

function pictured(title, samples, text, spectrogram, most, gain) {
  const place = made("div", "", { className: "sound" }), canvas = made("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Spectrogram of ${title}: ${told(spectrogram, about.rate)}`);
  draw(canvas, spectrogram, most);
  place.append(made("h3", title), made("p", text, { className: "about" }), canvas, player(title, samples, gain));
  return place;
}

async function record() {
  if (recorder) return recorder.stop();
  say("Waiting for leave to use the microphone.");
  recorder = { stop() {} }; // until there is leave
  try {
    recorder = await recording((seconds) => { at("clock").textContent = `${Math.floor(seconds)} of ${MOST_SECONDS} s`; });
  } catch (error) {
    recorder = null;
    throw error;
  }
  at("record").textContent = "Stop";
  say("Recording. Stop when it is enough.");
  const { bytes } = recorder;
  await bytes;
  recorder = null, at("record").textContent = "Record", at("clock").textContent = "";
  await take(bytes, "your recording");
}

function files() {
  at("file").onchange = ({ target }) => target.files.length && attempt(() => take(target.files[0].arrayBuffer(), target.files[0].name));
  const over = (event, whether) => { event.preventDefault(), document.body.classList.toggle("over", whether); };
  document.ondragover = (event) => over(event, true);
  document.ondragleave = (event) => over(event, false);
  document.ondrop = (event) => {
    over(event, false);
    const file = event.dataTransfer.files[0];
    attempt(() => {
      if (!file) throw new Refused("What was dropped is no file; expected one sound.");
      return take(file.arrayBuffer(), file.name);
    });
  };
}

attempt(async () => {
  about = await (await fetched("about.json")).json();
  about.clips.forEach((clip, i) => at("clip").append(made("option", `${i + 1}. ${clip.label}`, { value: i })));
  at("take").onclick = () => attempt(async () => {
    const clip = about.clips[at("clip").value];
    await take((await fetched(clip.file)).arrayBuffer(), clip.label, clip);
  });
  at("record").onclick = () => attempt(record);
  files();
  say("Ready. The networks are loaded with the first sound.");
});
