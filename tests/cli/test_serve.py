"""The page in a real browser, fed by the real command."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgeser.cli.main import main
from edgeser.runtime.audio import SAMPLE_RATE, load_audio
from edgeser.runtime.running_mean import RunningMean

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")

UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
UPGRADE += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"


@pytest.fixture
def talk(clips: list[Path], tmp_path: Path) -> Path:
    """Two sentences, a second of silence after each."""
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    wav = tmp_path / "talk.wav"
    soundfile.write(wav, np.concatenate([load_audio(clips[2]), quiet, load_audio(clips[3]), quiet]), SAMPLE_RATE)
    return wav


@contextlib.contextmanager
def serving(*options: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`edgeser serve`, and the address it printed."""
    command = [sys.executable, "-m", "edgeser.cli.main", "serve", "--port", "0", "--engine", "onnxruntime"]
    command += map(str, options)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, (line, process.stderr and process.stderr.read())
        yield found.group(), process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def served(talk: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with serving("--wav", talk, "--asr", "pocketsphinx") as (url, process):
        yield url, process


@pytest.fixture
def browser() -> Iterator[Any]:
    if not (BROWSER and DRIVER):
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=900,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_page_shows_what_was_said(
    served: tuple[str, subprocess.Popen[str]], browser: Any, pytestconfig: pytest.Config
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    url, process = served
    browser.get(url)
    WebDriverWait(browser, 40).until(lambda page: page.find_element(By.ID, "state").text == "ended")
    lines = [line.text for line in browser.find_elements(By.CSS_SELECTOR, "#transcript li")]
    assert len(lines) == 2
    assert "angry" in lines[0]
    assert "door" in lines[0]
    assert "sad" in lines[1]
    blocks = browser.find_elements(By.CSS_SELECTOR, "#timeline div")
    assert [block.get_attribute("title").split()[1] for block in blocks] == ["sad", "angry"]
    assert blocks[0].location["x"] < blocks[1].location["x"]
    assert all(block.size["height"] > 10 for block in blocks)
    assert browser.find_elements(By.CSS_SELECTOR, "#transcript mark")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#bars .bar")) == 4

    browser.refresh()  # nothing is lost
    WebDriverWait(browser, 10).until(lambda page: len(page.find_elements(By.CSS_SELECTOR, "#transcript li")) == 2)

    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    wrong = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    assert not wrong


def test_markup_in_words_stays_text(browser: Any) -> None:
    """What was said, or a bundle's name, cannot become a script."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    from edgeser.runtime.streams import Activity
    from edgeser.web import WebView

    evil = "<img src=x onerror=\"document.title='owned'\">"
    view = WebView((evil, "sad"), evil, lambda: Activity(-20.0, 0.0, False), port=0)
    try:
        browser.get(view.url)
        WebDriverWait(browser, 10).until(lambda page: page.find_element(By.ID, "title").text == evil)
        assert browser.title == "EdgeSER"
        assert not browser.find_elements(By.TAG_NAME, "img")
    finally:
        view.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--wav", "nothing.wav"], "no such file"), (["--port", "70000", "--wav", "CLIP"], "choose another --port")],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(clip) if argument == "CLIP" else argument for argument in arguments]
    assert main(["serve", *arguments, "--asr", "none", "--engine", "onnxruntime"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_ends_at_once_with_clients_that_never_read(served: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = served
    address = ("127.0.0.1", int(url.rsplit(":", 1)[1].strip("/")))
    clients = [socket.create_connection(address) for _ in range(20)]
    for client in clients[::2]:  # the others say nothing
        client.sendall(f"GET /events HTTP/1.1\r\nHost: {address[0]}\r\n{UPGRADE}\r\n\r\n".encode())
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=6) == 130  # two seconds, and what this machine needs to end a process
    for client in clients:
        client.close()


def test_what_was_heard_is_kept_from_run_to_run(talk: Path, centered: Path, tmp_path: Path) -> None:
    state = tmp_path / "kitchen.state"
    for run in (1, 2):
        with serving("--wav", talk, "--asr", "none", "--bundle", centered, "--state", state) as (_, process):
            assert process.stdout is not None
            assert "the audio has ended" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        assert RunningMean.load(state).count == 2 * run


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"nonsense", [], "is no state of a running mean, or damaged"),
        (None, ["--normalize", "none"], "with --normalize none, expected run: leave one out"),
        (None, ["--state", "missing/a.state"], "its folder does not exist"),
    ],
)
def test_states_that_cannot_be_used(
    content: bytes | None,
    options: list[str],
    message: str,
    talk: Path,
    centered: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = tmp_path / "kitchen.state"
    if content is not None:
        state.write_bytes(content)
    command = ["serve", "--port", "0", "--wav", str(talk), "--asr", "none", "--engine", "onnxruntime"]
    assert main([*command, "--bundle", str(centered), "--state", str(state), *options]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert content is None or state.read_bytes() == content
