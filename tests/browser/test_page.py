"""The page "Hear it in the browser", as `make browser` left it, in a real browser: its numbers are those of Keras."""

import functools
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browsing import SCHEMES, WIDTHS, Watched, chromium, served
from conftest import ROOT

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make test-browser`").expect
SITE = Path(os.environ.get("SEPCL_BROWSER", ROOT / "artifacts/browser/html"))
SHOTS = os.environ.get("SEPCL_SHOTS")
RATE = 16_000
MICROPHONE = ("--use-fake-device-for-media-stream",)  # it beeps


@pytest.fixture(scope="module")
def address():
    if not (SITE / "about.json").is_file():
        pytest.skip(f"no page in {SITE}: `make browser` builds it")
    with served(SITE) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium(*MICROPHONE) as browser:
        yield browser


@pytest.fixture
def opened(browser, address):
    return functools.partial(Watched, browser, address)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    from sepcl_keras.course.course import Course

    return Course("tiny", out=tmp_path_factory.mktemp("course"))


def wait(seen, place, text):
    expect(seen.page.locator(place)).to_contain_text(re.compile(text))


def give(seen, path):
    wait(seen, "#status", "^Ready")
    seen.page.set_input_files("#file", path)


def take(seen, clip=0):
    """Takes one of the page's own clips, and waits for what comes of it."""
    wait(seen, "#status", "^Ready")
    seen.page.select_option("#clip", str(clip))
    seen.page.click("#take")
    wait(seen, "#status", "^Done")


def shown(seen):
    """What the page shows, its arrays NumPy's."""
    found = seen.page.evaluate(
        """import("./page.js").then(({shown: s}) => ({
          name: s.name, gain: s.gain, h: [...s.h], sound: [...s.sound],
          channels: Object.fromEntries(Object.entries(s.channels).map(([name, two]) => [name, two.map(x => [...x])])),
          neighbours: s.neighbours.map(({label, cosine}) => ({label, cosine})) }))"""
    )
    arrays = {name: np.array(found[name], "float32") for name in ("h", "sound")}
    return found | arrays | {"channels": {name: np.array(two, "float32") for name, two in found["channels"].items()}}


def noise(seconds, seed=0):
    from sepcl_keras.core.draws import generator

    return 0.1 * generator(seed, "noise").standard_normal(round(seconds * RATE), dtype="float32")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_is_accessible(opened, width, scheme):
    with opened(width, scheme) as seen:
        wait(seen, "#status", "^Ready")
        assert seen.width() == width and not seen.faults()
        take(seen)
        assert seen.width() == width and not seen.faults()
        labels = seen.page.locator("canvas, audio").evaluate_all("all => all.map(each => each.ariaLabel)")
        assert len(labels) == 15 and all(labels)
        assert not seen.wrong
        if SHOTS:
            seen.page.screenshot(path=Path(SHOTS) / f"browser_{width}_{scheme}.png", full_page=True)


def test_a_clip_is_taken_apart_as_by_keras(opened, course):
    from sepcl_keras.encoder.embedding import embed
    from sepcl_keras.separation.separate import separate

    sound, rate = soundfile.read(SITE / "clips/003.flac", dtype="float32")
    about = json.loads((SITE / "about.json").read_text("utf-8"))
    with opened() as seen:
        take(seen, 3)
        found = shown(seen)
        assert not seen.wrong
        assert {"networks/S2.onnx", "runtime/ort-wasm-simd-threaded.wasm"} <= seen.asked  # the worker's are seen, too
    assert rate == RATE
    np.testing.assert_allclose(found["sound"], sound, atol=4e-5)  # Chromium divides positive integers by 32,767
    sound = found["sound"]
    assert list(found["channels"]) == ["N", "S2"]
    for name, channels in found["channels"].items():
        np.testing.assert_allclose(channels.sum(axis=0), sound, atol=1e-3)
        np.testing.assert_allclose(channels, separate(course.snapshots()[0][name], sound[None])[0], atol=1e-4)
    h = embed(sound[None], course.encoder()[0], pool=True, show=False)[0]
    np.testing.assert_allclose(found["h"], h, atol=2e-3 * np.abs(h).max())
    others = [clip for clip in about["clips"] if clip["file"] != "clips/003.flac"]
    matrix = np.array([clip["h"] for clip in others])
    cosines = matrix @ h / np.linalg.norm(matrix, axis=1) / np.linalg.norm(h)
    nearest = np.argsort(-cosines)[:5]
    assert [each["label"] for each in found["neighbours"]] == [others[i]["label"] for i in nearest]
    np.testing.assert_allclose([each["cosine"] for each in found["neighbours"]], cosines[nearest], atol=1e-4)


def test_a_long_sound_is_taken_apart_as_by_separate_file(opened, course, tmp_path):
    from sepcl_keras.encoder.embedding import embed
    from sepcl_keras.separation.separate import separate_file

    sound = np.concatenate([soundfile.read(SITE / f"clips/{i:03d}.flac", dtype="float32")[0] for i in range(12)])
    soundfile.write(tmp_path / "minute.wav", sound, RATE, "FLOAT")
    with opened() as seen:
        give(seen, tmp_path / "minute.wav")
        wait(seen, "#status", "^Done")
        found = shown(seen)
        assert not seen.wrong
    assert np.array_equal(found["sound"], sound)
    for name, channels in found["channels"].items():
        paths = separate_file(tmp_path / "minute.wav", tmp_path / name, course.snapshots()[0][name], show=False)
        expected = np.stack([soundfile.read(path, dtype="float32")[0] for path in paths])
        np.testing.assert_allclose(channels, expected, atol=1e-4)
        np.testing.assert_allclose(channels.sum(axis=0), sound, atol=1e-3)
    h = embed(sound[None], course.encoder()[0], pool=True, show=False)[0]
    np.testing.assert_allclose(found["h"], h, atol=2e-3 * np.abs(h).max())


def test_channels_that_change_places_are_put_back(opened):
    first, second = noise(0.05), noise(0.05, 1)
    with opened() as seen:
        joined = seen.page.evaluate(
            """([a, b, length, common]) => import("./pieces.js").then(({ Joined, begins }) => {
              const joined = new Joined(a.length, common);
              begins(a.length, length, common).forEach((begin, i) => {
                const two = [a, b].map(x => Float32Array.from(x.slice(begin, begin + length)));
                joined.add(i % 2 ? two.reverse() : two, begin);
              });
              return joined.channels.map(x => [...x]); })""",
            [first.tolist(), second.tolist(), 300, 60],
        )
    np.testing.assert_allclose(joined, [first, second], atol=1e-6)


def test_spectrograms_are_log_mel(opened):
    from sepcl_keras.views.log_mel import LogMel

    sound = noise(0.2)
    with opened() as seen:
        script = """x => import("./spectrogram.js").then(s => [...s.logMel(Float32Array.from(x), 16000).values])"""
        values = seen.page.evaluate(script, sound.tolist())
    expected = np.asarray(LogMel()(sound[None]))[0]
    np.testing.assert_allclose(np.reshape(values, expected.shape), expected, atol=1e-4)


def test_players_share_one_gain(opened):
    sound, gain = noise(0.01), 3.0
    with opened() as seen:
        take(seen)
        found = shown(seen)
        script = """([x, gain]) => import("./sound.js").then(async ({ wav }) =>
          [...new Uint8Array(await wav(Float32Array.from(x), 16000, gain).arrayBuffer())])"""
        made = seen.page.evaluate(script, [sound.tolist(), gain])
        seen.page.locator("audio").first.focus()
        seen.page.keyboard.press("Space")
        expect(seen.page.locator("audio").first).not_to_have_js_property("currentTime", 0)
        assert not seen.wrong
    assert 0 < found["gain"] * max(np.abs(x).max() for x in (found["sound"], *found["channels"].values())) <= 0.9 + 1e-6
    heard, rate = soundfile.read(io.BytesIO(bytes(made)), dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(heard, np.clip(gain * sound, -1, 1), atol=1e-4)


def test_another_rate_and_two_channels(opened, tmp_path):
    time = np.arange(44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "tone.flac", np.stack([tone, 0 * tone], axis=1), 44_100)
    with opened() as seen:
        give(seen, tmp_path / "tone.flac")
        wait(seen, "#status", "^Done with tone.flac")
        sound = shown(seen)["sound"]
        assert not seen.wrong
    spectrum = np.abs(np.fft.rfft(sound[:RATE] * np.hanning(len(sound[:RATE]))))
    assert abs(len(sound) - RATE) <= 2 and abs(np.argmax(spectrum) - 440) <= 1
    assert np.abs(sound[1000:-1000]).max() == pytest.approx(0.25, abs=0.01)  # the mean of the two


@pytest.mark.parametrize(
    "name, sound, said",
    [
        ("words.wav", None, "words.wav is no sound that this browser can read"),
        ("long.flac", np.ones(61 * RATE, "float32") / 9, "long.flac lasts 61 seconds; expected at most 60"),
        ("short.wav", np.ones(100, "float32") / 9, "short.wav is shorter than 0.1 seconds"),
        ("silence.wav", np.zeros(RATE, "float32"), "silence.wav is silent"),
    ],
)
def test_what_cannot_be_taken_is_said(opened, tmp_path, name, sound, said):
    if sound is None:
        (tmp_path / name).write_text("no sound at all")
    else:
        soundfile.write(tmp_path / name, sound, RATE)
    with opened() as seen:
        give(seen, tmp_path / name)
        wait(seen, "#error", said)
        assert not seen.wrong and not seen.faults()
        seen.page.click("#take")  # the page goes on
        wait(seen, "#status", "^Done")
        assert seen.page.inner_text("#error") == ""


def test_a_recording_is_taken(opened):
    with opened(permissions=["microphone"]) as seen:
        wait(seen, "#status", "^Ready")
        seen.page.click("#record")
        wait(seen, "#clock", "^[1-9]")
        assert seen.page.inner_text("#record") == "Stop" and not seen.faults()
        seen.page.click("#record")
        wait(seen, "#status", "^Done with your recording")
        found = shown(seen)
        assert seen.page.inner_text("#record") == "Record" and not seen.wrong
    assert len(found["sound"]) >= RATE / 2
    np.testing.assert_allclose(found["channels"]["S2"].sum(axis=0), found["sound"], atol=1e-3)


def test_a_refused_microphone_is_said(opened):
    with opened() as seen:
        wait(seen, "#status", "^Ready")
        seen.page.click("#record")
        wait(seen, "#error", "^The microphone was refused; expected leave to use it")
        assert seen.page.inner_text("#record") == "Record" and not seen.wrong


def test_a_file_is_dropped(opened, tmp_path):
    sound = noise(1)
    soundfile.write(tmp_path / "dropped.wav", sound, RATE, "FLOAT")
    with opened() as seen:
        wait(seen, "#status", "^Ready")
        script = """bytes => { const all = new DataTransfer();
          all.items.add(new File([Uint8Array.from(bytes)], "dropped.wav")); return all; }"""
        given = list((tmp_path / "dropped.wav").read_bytes())
        seen.page.dispatch_event("main", "drop", {"dataTransfer": seen.page.evaluate_handle(script, given)})
        wait(seen, "#status", "^Done with dropped.wav")
        assert np.array_equal(shown(seen)["sound"], sound) and not seen.wrong


def test_a_newer_sound_takes_the_place_of_one_at_work(opened, tmp_path):
    soundfile.write(tmp_path / "minute.wav", noise(60), RATE)
    with opened() as seen:
        give(seen, tmp_path / "minute.wav")
        wait(seen, "#status", "^Taking minute.wav apart")
        seen.page.click("#take")
        wait(seen, "#status", "^Done with forest")
        assert shown(seen)["name"].startswith("forest") and not seen.wrong


def test_the_keyboard_is_enough(opened):
    with opened() as seen:
        wait(seen, "#status", "^Ready")
        reached = []
        for _ in range(4):
            seen.page.keyboard.press("Tab")
            reached.append(seen.page.evaluate("document.activeElement.id"))
        assert reached == ["file", "clip", "take", "record"]
        seen.page.keyboard.press("Shift+Tab")
        seen.page.keyboard.press("Enter")
        wait(seen, "#status", "^Done")
        assert not seen.wrong


def test_a_network_that_is_not_there_is_said_and_asked_for_again(opened):
    with opened() as seen:
        wait(seen, "#status", "^Ready")
        seen.context.route("**/N.onnx", lambda route: route.abort())
        seen.page.click("#take")
        wait(seen, "#error", "^That failed: ")
        assert seen.wrong and seen.page.locator("#progress").is_hidden()
        seen.context.unroute("**/N.onnx")
        seen.page.click("#take")
        wait(seen, "#status", "^Done")
