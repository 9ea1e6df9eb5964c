"""The built site as files: links, names of the library, formulas; and how a page is made of an executed notebook."""

import base64
import html.parser
import io
import sys
import urllib.parse
import zlib
from pathlib import Path

import by_path
import numpy as np
import pytest

nbformat, soundfile, image = map(pytest.importorskip, ("nbformat", "soundfile", "PIL.Image"))

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "notebooks/book"


prepare, reference = by_path.load(BOOK / "prepare.py"), by_path.load(BOOK / "reference.py")


class Links(html.parser.HTMLParser):
    """The ids of a page, and what it links to or shows."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get("id"))
        self.targets += [values[key] for key in ("href", "src") if values.get(key)]


def test_every_link_within_the_site_leads_somewhere(site):
    pages = {path: Links(path.read_text("utf-8")) for path in site.rglob("*.html") if "_static" not in path.parts}
    assert len(pages) > 25
    dead = []
    for path, links in pages.items():
        for target in links.targets:
            url = urllib.parse.urlsplit(target)
            if url.scheme:
                continue
            to = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            known = pages.get(to)
            if not to.is_file() or (known and url.fragment and urllib.parse.unquote(url.fragment) not in known.ids):
                dead.append(f"{path.name}: {target}")
    assert not dead


def test_the_reference_has_every_public_name(site):
    lines = (site / "objects.inv").read_bytes().split(b"\n", 4)
    known = zlib.decompress(lines[4]).decode().splitlines()
    listed = {line.split(" py:")[0] for line in known if " py:class " in line or " py:function " in line}
    names = reference.public_names(ROOT / "sepcl_keras")
    assert {"TDCNPlusPlus", "MixIT", "embed", "query_by_example"} <= set(names)
    wanted = {f"{home}.{name}" for name, home in names.items() if name not in ("BadInput", "PROFILES")}
    assert wanted <= listed


def test_formulas_are_there_and_nothing_is_left_of_their_source(site):
    text = (site / "03_train_the_separator.html").read_text("utf-8")
    assert "<math" in text and "$$" not in text and "\\frac" not in text.replace("\\\\frac", "")


def test_tables_that_a_notebook_printed_are_tables(site):
    assert not [path.name for path in site.glob("[0-9]*.html") if "| --- |" in path.read_text("utf-8")]


def wav(samples, rate=16_000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def player(title, samples):
    audio = (
        f'<audio controls="controls" ><source src="data:audio/wav;base64,{wav(samples)}" type="audio/wav" /></audio>'
    )
    return f"<td style='padding:4px'>{title}<br>\n {audio}</td>"


def test_sounds_keep_their_samples_and_so_their_one_gain(tmp_path):
    loud = np.int16(29_490 * np.sin(np.arange(1_000)))
    quiet = loud // 16
    text = prepare.players(
        f"<table><tr>{player('a &lt; b', loud)}{player('soft', quiet)}</tr></table>", tmp_path / "media"
    )
    files = [part.split('"')[0] for part in text.split('src="')[1:]]
    for name, samples in zip(files, (loud, quiet), strict=True):
        found, rate = soundfile.read(tmp_path / name, dtype="int16")
        assert rate == 16_000 and np.array_equal(found, samples)
    assert text.count('preload="none"') == 2 and 'aria-label="a &lt; b"' in text and "<table" not in text


def test_a_sound_among_other_words_stays_where_it_is(tmp_path):
    audio = player("", np.zeros(10, "int16")).split("<br>")[1].removesuffix("</td>")
    text = prepare.players(f"<p>before {audio} after</p>", tmp_path / "media")
    assert text.startswith("<p>before ") and text.endswith(" after</p>") and 'aria-label="sound 1"' in text


def test_a_page_of_a_notebook(tmp_path):
    v4, file = nbformat.v4, io.BytesIO()
    image.new("RGB", (40, 20), "white").save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()

    def drawing(metadata):
        return v4.new_output("display_data", {"image/png": png}, metadata=metadata)

    bar = [v4.new_output("stream", name="stdout", text=text) for text in ("\r10 %", "\r100 %", "\nready\n")]
    cells = [
        v4.new_markdown_cell("# 00 · One\n\n[![Open in Colab](https://x/badge.svg)](https://colab/one.ipynb)"),
        v4.new_code_cell("OUT = '/somewhere'", metadata={"tags": ["injected-parameters"]}),
        v4.new_markdown_cell("## A part"),
        v4.new_code_cell("draw()", outputs=[*bar, drawing({"image/png": {"alt": 'Two "bars"'}}), drawing({})]),
        v4.new_markdown_cell("## Exercises\n\n**1.** Why?"),
        v4.new_code_cell("because", metadata={"tags": ["solution"]}),
        v4.new_markdown_cell("**2.** And how?"),
        v4.new_code_cell("mine = None", metadata={"tags": ["your turn"]}),
        v4.new_markdown_cell("A hint."),
        v4.new_code_cell("so", metadata={"tags": ["solution"]}),
        v4.new_markdown_cell("Said between."),
        v4.new_code_cell("and so on", metadata={"tags": ["solution"]}),
    ]
    path = tmp_path / "00_one.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    page, lacking, figures = prepare.page(path, tmp_path / "media")
    assert (lacking, figures) == (1, 2)
    sources = [cell.source for cell in page.cells]
    assert sources[0].endswith("[Open in Colab](https://colab/one.ipynb)") and "badge" not in sources[0]
    assert not any("/somewhere" in source for source in sources)
    printed, described, plain = page.cells[2].outputs
    assert printed.text == "100 %\nready\n"
    assert 'alt="Two &quot;bars&quot;" width="40" height="20"' in described.data["text/html"]
    assert "Figure in the section “A part”" in plain.data["text/html"]
    joined = "\n".join(sources)
    assert (
        joined.index(":label: exercise-00-1") < joined.index("{solution-start} exercise-00-1") < joined.index("because")
    )
    assert joined.index("A hint.") < joined.index("{solution-start} exercise-00-2") < joined.index("so\n")
    assert joined.count("{solution-start}") == joined.count("{solution-end}") == 2
    assert "hide-cell" in page.cells[5].metadata.tags


def test_arguments_become_a_list():
    text = reference.markdown(
        "What it does.\n\nArgs:\n    rate: in Hz,\n        at most 48,000.\n    **kwargs: the rest.\n\nEnd."
    )
    assert "- `rate`: in Hz,\n  at most 48,000.\n- `**kwargs`: the rest.\n\nEnd." in text


def test_notebooks_that_were_not_executed_are_named(tmp_path, capsys):
    pytest.importorskip("sphinx", reason="sphinx is in .venv-book: `make test-book`")
    sys.path.insert(0, str(BOOK))
    import build

    assert build.main([str(tmp_path), "--out", str(tmp_path / "book")]) == 2
    assert "lacks 00_listen_first.ipynb" in capsys.readouterr().err
    assert not (tmp_path / "book").exists()
