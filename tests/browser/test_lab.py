"""Notebook 00 as a reader meets it: opened in JupyterLab in a real browser, *Run All Cells* chosen from the menu."""

import os
import re
import shutil
import subprocess
import sys
import threading

import pytest
from browsing import Watched, chromium
from conftest import ROOT

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make test-browser`").expect
pytest.importorskip("jupyterlab")
NAME = "00_listen_first.ipynb"
SHOTS = os.environ.get("SEPCL_SHOTS")


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab over a folder that holds the notebook alone."""
    (tmp_path / "course").mkdir()
    shutil.copy(ROOT / "notebooks" / NAME, tmp_path / "course")
    # Cells out of sight stay in the page, and a new JupyterLab does not ask whether it may look for news.
    settings = {
        "notebook-extension/tracker": '{"windowingMode": "none"}',
        "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    }
    for name, setting in settings.items():
        path = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(setting, encoding="utf-8")
    places = {f"JUPYTER_{place}_DIR": str(tmp_path / place) for place in ("CONFIG", "RUNTIME", "DATA")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings")}
    environment = os.environ | places | {"SEPCL_PROFILE": "smoke", "SEPCL_OUT": str(tmp_path / "out")}
    options = [
        "--no-browser",
        "--ServerApp.port=0",
        "--IdentityProvider.token=",
        f"--notebook-dir={tmp_path / 'course'}",
    ]
    options += ["--allow-root", "--LabApp.extension_manager=readonly"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, encoding="utf-8") as server:
        try:
            told = []
            for line in server.stderr:
                told.append(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    break
            assert told and found, "".join(told)
            threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop it
            yield found[0]
        finally:
            server.terminate()


@pytest.mark.timeout(600)
def test_the_first_notebook_runs_to_its_last_cell(lab):
    with chromium() as browser, Watched(browser, lab, name=f"lab/tree/{NAME}") as seen:
        page = seen.page
        notebook = page.locator(".jp-NotebookPanel:visible")
        # Without a kernel yet, Run would ask which to take.
        expect(notebook.locator(".jp-Toolbar-kernelName")).to_contain_text("Python 3")
        expect(notebook.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle")
        page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        last = notebook.locator(".jp-CodeCell").last
        last.locator(".jp-Placeholder").first.click()  # the code of a solution is folded, and so is what it prints
        expect(last.locator(".jp-InputArea-prompt").first).to_have_text(re.compile(r"\[\d+\]"))
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/lab.png")
        expect(last.locator(".jp-OutputArea-output")).to_contain_text(re.compile(r"true sources\s+[01]\.\d\d right"))
        assert not notebook.locator('[data-mime-type="application/vnd.jupyter.error"]').count()
