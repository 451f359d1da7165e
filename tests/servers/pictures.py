"""The pictures of the docs: a report as Chromium draws it, by `make pictures`."""

from __future__ import annotations

import argparse
import base64
import tempfile
from pathlib import Path

from servers.browser import BROWSER, Page, browser

SEARCH = """(() => {
    const box = document.getElementById('map-search');
    box.value = 'reef';
    box.dispatchEvent(new Event('input'));
    document.querySelector('#map-found button')?.click();
    document.querySelector('[data-zoom="0"]').click() })()"""
PLACE = "(r => [r.x, r.y + scrollY, r.width, r.height])(document.querySelector('{}').getBoundingClientRect())"
# Prefect's page asks its server for the table, and fades it in
TABLE = "new Promise(r => (function look() { setTimeout(document.querySelector('td') ? r : look, 1000) })())"
MAX_BYTES = 200_000


def main() -> None:
    """Writes one PNG for each part of the report that the docs show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--artifact", help="address of a run's artifact on the page of a Prefect server, drawn too")
    given = parser.parse_args()
    if BROWSER is None:
        parser.error("no Chromium on this machine: install one, or name it in SEMALIGN_BROWSER")
    report, folder = given.report.resolve(), given.folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        page.open(report, 1100)
        _keep(page, folder / "report.png", (0, 0, 1100, 1000))
        page.open(report, 1100, dark=True)
        page.run(SEARCH)
        page.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        _keep(page, folder / "report-map.png", page.run(PLACE.format("#map")))
        for part in ("analysis", "interests"):
            if page.run(f"document.getElementById('{part}') !== null"):
                page.open(report, 1100)
                x, y, width, height = page.run(PLACE.format(f"#{part}"))
                _keep(page, folder / f"report-{part}.png", (x, y, width, min(height, 1200)))
        page.open(report, 360)
        _, y, _, _ = page.run(PLACE.format("#result"))
        _keep(page, folder / "report-phone.png", (0, y - 10, 360, 760))
        if given.artifact:
            page.open(given.artifact, 1200)
            page.run(TABLE)
            _keep(page, folder / "prefect-artifact.png", (256, 0, 850, 620))


def _keep(page: Page, path: Path, place: tuple[float, float, float, float]) -> None:
    """A PNG of (x, y, width, height) of the page; a file of the docs stays small."""
    clip = dict(zip(("x", "y", "width", "height"), place, strict=True)) | {"scale": 1}
    shot = page.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    path.write_bytes(base64.b64decode(shot["data"]))
    print(f"{path} {path.stat().st_size:,} bytes")
    assert path.stat().st_size < MAX_BYTES, path


if __name__ == "__main__":
    main()
