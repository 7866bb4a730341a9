"""The Dagster UI as a person meets it: the whole graph, one asset materialised by a click, its metadata plot shown."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import House, fresh_house

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


@contextlib.contextmanager
def ui(house: House) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with (house.folder / "ui.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=house.folder, env=house.environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/server_info", timeout=2).close()
                break
            time.sleep(1)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def until_shown(page, text: str, tries: int = 18) -> None:
    """The page of an asset shows its status at once, and its metadata when it is opened again."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    for _ in range(tries):
        page.wait_for_timeout(10_000)  # a reload at once would take the click back
        page.reload()
        with contextlib.suppress(PlaywrightTimeout):
            page.get_by_text(text).first.wait_for(timeout=10_000)
            return
    raise AssertionError(f"{text} did not appear")


@pytest.mark.night
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's package chromium")
def test_the_graph_shows_every_room_and_a_click_materialises(tmp_path):
    from playwright.sync_api import sync_playwright

    house = fresh_house(tmp_path / "wardline")
    house.extra |= {"WARDLINE_DEMO_PATIENTS": "40", "WARDLINE_HOSPITALS": "north,south"}
    with ui(house) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        page.goto(f"{url}/asset-groups")
        for room in (
            "export",
            "input",
            "harmonised",
            "features",
            "labels",
            "instructions",
            "weights",
            "evaluation",
        ):
            page.get_by_text(room, exact=True).first.wait_for(timeout=60_000)
        page.goto(f"{url}/assets/export/north")
        page.get_by_role("button", name="Materialize").first.click()
        until_shown(page, "lab_results.csv.gz")
        page.get_by_text("Plots", exact=True).first.click()
        page.locator("canvas").first.wait_for(timeout=20_000)
        browser.close()
    assert (house.data / "exports/north/manifest.json").exists()
