"""What a notebook puts on the screen: setup, players, figures. The only module that needs IPython and matplotlib."""

import base64
import html
import io
import logging

import keras
import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.display import HTML, Audio, Markdown, display

from sepcl_keras.core.checks import BadInput
from sepcl_keras.course.course import Course
from sepcl_keras.course.outcomes import markdown
from sepcl_keras.views.log_mel import LogMel

COLOURS = ("#1b6ca8", "#d1603d", "#3a8f5c", "#8a5aa8", "#b08d2e", "#4f5d75")
STYLE = {
    "axes.prop_cycle": plt.cycler(color=COLOURS), "axes.spines.top": False, "axes.spines.right": False,
    "figure.constrained_layout.use": True, "figure.dpi": 100, "font.size": 10, "legend.frameon": False,
}  # fmt: skip


def setup(profile, data, seed, out=None):
    """Starts a notebook: checks the parameters, seeds everything, and gives the `Course` to work with. From here on bad
    input shows as one sentence instead of a traceback."""
    # Retracing is worth a warning in a training loop, not in a lesson that calls many small networks once.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((BadInput,), _one_sentence)
    plt.rcParams.update(STYLE)
    course = Course(profile, data, seed, out)
    p, bank = course.profile, course.bank
    if course.listing:
        table([{"what": what, "which": which} for what, which in course.about_data()], {"what": bank.name, "which": ""})
        print(*course.about_scenes(), sep="\n")
    given = f"profile {p.name} · data {bank.name}, {len(course.classes)} classes · scenes of {p.clip_seconds:g} s"
    backend = f"Keras {keras.__version__} on {keras.backend.backend()}"
    print(f"{given} at {p.sample_rate / 1000:g} kHz · seed {seed} · {backend}")
    return course


def _one_sentence(shell, kind, value, traceback, tb_offset=None):
    # The private call is the one that sends an error to the front end (papermill needs it) with a text of our own.
    shell._showtraceback(kind, value, [f"\x1b[31m{kind.__name__}: {value}\x1b[0m"])
    return [str(value)]


