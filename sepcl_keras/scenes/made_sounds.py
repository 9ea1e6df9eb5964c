"""Made sound events: each class is a small physical model whose every number is drawn from the event's seed, widely and
overlapping between classes, so that not the average spectrum gives a class away but its course in time."""

import zlib

import numpy as np
import scipy.signal

from sepcl_keras.core.checks import BadInput

CLASSES = (
    *("church_bell", "hammer", "door_knock", "clock_tick", "footsteps", "crackling_fire", "rain", "frying"),
    *("running_water", "sea_waves", "wind", "helicopter", "engine", "dog_bark", "baby_cry", "siren", "bird_song"),
    "cricket",
)
IDENTITY = "09eef4257aa9"  # of these sounds: change a sound and this, or networks trained on the old are kept
SECONDS = (2.0, 5.0)  # long enough that the events of a scene overlap: else there is little to separate


def make_event(name, seed, sample_rate=16_000):
    """One event of class `name`: float32 (samples,), 2–5 s, peak 0.9, a pure function of its arguments.

    `seed` is a non-negative integer or a sequence of them. A higher `sample_rate` (Hz) keeps the length and all drawn
    parameters; a lower one, which has no room for the highest classes (7.6 kHz), or an unknown class is `BadInput`.
    """
    if name not in CLASSES:
        raise BadInput(f"Sound class {name!r}: expected one of {', '.join(CLASSES)}.")
    if sample_rate < 16_000:
        raise BadInput(f"sample_rate={sample_rate}: expected at least 16000 Hz for made sounds.")
    event = _Event(name, seed, sample_rate)
    return event.record(getattr(event, name)())


