"""Builds the site from the executed notebooks: pages, API reference, Sphinx. Warnings are errors. See `make book`."""

import argparse
import re
import shutil
import sys
from pathlib import Path

import nbformat
import prepare
import reference
from sphinx.cmd.build import main as sphinx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REPOSITORY = "https://github.com/sepcl-keras/sepcl-keras"
CARD = "sepcl_keras/course/shipped/MODEL_CARD.md"
ROLES = re.compile(r' role="doc-biblioentry"| role="list"(?= class="citation-list")')
ICONS = re.compile(r"<script[^>]*fontawesome\.js[^>]*></script>")
REPOSITORY = "https://github.com/sepcl-keras/sepcl-keras"
CARD = "sepcl_keras/course/shipped/MODEL_CARD.md"


def sources(executed, target):
    """Writes all that Sphinx reads into `target`; gives how many figures have no sentence of their own, of how many."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(HERE, target, ignore=shutil.ignore_patterns("*.pyc", "__pycache__", "requirements.txt", "build.py"))
    lacking = figures = 0
    for path in executed:
        notebook, without, of = prepare.page(path, target / "extra/media")
        nbformat.write(notebook, target / path.name)
        lacking, figures = lacking + without, figures + of
    for path in target.glob("*.md"):  # their links lead through the repository
        text = path.read_text("utf-8").replace(f"](../../{CARD})", "](model_card.md)")
        text = text.replace("](../../", f"]({REPOSITORY}/blob/main/").replace("](../", "](")
        path.write_text(text, "utf-8")
    reference.write(ROOT / "sepcl_keras", target / "reference")
    shutil.copy(ROOT / CARD, target / "model_card.md")
    return lacking, figures


def mend(site):
    """Leaves the icons to the font that the styles name, 0.2 MB, instead of a script of 1.6 MB with every icon there
    is; gives the arrows that fold the navigation a name, and takes roles away that are no longer such."""
    for path in site.rglob("*.html"):
        text = ICONS.sub("", path.read_text("utf-8"))
        text = text.replace("<summary><span", '<summary aria-label="its pages"><span')
        path.write_text(ROLES.sub("", text), "utf-8")
    for path in [*site.rglob("*.map"), site / "_static/scripts/fontawesome.js"]:
        path.unlink()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("executed", type=Path, help="folder of the executed notebooks, as `make tutorial` leaves it")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts/book", help="where the site goes, in html/")
    options = parser.parse_args(arguments)
    names = [f"{path.stem}.ipynb" for path in sorted((HERE.parent / "src").glob("[0-9][0-9]_*.py"))]
    missing = [name for name in names if not (options.executed / name).is_file()]
    if missing:
        print(
            f"{options.executed} lacks {', '.join(missing)}; `make tutorial` executes the notebooks.", file=sys.stderr
        )
        return 2
    source, site = options.out / "source", options.out / "html"
    lacking, figures = sources([options.executed / name for name in names], source)
    shutil.rmtree(site, ignore_errors=True)
    failed = sphinx(
        ["-W", "--keep-going", "-q", "-b", "html", "-d", str(options.out / "doctrees"), str(source), str(site)]
    )
    if not failed:
        mend(site)
    if lacking:
        print(f"{lacking} of {figures} figures have no sentence of their own as alternative text: CONTRIBUTING.md.")
    if not failed:
        print(f"The site begins with {site / 'index.html'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
