"""The application in Chromium: every tab by clicking, hostile files, cancellation, two pages, a phone, the keyboard."""

import re
import shutil
import time
import zipfile

import pytest

from evaluation.prediction_file import read_csv
from tests.webapp.application import ROOT, write_run

EXAMPLES = sorted((ROOT / "examples").glob("*.png"))
SECONDS = 30_000  # ms, at most


@pytest.fixture
def open_page(browser, app_server):
    """Open the application in a page of its own; errors of its scripts, and requests to other servers, fail."""
    contexts, wrong = [], []

    def visit(**options):
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: foreign(asked.url))
        page.goto(app_server)
        page.wait_for_selector("#photo input[type=file]", state="attached")
        return page

    def foreign(url):
        if not url.startswith((app_server, "data:", "blob:")):
            wrong.append(url)

    yield visit
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def page(open_page):
    return open_page()


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def drop(page, place, *files):
    page.locator(f"{place} input[type=file]").set_input_files([str(file) for file in files])


def says(page, place, text):
    """Wait until ``place`` has a text that matches."""
    page.wait_for_function(
        "([place, text]) => new RegExp(text).test(document.querySelector(place)?.innerText)", arg=[place, text]
    )


def error_of(page) -> str:
    toast = page.get_by_test_id("toast-text").last
    toast.wait_for()
    return toast.inner_text()


def downloaded(page, place, folder):
    with page.expect_download() as download:
        page.locator(place).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_one_photo(page, tmp_path):
    drop(page, "#photo", ROOT / "examples" / "pizza_0001.png")
    says(page, "#verdict", r"pizza with probability 0\.\d+\n.* bits/dim\ntypicality 0\.\d+")
    picture = page.locator("#map img")
    picture.wait_for()
    before = picture.get_attribute("src")
    page.locator("#second input").click()
    page.get_by_role("option", name="koala").click()
    page.wait_for_function("before => document.querySelector('#map img').src != before", arg=before)
    assert page.get_by_text("In the map, red pixels are likelier as pizza, blue ones as koala").is_visible()
    (row,) = read_csv(downloaded(page, "#csv", tmp_path))
    assert row["path"] == "pizza_0001.png" and row["class_name"] == "pizza"
    page.get_by_label("Remove Image").first.click()
    says(page, "#verdict", "^The result appears here")
    assert not page.get_by_test_id("toast-text").count()


def test_many_photos_with_a_broken_one(page, hostile, tmp_path):
    drop(page, "#photos", *EXAMPLES[:3], hostile["note.png"])
    says(page, "#classify_status", "4 photos, of which 1 could not be read")
    page.locator("#table").get_by_text("koala_0001.png", exact=True).click()
    says(page, "#verdict", "koala")
    rows = read_csv(downloaded(page, "#csv", tmp_path))
    assert [row["path"] for row in rows] == [*(file.name for file in EXAMPLES[:3]), "note.png"]
    assert rows[-1]["error"] == "note.png: not a readable image (cannot identify image file 'note.png')"


@pytest.mark.parametrize("name", ["huge.png", "note.png", "archive.jpg"])
@pytest.mark.parametrize(("where", "place"), [("Classify", "#photo"), ("Classify", "#photos"), ("Complete", "#start")])
def test_a_hostile_file_is_one_sentence(page, hostile, name, where, place):
    tab(page, where)
    drop(page, place, hostile[name])
    text = error_of(page)
    assert text.startswith(f"{name}: not a readable image (") and "\n" not in text
    drop(page, "#photo" if where == "Classify" else place, EXAMPLES[0])  # and the next one works
    says(page, "#verdict" if where == "Classify" else "#complete_status", "burger|Row|Done")


def test_a_photo_like_nothing_known(page, tmp_path):
    from PIL import Image

    Image.linear_gradient("L").save(tmp_path / "gradient.png")
    drop(page, "#photo", tmp_path / "gradient.png")
    says(page, "#verdict", "like nothing the network has seen")


def test_images_appear_row_by_row(page, tmp_path):
    tab(page, "Generate")
    page.get_by_label("koala").uncheck()
    page.locator("#seed input").fill("3")
    page.evaluate(
        """() => { window.seen = new Set(); new MutationObserver(() => window.seen.add(
        document.querySelector('#draw_status').innerText)).observe(document.body, {subtree: true, childList: true,
        characterData: true}); }"""
    )
    page.locator("#draw").click()
    says(page, "#draw_status", "Done: 12 images")
    seen = [
        text
        for text in page.evaluate("[...window.seen]")
        if re.fullmatch(r"Row \d+ of 32, images 1 to 12 of 12\.", text)
    ]
    assert len(seen) > 5
    with zipfile.ZipFile(downloaded(page, "#zip", tmp_path)) as archive:
        assert archive.namelist()[:2] == ["burger_0001.png", "burger_0002.png"] and len(archive.namelist()) == 13