def show(alt, said=True):
    """Shows the figure that was drawn last, and, if it is to be `said`, under it the sentence `alt`: what to see in it,
    which is the picture's text for those who cannot.

    The sentence is in the picture's metadata, where the site takes it from, and in HTML, which JupyterLab, Colab and
    nbconvert prefer: what they make of a bare picture has no text.
    """
    alt = " ".join(alt.split())
    figure, buffer = plt.gcf(), io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    png, text = base64.b64encode(buffer.getvalue()).decode(), html.escape(alt, quote=True)
    image = f'<img style="max-width:100%" alt="{text}" src="data:image/png;base64,{png}">'
    display({"text/html": image, "image/png": png, "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})
    if said:
        display(Markdown(f"*{alt}*"))


def overlap(scene):
    """How far a scene's two events share the cells of its spectrogram, 0 to 1: small where they can be told apart."""
    first, second = np.exp(np.asarray(LogMel()(np.float32(scene.sources))), dtype="float64")  # (frames, mels) each
    return np.minimum(first, second).sum() / min(first.sum(), second.sum())


def folded(title, text):
    """An answer that shows when its title is clicked."""
    display(HTML(f"<details><summary>{html.escape(title)}</summary>{text}</details>"))


def players(waveforms, sample_rate=16_000):
    """Players, three a row, for a dict from title to waveform (samples,), at one gain, so that quiet stays quiet.

    It brings what all but a thousandth of the samples of the loudest stay below to 0.9; a lone click above that is
    rounded off, or it would make all else faint.
    """
    peak = max(np.quantile(np.abs(waveform), 0.999) for waveform in waveforms.values())
    gain = 0.9 / peak if peak > 0 else 1.0
    cells = []
    for title, waveform in waveforms.items():
        loud, above = waveform * gain, np.maximum(np.abs(waveform * gain) - 0.9, 0)
        heard = loud - np.sign(loud) * (above - 0.1 * np.tanh(above / 0.1))
        player = Audio(heard, rate=sample_rate, normalize=False)._repr_html_()
        label = html.escape(title, quote=True)
        player = player.replace("<audio ", f'<audio style="width:300px" aria-label="{label}" ')  # wide enough to seek
        cells.append(f"<td style='text-align:center;padding:4px 10px'>{html.escape(title)}<br>{player}</td>")
    rows = ["<tr>" + "".join(cells[i : i + 3]) + "</tr>" for i in range(0, len(cells), 3)]
    display(HTML(f"<table role='presentation'>{''.join(rows)}</table>"))


def listen(waveforms, sample_rate=16_000, columns=3, alt=None):
    """Sounds to be seen and heard: log-mel spectrograms on one colour scale, then `players`."""
    layer = LogMel()
    log_mels = {title: np.asarray(layer(np.float32(w)[None]))[0] for title, w in waveforms.items()}
    show_log_mel(log_mels, columns, alt)
    players(waveforms, sample_rate)


def mel_axis(axis):
    """Frequencies in Hz at the vertical axis of a picture of 64 mel bands, band k from k to k + 1."""
    hertz = (250, 500, 1000, 2000, 4000)
    low, high, *marks = 1127 * np.log1p(np.array([125, 7500, *hertz]) / 700)  # in mel; LogMel's bands lie evenly there
    axis.set_yticks((np.array(marks) - low) / (high - low) * 65 - 0.5, hertz)
    axis.set_ylabel("frequency in Hz")


def show_log_mel(spectrograms, columns=4, alt=None):
    """Panels of log-mel spectrograms (frames, mels), a dict from title, on one colour scale; time in seconds."""
    columns = min(columns, len(spectrograms))
    rows = -(-len(spectrograms) // columns)
    low, high = min(np.min(s) for s in spectrograms.values()), max(np.max(s) for s in spectrograms.values())
    look = dict(origin="lower", aspect="auto", vmin=low, vmax=high, cmap="magma", interpolation="nearest")
    figure, axes = plt.subplots(rows, columns, figsize=(3.1 * columns, 2.3 * rows), squeeze=False, sharey=True)
    for axis in axes.flat[len(spectrograms) :]:
        axis.axis("off")
    for axis, (title, spectrogram) in zip(axes.flat, spectrograms.items(), strict=False):
        extent = (0, len(spectrogram) * 0.01, 0, spectrogram.shape[1])
        image = axis.imshow(np.asarray(spectrogram, "float32").T, extent=extent, **look)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("time in s")
    for axis in axes[:, 0]:
        mel_axis(axis)
    figure.colorbar(image, ax=axes, label="log-mel (+0.7: twice)", shrink=0.9)
    show(alt or f"Log-mel spectrograms: {', '.join(spectrograms)}.", bool(alt))


def curves(history, names, title="", alt=None):
    """Training curves over steps; where guessing has a value, it is drawn dashed."""
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 2.8), squeeze=False)
    for axis, name, colour in zip(axes[0], names, COLOURS, strict=False):
        axis.plot(history["step"], history[name], marker=".", color=colour, label=name)
        if f"{name}_chance" in history:
            chance = history[f"{name}_chance"][0]
            axis.axhline(chance, color="0.4", linestyle="--", label=f"chance {chance:.3g}")
        axis.set(xlabel="step", ylabel=name)
        axis.legend()
    figure.suptitle(title)
    show(alt or f"{', '.join(names)} over the steps of training.", bool(alt))


def bars(values, xlabel="mAP", chance=None, groups=None, intervals=None, alt=None):
    """Horizontal bars from a dict of names; `groups` (name → group) gives colours, `intervals` (name → ends) lines."""
    names = list(values)
    kinds = list(dict.fromkeys((groups or {}).values()))
    colour = [COLOURS[kinds.index(groups[name])] if groups else COLOURS[0] for name in names]
    _, axis = plt.subplots(figsize=(7.5, 0.42 * len(names) + 1.0))
    axis.barh(names, [values[name] for name in names], color=colour)
    right = {name: max((intervals or {}).get(name, [values[name]])) for name in names}  # of bar or line
    for index, name in enumerate(names):
        if intervals:
            label = None if index else "95 % interval"
            axis.plot(intervals[name], (index, index), color="0.2", linewidth=1.5, label=label)
        axis.text(right[name], index, f" {values[name]:.3f}", va="center", fontsize=9)
    if chance is not None:
        axis.axvline(chance, color="0.4", linestyle="--", label=f"chance {chance:.3f}")
    for kind in kinds:
        axis.bar([0], [0], color=COLOURS[kinds.index(kind)], label=kind)
    if chance is not None or kinds:
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    axis.invert_yaxis()
    axis.locator_params(axis="x", nbins=6)
    axis.set(xlim=(0, max(right.values()) * 1.15), xlabel=xlabel)
    told = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    show(alt or f"Bars of {xlabel}: {told}.", bool(alt))


def forest(
    series, names, xlabel, line=None, groups=None, slides=None, slides_label="mAP on AudioSet (slides)", alt=None
):  # fmt: skip
    """Means as points with their 95 % intervals as lines, a row for each of `names`.

    `series`: title → name → (mean, low, high), where there is one. `line`: a value to be drawn through all rows.
    `groups`: name → what it belongs to, to be seen by the shade. `slides`: name → number, in a panel at the right.
    """
    widths, size = (2, 1) if slides else (1,), (10, 0.18 * max(2, len(series)) * len(names) + 1.2)
    figure, axes = plt.subplots(1, len(widths), figsize=size, sharey=True, squeeze=False, width_ratios=widths)
    left = axes[0, 0]
    for index, ((title, found), colour) in enumerate(zip(series.items(), COLOURS, strict=False)):
        offset = 0.6 * ((index + 0.5) / len(series) - 0.5)  # one above the other within a row
        shown = [(row + offset, *found[name]) for row, name in enumerate(names) if name in found]
        for row, _, low, high in shown:
            left.plot((low, high), (row, row), color=colour, linewidth=2, alpha=0.6)
        left.scatter([mean for _, mean, _, _ in shown], [row for row, *_ in shown], color=colour, label=title, zorder=3)
    kinds = list(dict.fromkeys((groups or {name: name for name in names}).values()))
    for row, name in enumerate(names):
        shade = kinds.index(groups[name] if groups else name) % 2
        for axis in axes[0]:
            axis.axhspan(row - 0.5, row + 0.5, color="0.94" if shade else "1", linewidth=0, zorder=0)
    if line is not None:
        left.axvline(line, color="0.4", linestyle="--")
    left.set_yticks(range(len(names)), names)
    left.set(xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
    left.locator_params(axis="x", nbins=6)  # as many as have room beside long names
    if slides:
        rows = [row for row, name in enumerate(names) if slides.get(name) is not None]
        axes[0, 1].scatter([slides[names[row]] for row in rows], rows, marker="D", color="0.3")
        axes[0, 1].set(xlabel=slides_label)
        axes[0, 1].locator_params(axis="x", nbins=4)
        if line == 0:
            axes[0, 1].axvline(0, color="0.4", linestyle="--")
    figure.legend(loc="outside upper center", ncols=len(series))
    show(alt or f"{xlabel} with 95 % intervals: {', '.join(names)}.", bool(alt))


def table(rows, columns):
    """A list of dicts as a table; `columns` maps a key to its heading. Numbers with three decimals, None as a dash."""
    display(Markdown(markdown(rows, columns)))


def verdict(verdicts, claim, holds, numbers):
    """One line on whether a claim about sounds or training holds in this run, and by which numbers; gives `holds`.

    Nothing is raised, as with other sounds, another size or seed a claim may be false. `verdicts`, a dict from claim to
    bool, keeps the answer for `course.record`.
    """
    verdicts[claim] = bool(holds)  # a NaN holds nothing
    print(f"{'✓ holds' if verdicts[claim] else '✗ does not hold here'}: {claim} ({numbers})")
    return verdicts[claim]
