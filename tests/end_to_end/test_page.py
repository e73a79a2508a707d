"""The page of a real run in a real browser: it sorts, filters, links and plays, and loads nothing from outside."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import many_cells
import pytest
from commandline import advser_here

from advser.leaderboards.boards.catalogue import BOARDS
from advser.leaderboards.page.site import ROWS, write_assets
from advser.leaderboards.page.site import page as page_files

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)")

SUITE = """
name: paged
title: A small page
corpus: demo
protocol: loso
folds: [f1]
classes: [anger, sadness]
training: {iterations: 30, batch_size: 16, learning_rate: 2e-3}
models: [{name: tiny, params: {frames: 32}}]
defenses: [none, {name: low-pass, params: {cutoff: 4000}}]
attacks:
  - {name: fgsm, params: {epsilon: [0.002, 0.02]}, transfer: true}
  - {name: fgsm, domain: spectrogram, delivery: [features, audio], params: {epsilon: 0.3}}
metrics: [uar, accuracy, transfer-rate, snr, pesq]
transcriber: none
audit: false
noise: false
samples: 1
worst: [{name: worst-case, epsilon: 0.02}]
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "paged.yaml").write_text(SUITE)
    done = advser_here("run", "paged.yaml", "--store", "store", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(results: Path, browser: Any) -> Iterator[Any]:
    """Yield the page, opened from disk; fail if the browser reports an error or loads a file outside the folder."""
    opened = browser.new_page()
    errors: list[str] = []
    opened.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    inside = results.as_uri()
    opened.on("request", lambda sent: None if sent.url.startswith((inside, "data:")) else errors.append(sent.url))
    opened.on(
        "requestfailed", lambda sent: None if "flac" in sent.url else errors.append(f"{sent.url}: {sent.failure}")
    )
    opened.goto((results / "index.html").as_uri())
    opened.wait_for_selector(DRAWN)
    yield opened
    opened.close()
    assert errors == []


DRAWN = "#charts:not([aria-busy])"
CELLS = "Promise.all(data.chunks.map((_, n) => load(`cells-${n}`))).then((chunks) => Object.assign({}, ...chunks))"
"""A promise of all cells of the page."""


def column(page: Any, board: str, heading: str) -> list[str]:
    """Return the texts of a column of a board, in the visible rows."""
    headings = page.locator(f"#{board} thead th").all_inner_texts()
    number = [re.sub(r"\s+", " ", text).strip() for text in headings].index(heading)
    lines = page.locator(f"#{board} tbody tr:not(.block):visible").all()
    return [line.locator("th, td").nth(number).inner_text() for line in lines]


def figures(texts: list[str]) -> list[float]:
    return [float(match[0].replace("−", "-")) for text in texts if (match := re.match(r"[−\d.]+", text))]


@pytest.mark.parametrize(
    ("board", "heading"), [("attacks", "UAR"), ("attacks", "ε"), ("leaderboard", "worst case UAR")]
)
def test_a_heading_sorts_its_column_within_each_section(page: Any, board: str, heading: str) -> None:
    button = page.locator(f"#{board} thead th").filter(has_text=re.compile(heading.replace(" ", r"\s*"))).first
    for direction in ("ascending", "descending"):
        button.get_by_role("button").click()
        assert button.get_attribute("aria-sort") == direction
        for body in page.locator(f"#{board} tbody").all():
            keys = [row.locator("th, td").all() for row in body.locator("tr:not(.block)").all()]
            number = page.locator(f"#{board} thead th").all_inner_texts().index(button.inner_text())
            values = [float(text) for row in keys if (text := row[number].get_attribute("data-sort"))]
            assert len(values) > 1 or heading == "ε"
            assert values == sorted(values, reverse=direction == "descending")


def test_the_keyboard_sorts_too(page: Any) -> None:
    heading = page.locator("#attacks thead th").last
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"


def narrow(page: Any, key: str, value: str) -> None:
    """Set a filter, and wait until the page has applied it."""
    page.locator(f"#filters select[name={key}]").evaluate(
        """(select, value) => new Promise((done) => {
          addEventListener("hashchange", () => done(), { once: true });
          select.value = value;
          select.dispatchEvent(new Event("change", { bubbles: true }));
        })""",
        value,
    )


def test_filters_narrow_boards_and_charts_and_stay_in_the_address(page: Any) -> None:
    everything = len(column(page, "attacks", "attack"))
    narrow(page, "domain", "spectrogram")
    visible = column(page, "attacks", "attack")
    assert 0 < len(visible) < everything
    assert "clean" in visible, "clean rows stay, as the reference for all others"
    assert "domain=spectrogram" in page.url
    assert re.fullmatch(r"\d+ rows match", page.locator("#filters output").inner_text())
    page.reload()
    page.wait_for_selector(DRAWN)
    assert column(page, "attacks", "attack") == visible
    page.get_by_role("button", name="Show all").click()
    assert len(column(page, "attacks", "attack")) == everything
    for chart, key in {"standings": "defense", "transfer-map": "domain"}.items():
        links = page.locator(f"#{chart} a[*|href^='#cell=']")
        everywhere, narrowed = links.count(), []
        for value in page.locator(f"#filters select[name={key}] option").all_inner_texts()[1:]:
            narrow(page, key, value)
            narrowed.append(links.count())
        narrow(page, key, "")
        assert links.count() == everywhere > 0, chart
        assert max(narrowed) <= everywhere, chart
        assert min(narrowed) < everywhere, chart


def test_every_figure_links_to_its_cell_and_the_address_opens_the_cell(page: Any) -> None:
    cells = page.evaluate(CELLS)
    links = page.locator(".board td.figure a[href^='#cell=']").all()
    assert len(links) > 20
    assert {link.get_attribute("href").removeprefix("#cell=") for link in links} <= {*cells}
    line = page.locator("#attacks tbody tr", has_text="fgsm").first
    text = line.locator("td.figure a").first.inner_text()
    line.locator("td.figure a").first.click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for(state="visible")
    assert text.split(" ")[0] in dialog.inner_text()
    assert "advser run paged.yaml" in dialog.inner_text()
    deep = page.url
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.wait_for_url(lambda url: "cell=" not in url)
    page.goto(deep)
    page.get_by_role("dialog").wait_for(state="visible")


def test_the_command_of_a_cell_reproduces_that_cell(page: Any, results: Path, tmp_path: Path) -> None:
    cells = page.evaluate(CELLS)
    name, cell = next((name, cell) for name, cell in cells.items() if cell["keys"].get("access") == "transfer")
    words = shlex.split(cell["command"])
    again = tmp_path / "again"
    done = advser_here(*words[1:], "--store", "store", "--out", str(again), cwd=results.parent)
    assert done.returncode == 0, done.stderr
    assert "\n0 jobs done" in done.stdout
    assert f'"{name}"' in "".join(path.read_text() for path in again.glob("page/cells-*.js"))


def test_a_cell_plays_its_sounds_and_shows_their_pictures(page: Any, results: Path) -> None:
    name = next(name for name, cell in page.evaluate(CELLS).items() if cell["samples"] and cell["attack"])
    page.goto(f"{(results / 'index.html').as_uri()}#cell={quote(name)}")
    dialog = page.get_by_role("dialog")
    assert dialog.locator("audio").count() == 3
    for image in dialog.locator("img").all():
        image.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=image.element_handle())
    for audio in dialog.locator("audio").all():
        assert audio.evaluate("async audio => { await audio.play(); return audio.duration }") > 0.1
        page.wait_for_function("audio => audio.currentTime > 0", arg=audio.element_handle())


