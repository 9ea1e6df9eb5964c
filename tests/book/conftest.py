"""The built site, a server of it on this machine, and a browser: tests of pages skip where one of them is missing."""

import os
from pathlib import Path

import pytest
from browsing import chromium, served

SITE = Path(os.environ.get("SEPCL_BOOK", Path(__file__).resolve().parents[2] / "artifacts/book")) / "html"


@pytest.fixture(scope="session")
def site():
    if not (SITE / "index.html").is_file():
        pytest.skip(f"no site in {SITE}: `make book` builds it")
    return SITE


@pytest.fixture(scope="session")
def address(site):
    """Where the site is served, http://127.0.0.1:port/."""
    with served(site) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser
