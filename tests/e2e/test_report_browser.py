"""The report in a real browser: opened from disk, drawn by its own style sheet, with nothing refused."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.report import (
    CatalogueFacts,
    Epoch,
    Interval,
    ModelResult,
    ProfileExample,
    ProfileFacts,
    ReportContent,
    RunFacts,
    render,
)

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
]

pytestmark = [pytest.mark.system, pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    history = tuple(Epoch(epoch, None, epoch / 100) for epoch in range(12))
    hostile = "<script>document.title = 'taken over'</script><img src=http://127.0.0.1:9/x>"
    content = ReportContent(
        RunFacts("r1", "A catalogue", "semalign run", datetime(2026, 11, 21, tzinfo=UTC), 104.2, "s1", "h1", "0.1.0"),
        CatalogueFacts(24, 12, 238, 154, 42, 42, "random 3:1:1, seed 0", "dmrec"),
        ProfileFacts("attributes", "pooled", (), 12, 0, "all-MiniLM-L6-v2", 384),
        (ModelResult("dmrec", "model", True, (Interval("recall@20", 0.19, 0.18, 0.2),), history=history, seconds=1.0),),
        profile_examples=(ProfileExample("item", "i1", hostile, hostile, "attributes"),),
    )
    path = tmp_path / "report.html"
    path.write_text(render(content), encoding="utf-8")
    return path


def browse(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    profile = page.parent / "browser"
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_the_page_opens_from_disk_and_the_policy_refuses_nothing_of_it(page: Path) -> None:
    shown = browse(page, "--dump-dom")
    assert "<title>A catalogue · semalign report</title>" in shown.stdout
    assert "<svg" in shown.stdout and "&lt;script&gt;" in shown.stdout
    assert "Content Security Policy" not in shown.stderr


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_drawn_on_a_phone_and_on_a_desk(page: Path, width: int) -> None:
    picture = page.parent / "report.png"
    browse(page, f"--window-size={width},900", f"--screenshot={picture}")
    assert picture.stat().st_size > 10_000  # an unstyled or empty page compresses to less
