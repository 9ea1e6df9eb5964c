"""Makes a page of the site of an executed notebook: sounds and figures become files beside it, with words for both.

An executed notebook holds its sounds as base64 in HTML and its figures as base64 PNG, 7 MB in notebook 00. On the page
a sound is a FLAC file of the same samples, loaded when it is played, and a figure a WebP. The alternative text of
a figure is `alt` in the metadata of its output, `display(figure, metadata={"image/png": {"alt": sentence}})`, or of its
cell; one without is called by its section.
"""

import base64
import hashlib
import html
import io
import re

import nbformat
import soundfile
from PIL import Image

FOLDED = {  # tag → what of the cell is folded, and the words for it
    "parameters": ("cell", "the parameters"),
    "solution": ("cell", "a solution"),
    "record": ("cell", "what is recorded"),
    "folded": ("input", "the code"),
    "log": ("output", "the log"),
}
LONG = 25  # lines of printing that are folded
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
AUDIO = re.compile(r'<audio.*?src="data:audio/wav;base64,([^"]*)".*?</audio>', re.DOTALL)
PLAYER = re.compile(r"<td[^>]*>(?P<title>(?:(?!<t[dr]|<br).)*)<br>\s*(?P<audio><audio.*?</audio>)\s*</td>", re.DOTALL)
GLOSSARY = re.compile(r"https://[^)\s]*/glossary\.md")
EXERCISE = re.compile(r"^\*\*(\d+)\.\*\* +(.*)", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ +(.*)", re.MULTILINE)


def saved(folder, kind, data):
    """Writes bytes under a name made of them; gives the name."""
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return name


def sound(encoded, media):
    """A wav in base64 as a FLAC file of the very same 16-bit samples, at the gain of the notebook."""
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)), dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return saved(media, "flac", file.getvalue())


def players(text, media):
    """HTML output with its sounds as files. A table of titled players becomes a list that wraps on a narrow page."""

    def player(encoded, title):
        source = f"{media.name}/{sound(encoded, media)}"
        return f'<audio controls preload="none" aria-label="{html.escape(title)}" src="{source}"></audio>'

    titled = list(PLAYER.finditer(text))
    if titled and len(titled) == len(AUDIO.findall(text)):
        shown = []
        for match in titled:
            title = html.unescape(re.sub("<[^>]*>", " ", match["title"])).strip()
            audio = player(AUDIO.search(match["audio"])[1], title)
            shown.append(f'<div class="player"><span>{html.escape(title)}</span>{audio}</div>')
        return f'<div class="players">{"".join(shown)}</div>'
    number = iter(range(1, 1000))
    return AUDIO.sub(lambda match: player(match[1], f"sound {next(number)}"), text)


def figure(encoded, alt, media):
    """A PNG in base64 as HTML: a link to its file, since it is small on a phone."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    file = io.BytesIO()  # 256 colours of its own look the same and take two thirds of the bytes
    few = image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.convert("RGB").save(file, "WEBP", lossless=True, quality=60)
    source, (width, height) = f"{media.name}/{saved(media, 'webp', file.getvalue())}", image.size
    size = f'width="{width}" height="{height}" loading="lazy"'
    image = f'<img class="dark-light" src="{source}" alt="{html.escape(alt)}" {size}>'
    return f'<a class="drawing" href="{source}">{image}</a>'


def printed(outputs):
    """Outputs with what was printed in a row as one, as a terminal shows it: progress bars are written over."""
    merged = []
    for output in outputs:
        if merged and output.output_type == "stream" == merged[-1].output_type and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in output.text.split("\n"))
    return merged


def described(output, cell, section):
    """The alternative text of a figure, and whether someone wrote it."""
    alt = output.metadata.get("image/png", {}).get("alt") or output.metadata.get("alt") or cell.metadata.get("alt")
    return (alt, True) if alt else (f"Figure in the section “{section}”", False)


def exercise(source, name):
    """Markdown with its numbered exercise as a directive; gives its label too, None where there is no exercise."""
    match = EXERCISE.search(source)
    if not match:
        return source, None
    label, text = f"exercise-{name[:2]}-{match[1]}", match[2].strip()
    told = f"````{{exercise}} {match[1]}\n:label: {label}\n:nonumber:\n\n{text}\n````"
    return source[: match.start()] + told, label


def fold(cell, tag):
    part, words = FOLDED[tag]
    cell.metadata.tags = [*cell.metadata.get("tags", []), f"hide-{part}"]
    cell.metadata.mystnb = {f"code_prompt_{do}": f"{do.title()} {words}" for do in ("show", "hide")}


def page(path, media):
    """The notebook of the page, how many of its figures have no sentence of their own, and how many there are."""
    notebook = nbformat.read(path, as_version=4)
    section, exercises, label, begun, lacking, figures, cells = path.stem, False, None, False, 0, 0, []

    def end_of_solution():
        if begun:
            cells.append(nbformat.v4.new_markdown_cell("```{solution-end}\n```"))

    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            end_of_solution()
            begun = False
            section = (HEADING.findall(cell.source) or [section])[-1]
            cell.source = GLOSSARY.sub("glossary.md", BADGE.sub(r"[Open in Colab](\1)", cell.source))
            exercises = exercises or "## Exercises" in cell.source
            if exercises:
                cell.source, found = exercise(cell.source, path.stem)
                label = found or label  # a hint may stand between an exercise and its solution
            cells.append(cell)
            continue
        if "injected-parameters" in tags or "sepcl_keras.versions()" in cell.source:
            continue  # how a notebook is fetched and started: nothing for a reader of the page
        if label and "solution" in tags:
            cells.append(nbformat.v4.new_markdown_cell(f"```{{solution-start}} {label}\n```"))
            label, begun = None, True
        cell.outputs = printed(cell.outputs)
        lines = sum(output.text.count("\n") for output in cell.outputs if output.output_type == "stream")
        for output in cell.outputs:
            data = output.get("data", {})
            if "<audio" in data.get("text/html", ""):
                data["text/html"] = players(data["text/html"], media)
            if "image/png" in data:
                alt, own = described(output, cell, section)
                figures, lacking = figures + 1, lacking + (not own)
                output.data = {"text/html": figure(data["image/png"], alt, media)}
        if lines > LONG and all(output.output_type == "stream" for output in cell.outputs):
            tags = [*tags, "log"]
        for tag in [tag for tag in FOLDED if tag in tags][:1]:
            fold(cell, tag)
        cells.append(cell)
    end_of_solution()
    notebook.cells = cells
    return notebook, lacking, figures
