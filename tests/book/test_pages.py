"""The built site in a real browser: every page at two widths, light and dark, and what a reader does there."""

import functools
import json
import os
import urllib.parse
from pathlib import Path

import pytest
from browsing import Watched

SITE = Path(os.environ.get("SEPCL_BOOK", Path(__file__).resolve().parents[2] / "artifacts/book")) / "html"
MOST = 2_000_000  # bytes of a page with all it loads, without sounds
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)
PAGES = PAGES or ["index.html"]  # to be skipped
NOTEBOOKS = [page for page in PAGES if page[:2].isdigit()] or ["index.html"]
SHOTS = os.environ.get("SEPCL_SHOTS")


class Page(Watched):
    """A page of the site, and the `bytes` of each path that it loaded."""

    def __init__(self, browser, address, name, width=1280, scheme="light"):
        self.bytes = {}
        super().__init__(browser, address, width, scheme, name)

    def _answered(self, answer):
        super()._answered(answer)
        self.bytes[urllib.parse.urlsplit(answer.url).path] = int(answer.headers.get("content-length", 0))

    def see_all(self):
        """Has every lazy image loaded."""
        self.page.evaluate(
            "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))"
        )


@pytest.fixture
def opened(browser, address):
    return functools.partial(Page, browser, address)


def shoot(seen, name, scheme):
    """Screenshots of the top and of the first sounds or figures, kept where SEPCL_SHOTS says."""
    if SHOTS:
        width = seen.page.viewport_size["width"]
        path = Path(SHOTS) / f"{name.replace('/', '_').removesuffix('.html')}_{width}_{scheme}"
        seen.page.screenshot(path=f"{path}.png")
        below = seen.page.locator(".players, .exercise, .drawing").first
        if below.count():
            below.scroll_into_view_if_needed()
            seen.page.screenshot(path=f"{path}_below.png")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_whole_fits_and_is_accessible(opened, name, width, scheme):
    with opened(name, width, scheme) as seen:
        seen.see_all()
        pictures = seen.page.evaluate("[...document.images].map(i => [i.alt, i.naturalWidth])")
        assert all(alt.strip() and wide for alt, wide in pictures)
        assert seen.page.evaluate("[...document.querySelectorAll('audio')].every(a => a.ariaLabel && a.controls)")
        assert not seen.wrong
        assert sum(seen.bytes.values()) <= MOST, json.dumps(seen.bytes, indent=1)
        for scheme in ("light", "dark"):
            seen.page.emulate_media(color_scheme=scheme)
            seen.page.wait_for_function(f"['{scheme}', undefined].includes(document.documentElement.dataset.theme)")
            # Colours fade from one scheme to the other.
            seen.page.evaluate("Promise.allSettled(document.getAnimations().map(each => each.finished))")
            wide = seen.page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
            assert max(wide) <= width, "the page scrolls sideways"
            assert not seen.faults(), scheme
            shoot(seen, name, scheme)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_sounds_play_and_load_only_then(opened, name):
    with opened(name) as seen:
        sounds = seen.page.locator("audio")
        assert not any(path.endswith(".flac") for path in seen.bytes), "loaded before anyone asked"
        if not sounds.count():
            return
        sounds.first.scroll_into_view_if_needed()
        sounds.first.focus()
        seen.page.keyboard.press("Space")  # by the keyboard, as by the mouse
        seen.page.wait_for_function("document.querySelector('audio').currentTime > 0.1")
        assert seen.page.evaluate("document.querySelector('audio').duration") > 0
        assert not seen.wrong


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_links_to_colab(opened, name):
    with opened(name) as seen:
        links = seen.page.locator("a[href*='colab.research.google.com']").evaluate_all("all => all.map(a => a.href)")
        path = f"/blob/main/notebooks/{Path(name).stem}.ipynb"
        assert links and all(link.endswith(path) for link in links)


def test_the_search_finds(opened):
    with opened("search.html?q=MixIT") as seen:
        seen.page.wait_for_selector("#search-results li a")
        found = seen.page.locator("#search-results li a").all_inner_texts()
        assert any("Train the separator" in title for title in found)
        assert not seen.wrong


def test_the_keyboard_goes_through_in_the_order_of_the_page(opened):
    with opened(NOTEBOOKS[0]) as seen:
        assert not seen.page.locator("[tabindex]").evaluate_all("all => all.filter(e => e.tabIndex > 0).length")
        seen.page.keyboard.press("Tab")
        assert "Skip to main content" in seen.page.evaluate("document.activeElement.textContent")
        seen.page.keyboard.press("Enter")
        script = "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
        places, kinds = [], set()
        for _ in range(25):
            seen.page.keyboard.press("Tab")
            kind, place = seen.page.evaluate(f"[document.activeElement.tagName, {script}]")
            places.append(place)
            kinds.add(kind)
        assert places == sorted(places) and "AUDIO" in kinds


def test_the_dark_mode_is_chosen_from_its_menu(opened):
    with opened("index.html") as seen:
        before = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen.page.locator("button.theme-switch-button:visible").first.click()
        seen.page.locator("button.theme-change-button[data-mode=dark]:visible").first.click()
        assert seen.page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != before