def test_the_charts_are_drawn_and_link_to_cells(page: Any) -> None:
    for chart in ("standings", "transfer-map", "accuracy-pesq", "against-epsilon"):
        figure = page.locator(f"#{chart}")
        assert figure.locator("svg[aria-label], figure[aria-label], svg").count() >= 1, chart
        link = figure.locator("a[*|href^='#cell=']").first
        link.scroll_into_view_if_needed()
        link.click()
        page.get_by_role("dialog").wait_for(state="visible")
        page.keyboard.press("Escape")
        page.wait_for_function("link => document.activeElement === link", arg=link.element_handle())


def test_every_link_has_an_accessible_name(page: Any) -> None:
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    links = [node for node in tree if node.get("role", {}).get("value") == "link" and not node.get("ignored")]
    assert len(links) > 30
    assert [node for node in links if not node.get("name", {}).get("value", "").strip()] == []


def test_links_within_the_page_keep_the_filters(page: Any) -> None:
    narrow(page, "domain", "spectrogram")
    shown = column(page, "attacks", "attack")
    page.get_by_role("link", name="charts", exact=True).click()
    assert column(page, "attacks", "attack") == shown
    assert "domain=spectrogram" in page.url
    page.goto(page.url.partition("#")[0] + "#%")
    assert page.locator("#charts figure").count() >= 4


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of hundreds of cells, without figures."""
    folder = tmp_path_factory.mktemp("large")
    results = many_cells.many(500)
    for name, text in page_files(results, [build(results) for build in BOARDS.values()], []).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    write_assets(folder)
    return folder


def test_a_large_board_shows_its_first_rows_and_finds_all_others(large: Path, browser: Any) -> None:
    opened = browser.new_page()
    requested: list[str] = []
    opened.on("request", lambda sent: requested.append(sent.url.rpartition("/")[2]))
    opened.goto((large / "index.html").as_uri())
    opened.wait_for_selector(DRAWN)
    assert "board-attacks.js" not in requested
    rows = "#attacks tbody tr:not(.block)"
    rest = opened.locator("#attacks .rest")
    first, total = map(int, re.findall(r"\d+", rest.text_content().partition(";")[0]))
    assert (opened.locator(rows).count(), first) == (ROWS, ROWS)
    assert total > 3 * ROWS
    rest.get_by_role("button", name="Show more").click()
    opened.wait_for_function(f"document.querySelectorAll('{rows}').length === {2 * ROWS}")
    # The lowest figure of all rows comes first, though the page did not have its row.
    heading = opened.locator("#attacks thead th").filter(has_text="UAR").first
    heading.get_by_role("button").click()
    number = opened.locator("#attacks thead th").all_inner_texts().index(heading.inner_text())
    values = opened.evaluate(f"[...document.querySelectorAll('{rows}')].map((row) => row.cells[{number}].dataset.sort)")
    assert len(values) == 2 * ROWS
    model = opened.locator("#filters select[name=model] option").last.inner_text()
    narrow(opened, "model", model)
    opened.wait_for_function("document.querySelector('#filters output').textContent !== ''")
    left = opened.evaluate(f"[...document.querySelectorAll('{rows}')].map((row) => row.dataset.model)")
    assert {*left} == {model}
    cell = opened.evaluate("drawing.rows.at(-1).id")
    opened.goto(f"{(large / 'index.html').as_uri()}#cell={quote(cell)}")
    opened.get_by_role("dialog").wait_for(state="visible")
    assert "Command that reproduces this cell" in opened.get_by_role("dialog").inner_text()
    assert len([name for name in requested if name.startswith("cells-")]) == 1
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_has_contrast_in_the_dark_too(results: Path, browser: Any, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto((results / "index.html").as_uri())
    opened.wait_for_selector(DRAWN)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 375
    texts = opened.locator("#charts svg text").all()
    assert min(text.bounding_box()["height"] for text in texts if text.is_visible()) >= 8
    # WCAG 2.2, 1.4.3: at least 4.5 between text and what is behind it.
    for selector in ("body", ".marks", "td.figure", "nav a", "select", "thead button", "#charts label"):
        assert opened.evaluate(CONTRAST, selector) >= 4.5, selector
    context.close()


CONTRAST = """
selector => {
  const canvas = document.createElement("canvas").getContext("2d");
  const channels = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  let behind = document.querySelector(selector);
  const text = luminance(channels(getComputedStyle(behind).color));
  while (behind && channels(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const paper = luminance(channels(getComputedStyle(behind ?? document.body).backgroundColor));
  return (Math.max(text, paper) + 0.05) / (Math.min(text, paper) + 0.05);
}
"""


def test_tables_have_a_caption_and_headings_for_screen_readers(page: Any) -> None:
    for table in page.locator(".board table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("thead th[scope=col]").count() == table.locator("thead th").count()
        assert (
            table.locator("tbody tr:not(.block)").count()
            == table.locator("tbody tr:not(.block) > th[scope=row]").count()
        )
    for image in page.locator("img").all():
        assert image.get_attribute("alt")


def test_third_party_scripts_match_their_licence_file() -> None:
    folder = resources.files("advser.leaderboards.page").joinpath("assets")
    licences = (folder / "LICENSES.txt").read_text(encoding="utf-8")
    for name in ("d3.min.js", "plot.umd.min.js"):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert re.search(rf"^{re.escape(name)}: .*{digest}$", licences, flags=re.MULTILINE)


def test_without_scripts_the_boards_are_complete(results: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto((results / "index.html").as_uri())
    assert "fgsm" in opened.locator("#attacks").inner_text()
    context.close()