class _Event:
    """One event in the making: its random numbers, building blocks, and one method for each class of sounds. Signals
    are (samples,) at the event's sample rate; frequencies are in Hz, onsets and decays in seconds."""

    def __init__(self, name, seed, rate):
        seed = [int(part) for part in np.atleast_1d(seed)]
        # Without the length NumPy would give (1,) and (1, 0) the same stream.
        streams = np.random.SeedSequence([zlib.crc32(name.encode()), len(seed), *seed]).spawn(2)
        # Noise has a stream of its own: a higher rate takes more of it, which the parameters must not notice.
        self.rng, self.grain = (np.random.default_rng(stream) for stream in streams)
        self.uniform, self.integers = self.rng.uniform, self.rng.integers
        self.rate, self.seconds = rate, self.log(*SECONDS)
        self.samples = round(self.seconds * rate)
        self.time = np.arange(self.samples) / rate

    def log(self, low, high, size=None):
        """Uniform over octaves."""
        return np.exp(self.uniform(np.log(low), np.log(high), size))

    def noise(self, low, high):
        """Noise between `low` and `high`, falling by 12 dB an octave outside."""
        size = scipy.fft.next_fast_len(self.samples, real=True)
        frequency = np.maximum(scipy.fft.rfftfreq(size, 1 / self.rate), 1.0)
        gain = 1 / (1 + (low / frequency) ** 2) / (1 + (frequency / high) ** 2)
        return scipy.fft.irfft(gain * (self.grain.standard_normal((len(gain), 2)) @ [1, 1j]), size)[: self.samples]

    def wander(self, per_second):
        """A contour of zero mean and unit spread that turns about `per_second` times a second."""
        knots = self.rng.standard_normal(int(self.seconds * per_second) + 3)
        return np.interp(self.time * per_second + self.rng.random(), np.arange(len(knots)), knots)

    def beats(self, per_second, jitter=0.0, most=1000):
        """Onsets of 1 to `most` repetitions, the first one early; `jitter` is a part of the period."""
        first = self.uniform(0, min(0.15, 0.5 / per_second))
        number = np.arange(min(most, int(max(self.seconds - 0.1 - first, 0) * per_second) + 1))
        return first + (number + jitter * self.rng.random(len(number)) * (number > 0)) / per_second

    def poisson(self, per_second, intensity=1.0):
        """Onsets of a Poisson process whose rate follows `intensity`, a number or (samples,)."""
        total = np.cumsum(np.broadcast_to(intensity, self.samples))
        draws = self.rng.random(1 + self.rng.poisson(per_second * self.seconds))
        return np.interp(draws, total / total[-1], self.time)

    def cycles(self, onsets, lengths):
        """For each sample the place in its repetition (0 at the onset, 1 at the end, more after) and its number."""
        number = np.searchsorted(onsets, self.time, side="right") - 1
        place = (self.time - onsets[number]) / np.broadcast_to(lengths, onsets.shape)[number]
        return np.where(number < 0, 2.0, place), np.maximum(number, 0)

    def swell(self, place, attack, release):
        """An envelope over `place` from 0 to 1: rises during `attack`, falls during `release`, zero outside."""
        return np.clip(place / attack, 0, 1) * np.clip((1 - place) / release, 0, 1)

    def scatter(self, onsets, bank, softest=0.5):
        """Adds up sounds drawn from `bank` (sounds, length), one an onset, with a force from `softest` to 1."""
        grains = bank[self.integers(0, len(bank), len(onsets))] * self.log(softest, 1, (len(onsets), 1))
        index = (onsets * self.rate).astype(int)[:, None] + np.arange(bank.shape[1])
        return np.bincount(index.ravel(), grains.ravel(), minlength=self.samples)[: self.samples]

    def modes(self, frequencies, decays, softest, seconds):
        """A struck body (1, length): damped sines added up."""
        # exp(p n) for n = i · 256 + j is a product of two small tables: a matrix product instead of long sines.
        poles = (2j * np.pi * frequencies - 1 / decays) / self.rate
        coarse = np.exp(256 * poles * np.arange(int(seconds * self.rate) // 256 + 1)[:, None])
        fine = np.exp(poles[:, None] * np.arange(256)) * self.log(softest, 1, (len(poles), 1))
        return (coarse @ fine).imag.reshape(1, -1)

    def pings(self, frequencies, decays, rise=0.0):
        """Single damped sines (sounds, length), whose pitch rises by the factor 1 + `rise` in one decay time."""
        time = np.arange(int(4 * np.max(decays) * self.rate) + 2) / self.rate / decays[:, None]
        return np.sin(2 * np.pi * (frequencies * decays)[:, None] * time * (1 + rise * time / 2)) * np.exp(-time)

    def bursts(self, decay):
        """Decaying noise bursts (32, length): contact and friction."""
        time = np.arange(int(4 * decay * self.rate) + 2) / self.rate
        return self.grain.standard_normal((32, len(time))) * np.exp(-time / decay)

    def tone(self, pitch):
        return np.sin(2 * np.pi / self.rate * np.cumsum(np.minimum(np.broadcast_to(pitch, self.samples), 7600)))

    def pulses(self, pitch, edge):
        """A pulse train of `pitch` (samples,); its harmonics fall by a factor e every `edge` Hz."""
        b = np.exp(-pitch / edge)
        return (1 - b * b) / (1 + b * b - 2 * b * np.cos(2 * np.pi / self.rate * np.cumsum(pitch))) - 1

    def resonate(self, signal, frequencies, widths):
        """Formants: resonances of unit gain side by side."""
        poles = np.exp((2j * np.pi * frequencies - np.pi * widths) / self.rate)
        filters = [((1 - abs(p) ** 2) / 2 * np.array([1, 0, -1]), [1, -2 * p.real, abs(p) ** 2]) for p in poles]
        return sum(scipy.signal.lfilter(b, a, signal) for b, a in filters)

    def voice(self, pitch, edge, formants):
        """Glottal pulses and breath through a vocal tract, each formant up to a factor 1.2 off."""
        formants = np.array(formants) * self.log(1 / 1.2, 1.2, len(formants))
        source = self.mix(self.pulses(pitch * (1 + 0.01 * self.wander(40)), edge), self.noise(300, 6000), -26, -2)
        return self.resonate(source, formants, 60 + formants / 8)

    def mix(self, signal, other, low, high):
        """Adds `other` at a level between `low` and `high` dB."""
        return signal / signal.std() + 10 ** (self.uniform(low, high) / 20) * other / other.std()

    def record(self, signal):
        """What a microphone hears: highs lost to distance, the tail of a room, a spectrum tilted above 50 Hz."""
        distance, tilt = self.rng.random(), self.uniform(-0.7, 0.7)
        room = (self.rng.random() < 0.7) * self.log(0.1, 1.5)  # seconds to fall by 60 dB; 0 is outdoors
        size = scipy.fft.next_fast_len(self.samples + int(room * self.rate), real=True)
        frequency = np.maximum(scipy.fft.rfftfreq(size, 1 / self.rate), 1.0)
        cutoff = self.log(0.7, 1.4) * 12_000 * 10**-distance
        gain = (frequency / 1000) ** tilt / np.sqrt(1 + (frequency / cutoff) ** 2) / (1 + (2500 / frequency**2) ** 2)
        tail = self.grain.standard_normal(int(room * self.rate) + 1)
        tail *= 10 ** np.linspace(0, -3, len(tail))
        wet = (room > 0) * 10 ** ((self.uniform(-18, -6) + 12 * distance) / 20) / np.linalg.norm(tail)
        spectrum = scipy.fft.rfft(signal, size) * gain * (1 + wet * scipy.fft.rfft(tail, size))
        heard = scipy.fft.irfft(spectrum, size)[: self.samples] * self.swell(self.time / self.seconds, 0.002, 0.04)
        return (0.9 / np.abs(heard).max() * heard).astype(np.float32)

    def church_bell(self):
        """Inharmonic partials with a minor third, each split in two that beat; low ones ring longest."""
        ratios = np.array([0.5, 1, 1.183, 1.506, 2, 2.514, 2.662, 3.011, 4.166, 5.43]) * self.log(0.98, 1.02, 10)
        decays = self.log(0.5, 3.0) / np.append(ratios, ratios) ** self.uniform(0.5, 1)
        partials = self.log(130, 1000) * np.append(ratios, ratios * self.log(1.001, 1.01, 10))
        onsets = self.beats(self.log(0.4, 2.5), 0.1, self.integers(1, 6))
        return self.scatter(onsets, self.modes(partials, decays, 0.1, self.seconds))

    def hammer(self):
        """Metal on metal or on a nail: a ringing of high inharmonic modes on a short thud."""
        onsets = self.beats(self.log(1.3, 5), 0.2, self.integers(1, 12))
        decays = self.log(0.04, 0.35) * self.log(0.5, 1.5, 8)
        ring = self.scatter(onsets, self.modes(self.log(700, 6500, 8), decays, 0.1, 1.2))
        thud = self.scatter(onsets, self.pings(self.log(90, 400) * self.log(0.9, 1.1, 8), np.full(8, 0.03)))
        return self.mix(self.mix(ring, thud, -20, 5), self.scatter(onsets, self.bursts(0.003)), -20, 0)

    def door_knock(self):
        """Knuckles on a wooden panel: two to six quick blows of a few dull, short modes."""
        onsets = self.beats(self.log(2.8, 8), 0.15, self.integers(2, 7))
        panel = self.modes(self.log(90, 450) * self.log(1, 6, 7), self.log(0.008, 0.06, 7), 0.2, 0.3)
        return self.mix(self.scatter(onsets, panel), self.scatter(onsets, self.bursts(self.log(0.001, 0.006))), -25, -5)

    def clock_tick(self):
        """An escapement: two or three tiny impacts a tick, tick and tock not alike, never out of time."""
        per_second = self.log(0.75, 3.5)
        times = (self.beats(per_second)[:, None] + self.uniform(0, 0.025, self.integers(2, 4))).ravel()
        body, decays = np.append(self.log(1200, 6500, 4), self.log(250, 1000, 2)), self.log(0.001, 0.03, 6)
        tick, tock = (self.modes(body * self.log(0.9, 1.1, 6), decays, 0.2, 0.15) for _ in range(2))
        ticks, tocks = self.scatter(times, tick, 0.8), self.scatter(times + 0.5 / per_second, tock, 0.8)
        return self.mix(ticks + self.log(0.4, 1) * tocks, self.noise(200, 4000), -50, -15)

    def footsteps(self):
        """Heel, then toe: soft noise bursts on a floor, or the crunch of gravel."""
        heels = self.beats(self.log(1.4, 3.5), 0.1)
        toes, bank = heels + self.uniform(0.06, 0.15), self.bursts(self.log(0.006, 0.04))
        thuds = self.mix(self.scatter(heels, bank), self.scatter(toes, bank), -14, 0)
        thuds = self.resonate(thuds, self.log(100, 2500) * np.array([1, 1.7, 2.3]), self.log(100, 900, 3))
        stones = np.repeat(np.append(heels, toes), 25) + self.rng.exponential(0.04, 50 * len(heels))
        return self.mix(thuds, self.scatter(stones, self.bursts(self.log(0.0005, 0.003)), 0.05), -30, 10)

    def crackling_fire(self):
        """Poisson clicks of bursting wood in clusters, a few of them loud, over the low flutter of the flames."""
        onsets = self.poisson(self.log(10, 70), np.exp(1.3 * self.wander(self.log(2, 6))))
        bank = self.pings(self.log(500, 7000, 64), self.log(0.0003, 0.004, 64))
        clicks = self.scatter(onsets, bank * np.minimum(1 + self.rng.pareto(1.3, (64, 1)), 40))
        flames = self.noise(40, self.log(150, 900)) * (1 + 0.4 * self.wander(12))
        return self.mix(clicks, self.mix(flames, self.noise(1000, 6000), -30, -10), -18, 3)

    def rain(self):
        """Poisson drops, each a short ping of its own, over the steady hiss of the far ones."""
        bank = self.pings(np.minimum(self.log(900, 4500) * self.log(0.4, 2.5, 48), 7500), self.log(0.0004, 0.003, 48))
        drops = self.scatter(self.poisson(self.log(60, 700)), bank, 0.05)
        return self.mix(drops, self.noise(self.log(200, 2000), self.log(3000, 8000)), -15, 5)

    def frying(self):
        """Steam out of hot fat: very many tiny bursts whose density seethes, and the fizz between them."""
        seethe = np.exp(self.uniform(0.6, 1.2) * self.wander(self.log(4, 12)))
        pops = self.scatter(self.poisson(self.log(100, 900), seethe), self.bursts(self.log(0.0004, 0.0025)), 0.03)
        pops = self.resonate(pops, self.log(900, 6500, 3), self.log(800, 3000, 3))
        return self.mix(pops, seethe * self.noise(self.log(800, 3500), 7500), -12, 4)

    def running_water(self):
        """Bubbles that ring higher as they rise to the surface, in the rush of the stream."""
        pitches = np.minimum(self.log(350, 1600) * self.log(0.5, 3, 64), 5000)
        onsets = self.poisson(self.log(25, 200), np.exp(0.5 * self.wander(5)))
        bubbles = self.scatter(onsets, self.pings(pitches, self.log(0.004, 0.02, 64), 0.15), 0.1)
        return self.mix(bubbles, self.noise(self.log(200, 1500), self.log(2000, 8000)), -20, 0)

    def sea_waves(self):
        """Noise in slow swells: first the rumble of the breaker, after it the brighter hiss of the foam."""
        turns = np.cumsum(self.log(0.25, 0.8) * 2 ** (0.3 * self.wander(1))) / self.rate + self.rng.random()
        crash, foam = (0.2 + (1 + np.cos(2 * np.pi * (turns - lag))) ** 2 for lag in (0, self.uniform(0.1, 0.3)))
        foam = foam * self.noise(self.log(800, 2500), self.log(3000, 8000))
        return self.mix(crash * self.noise(60, self.log(300, 1500)), foam, -12, 8)

    def wind(self):
        """Noise through a resonance that wanders with the gusts: louder is higher."""
        gust, width = self.wander(self.log(0.8, 3)), self.log(60, 500)
        pitch = np.clip(self.log(180, 1800) * 2 ** (self.uniform(0.2, 0.6) * gust), 60, 7000)
        # Slow complex noise on a carrier is a noise band that can be moved freely.
        howl = (self.wander(width) + 1j * self.wander(width)) * np.exp(2j * np.pi / self.rate * np.cumsum(pitch))
        return self.mix(howl.real, self.noise(50, self.log(200, 5000)), -14, 4) * 2 ** (self.uniform(0.5, 1.5) * gust)

    def helicopter(self):
        """Rotor pulses, steady and slow enough to count, that also chop the air's noise; a turbine whines above."""
        pitch = self.log(8, 26) * (1 + self.uniform(-0.1, 0.1) * self.time / self.seconds)
        thump = self.resonate(self.pulses(pitch, self.log(80, 600)), self.log(60, 700, 3), self.log(60, 300, 3))
        chop = (1 + np.cos(2 * np.pi / self.rate * np.cumsum(pitch))) ** self.log(1.5, 8)
        rotor = self.mix(thump, chop * self.noise(self.log(100, 1000), self.log(1000, 7000)), -14, 6)
        return self.mix(rotor, self.tone(self.log(800, 4000)), -40, -12)

    def engine(self):
        """Firing cylinders, not all alike, through an exhaust pipe; the driver revs up and lets go."""
        revs, edge = self.uniform(0.1, 0.5) * self.wander(self.log(0.5, 2)), self.log(200, 1500)
        firing = np.clip(self.log(28, 150) * 2**revs, 15, 300)
        bangs = self.pulses(firing, edge) + self.uniform(0.2, 0.8) * self.pulses(firing / self.integers(2, 5), edge)
        bangs = self.mix(bangs, np.maximum(bangs, 0) * self.noise(200, 5000), -25, -3)
        return self.resonate(bangs, self.log(70, 2500, 4), self.log(60, 400, 4)) * 2**revs

    def dog_bark(self):
        """Short bursts of glottal pulses, pitch up and down again, rough with breath, from a throat of any size."""
        per_second = self.log(1.3, 5)
        place, number = self.cycles(self.beats(per_second, 0.3), min(self.log(0.09, 0.35), 0.65 / per_second))
        arch = np.sin(np.pi * np.clip(place, 0, 1) ** self.uniform(0.5, 0.9))
        pitch = self.log(120, 550) * self.log(0.9, 1.1, 21)[number % 21] * (1 + 0.8 * arch)
        bark = self.voice(pitch, self.log(600, 2000), self.log(0.75, 1.6) * np.array([650, 1400, 2700]))
        return bark * self.swell(place, self.uniform(0.05, 0.2), self.uniform(0.5, 0.9))

    def baby_cry(self):
        """Long wails, one a breath: a high glottal pitch that arches and trembles, with an open mouth's formants."""
        per_second = self.log(0.6, 1.8)
        place, number = self.cycles(self.beats(per_second, 0.1), self.uniform(0.6, 0.9) / per_second)
        arch = np.sin(np.pi * np.clip(place, 0, 1) ** self.uniform(0.4, 1)) * self.uniform(0.2, 0.7)
        tremble = self.uniform(0, 0.05) * self.tone(self.uniform(5, 9)) + 0.03 * self.wander(8)
        pitch = self.log(280, 620) * self.log(0.9, 1.15, 9)[number] * 2 ** (arch + tremble)
        cry = self.voice(pitch, self.log(800, 2500), [1100, 2700, 4200])
        return cry * self.swell(place, self.uniform(0.05, 0.3), self.uniform(0.1, 0.4))

    def siren(self):
        """A bright horn whose pitch sweeps: a slow wail, a fast yelp, or two tones in turn."""
        kind = self.integers(3)
        swing = np.sin(2 * np.pi * (self.time * self.log(*((0.25, 0.8), (2, 5), (0.7, 2))[kind]) + self.rng.random()))
        swing = self.uniform(0.15, 0.3) * np.tanh(20 * swing) if kind == 2 else self.uniform(0.3, 0.65) * swing
        horn = self.pulses(self.log(450, 1500) * 2**swing, self.log(350, 2500))
        return self.mix(horn, self.resonate(horn, self.log(700, 3500, 2), self.log(200, 800, 2)), -10, 10)

    def bird_song(self):
        """Swept tones: a motif of a few syllables, each with its own glide, sung again and again."""
        per_second = self.log(2, 10)
        place, number = self.cycles(self.beats(per_second, 0.05), self.uniform(0.35, 0.9) / per_second)
        motif, p = number % self.integers(1, 5), np.clip(place, 0, 1)
        start, bend, end = (self.log(0.65, 1.55, 4)[motif] for _ in range(3))
        glide = start * (1 - p) ** 2 + 2 * bend * p * (1 - p) + end * p**2
        pitch = self.log(1300, 4500) * glide * (1 + self.integers(2) * 0.06 * self.tone(self.uniform(20, 60)))
        song = self.tone(pitch) + self.uniform(0, 0.3) * self.tone(2 * pitch)
        return song * self.swell(place, self.uniform(0.05, 0.3), self.uniform(0.1, 0.6))

    def cricket(self):
        """A pure high tone in chirps, each a quick run of wing strokes; some species trill without a pause."""
        strokes = 1000 if self.rng.random() < 0.25 else self.integers(3, 9)
        length = strokes / self.log(22, 65)
        place, _ = self.cycles(self.beats(self.uniform(0.3, 0.75) / length, 0.1), length)
        stroke = place * strokes % 1
        song = self.tone(self.log(1900, 6000) * (1 - self.uniform(0, 0.06) * stroke)) * (place < 1)
        return self.mix(song, self.noise(1500, 7000), -40, -18) * self.swell(stroke / self.uniform(0.5, 0.9), 0.4, 0.5)