def draw_many(page):
    """Begin a drawing that takes a while."""
    tab(page, "Generate")
    page.locator("#per_class input[type=number]").fill("25")
    page.locator("#per_class input[type=number]").press("Tab")
    page.locator("#draw").click()
    says(page, "#draw_status", "Row .* of 100")


def test_a_drawing_is_cancelled(page):
    draw_many(page)
    page.locator("#draw_stop").click()
    says(page, "#draw_status", "^Stopped.$")
    before = page.locator("#samples img").get_attribute("src")
    page.wait_for_timeout(1000)
    assert page.locator("#draw_status").inner_text() == "Stopped."
    assert page.locator("#samples img").get_attribute("src") == before
    page.locator("#per_class input[type=number]").fill("1")
    page.locator("#per_class input[type=number]").press("Tab")
    page.locator("#draw").click()
    says(page, "#draw_status", "Done: 4 images")


def test_two_people_at_once(open_page):
    one, other = open_page(), open_page()
    draw_many(one)
    start = time.monotonic()
    drop(other, "#photo", EXAMPLES[0])
    says(other, "#verdict", "burger")
    assert time.monotonic() - start < 10
    assert "of 100" in one.locator("#draw_status").inner_text()  # it still draws
    tab(other, "Generate")
    other.locator("#draw").click()
    says(other, "#draw_status", "Done: 16 images")
    assert "of 100" in one.locator("#draw_status").inner_text()
    one.locator("#draw_stop").click()
    says(one, "#draw_status", "^Stopped.$")


def test_a_reload_in_the_middle(page):
    draw_many(page)
    page.reload()
    page.wait_for_selector("#photo input[type=file]", state="attached")
    drop(page, "#photo", EXAMPLES[0])
    says(page, "#verdict", "burger")
    tab(page, "Generate")
    assert "appear here" in page.locator("#draw_status").inner_text()
    page.locator("#draw").click()
    says(page, "#draw_status", "Done: 16 images")


def test_the_boundary_is_dragged(page):
    tab(page, "Complete")
    drop(page, "#start", ROOT / "examples" / "panda_0001.png")
    says(page, "#complete_status", "Done: 8 completions")
    box = page.locator("#boundary img").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8, steps=5)
    page.mouse.up()
    says(page, "#boundary", "the top 2[4-7] of 32 rows are kept")
    says(page, "#complete_status", "Row")
    says(page, "#complete_status", "Done: 8 completions")
    page.locator("#start").get_by_label("Remove Image").click()
    page.locator("#boundary img").wait_for(state="hidden")
    page.wait_for_timeout(500)
    assert not page.get_by_test_id("toast-text").count()
    page.locator("#complete").click()
    assert error_of(page) == "there is no photo to complete; drop one"


def test_runs_refresh_while_they_go_on(page, run_folders):
    tab(page, "Runs")
    page.locator("#plot0 .marks").first.wait_for()
    assert page.locator("#grids img").count() >= 2
    page.get_by_role("tab", name="Settings").click()
    page.locator("#differing input").check()
    says(page, "#settings", "lr")
    says(page, "#settings", "^(?!.*dataset)")
    page.get_by_role("tab", name="Samples").click()
    write_run(run_folders / "third", 7, 0.3)
    page.locator("#runs input").click()
    page.get_by_role("option", name="third").wait_for()  # it is found without a reload
    page.get_by_role("option", name="third").click()
    page.wait_for_function("document.querySelector('#epoch input[type=range]').max == '7'")
    write_run(run_folders / "third", 9, 0.3)
    page.wait_for_function("document.querySelector('#epoch input[type=range]').max == '9'")
    says(page, "#grids", "epoch 9")
    shutil.rmtree(run_folders / "third")


def test_the_keyboard_is_enough(page):
    page.keyboard.press("Tab")
    for _ in range(20):
        if page.evaluate("document.activeElement.getAttribute('role')") == "tab":
            break
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Classify"
    page.keyboard.press("ArrowRight")
    if page.evaluate("document.activeElement.innerText") != "Generate":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#draw").focus()
    page.keyboard.press("Enter")
    says(page, "#draw_status", "Row|Done")
    tab(page, "Complete")
    drop(page, "#start", EXAMPLES[0])
    says(page, "#boundary", "the top 16 of 32")
    page.locator("#boundary input").focus()
    page.keyboard.press("ArrowDown")
    says(page, "#boundary", "the top 1[57] of 32")


def test_a_phone_in_dark_mode(open_page):
    page = open_page(is_mobile=False, color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("Classify", "Generate", "Complete", "Runs"):
        tab(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert int(red) < 60
