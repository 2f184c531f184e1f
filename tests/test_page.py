"""The page in a real browser: ``make test-page``."""

import re
from pathlib import Path

import pandas as pd
import pytest

# ruff: noqa: E402 - what needs an extra is imported after the question for it
pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
WHY = "playwright is not installed: make test-page installs it"
playwright = pytest.importorskip("playwright.sync_api", reason=WHY)

from sklearn_din.server.answers import Answers
from sklearn_din.server.guard import HEADERS
from tests.page_server import find_browser, serve_page
from tests.served_model import TITLES, fit_served
from tests.test_row_memory import fit, make_rows

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060"
    "00000005000157a5ab400000000049454e44ae426082"
)
N_ITEMS = 100_000
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.slow,
]  # of the server, which sends them to the page
CONTRAST = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [getComputedStyle(node).color, background(node)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([node.tagName, node.textContent.slice(0, 30), ratio]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A catalogue of 100,000 items, some with pictures, and titles that are no plain names."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "hat.png").write_bytes(PIXEL)
    model, clicks = fit_served()
    items = clicks.drop_duplicates("item")[["item", "category"]]
    more = pd.DataFrame({"item": range(10**6, 10**6 + N_ITEMS - len(items)), "category": 1})
    catalogue = pd.concat([items, more], ignore_index=True)
    names = [f"Item number {n}" for n in range(len(catalogue) - len(TITLES))]
    catalogue["title"] = [*TITLES, *names]
    catalogue["image"] = [["hat.png", "../secret.png", None][n % 3] for n in range(len(catalogue))]
    answers = Answers(model, catalogue, clicks, title="title", image="image", folder=folder)
    bins = [{"predicted": p, "observed": p / 2} for p in (0.1, 0.2, 0.4)]
    scores = {"held-out users": {"popularity": {"AUC": 0.61}, "DIN": {"AUC": 0.7}}}
    answers.figures = {"scores": scores, "calibration": None, "negatives": 4}
    own = {"valid_loss": 0.4, "base_loss": 0.5, "valid_auc": float("nan"), "bins": bins}
    own["rows"] = [9_000, 1_000]
    answers.validation, answers.n_epochs = own, 2
    losses = [(1, 0.7, 0.6), (2, 0.5, 0.4), (3, 0.45, 0.44)]
    names = ["epoch", "train_loss", "valid_loss", "valid_auc"]
    answers.training = [dict(zip(names, [*check, 0.7], strict=True)) for check in losses]
    with serve_page(answers) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    if find_browser() is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(browser, address, request):
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    problems = []
    page.on("console", lambda m: problems.append(m.text) if is_problem(m) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: r.url.startswith(address) or problems.append(r.url))
    page.set_default_timeout(40_000)
    page.goto(address)
    page.wait_for_selector("#best li")
    yield page
    assert problems == []  # neither an error nor an address of elsewhere
    page.close()


def is_problem(message):
    """Whether the console tells more than that the server refused what was typed."""
    return message.type == "error" and "422 (" not in message.text


def choose_user(page, user):
    page.fill("#user", str(user))
    page.press("#user", "Enter")
    page.wait_for_selector(f"#whose:has-text('user {user}:')")


def titles(page, of="#best"):
    return page.locator(f"{of} .title").all_text_contents()


ARIA = """() => {
  const is_seen = (node) => node.checkVisibility();
  const named = (node) => [node.ariaLabel, node.labels?.[0]?.textContent, node.innerText].join("");
  const controls = [...document.querySelectorAll("button, input, select, a")].filter(is_seen);
  const mains = [...document.querySelectorAll("main")].filter(is_seen);
  const outside = [...document.body.children].filter(is_seen)
    .filter((node) => !["HEADER", "MAIN"].includes(node.tagName) && !node.matches(".skip"));
  const small = controls.filter((node) => !node.matches("a, [type=checkbox]"))
    .filter((node) => Math.min(node.offsetWidth, node.offsetHeight) < 24);
  const unnamed = controls.filter((node) => !named(node).trim());
  return [mains.length, ...[outside, small, unnamed].map((nodes) => nodes.map((n) => n.outerHTML))];
}"""


def is_narrow(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_user_is_chosen_and_the_reasons_are_bars_on_the_strip(page):
    choose_user(page, 7)
    page.wait_for_selector("#strip .bar")
    n_events = page.locator("#strip li").count()
    assert n_events
    assert page.locator("#strip .bar.weight").count() == n_events
    assert page.locator("#strip .bar").count() == 2 * n_events
    assert page.locator("#best li").count() == 10
    second = page.locator("#best button").nth(1)
    second.click()
    assert second.get_attribute("aria-pressed") == "true"
    page.wait_for_selector(f"text=What counted for “{titles(page)[1]}”")
    assert page.evaluate(CONTRAST) == []
    assert is_narrow(page)


def test_what_the_memory_knows_stands_beside_the_reasons(browser):
    rows, y = make_rows(300)
    catalogue = rows[["item", "kind"]].drop_duplicates("item").reset_index(drop=True)
    with serve_page(Answers(fit(rows, y), catalogue)) as address:
        page = browser.new_page(viewport={"width": 390, "height": 900})
        page.goto(f"{address}?user=77")  # who has no event
        page.wait_for_selector("#levels tbody tr")
        texts = page.locator("#levels tr").all_text_contents()
        assert texts[:2] == ["known ofrows so farrate", "user 770"]
        assert re.fullmatch(r"item [a-l]\d+\d\.\d %", texts[2])
        assert (page.evaluate(CONTRAST), page.evaluate(ARIA)) == ([], [1, [], [], []])
        assert is_narrow(page)
        page.close()


def test_what_is_no_longer_needed_is_not_asked_to_its_end(page):
    choose_user(page, 7)
    page.wait_for_selector("#strip .bar")
    aborted = []
    page.on("requestfailed", lambda request: aborted.append(request.url))
    click = "document.querySelectorAll('#best button')[n].click()"
    page.evaluate(f"() => [1, 2].forEach((n) => {click})")
    page.wait_for_selector(f"text=What counted for “{titles(page)[2]}”")
    page.wait_for_selector("#strip .bar")
    assert {url.rpartition("/")[2].partition("?")[0] for url in aborted} == {"similar", "why"}


def test_events_may_stand_by_what_they_counted_with_their_numbers(page):
    choose_user(page, 7)
    page.wait_for_selector("#strip .bar")
    in_time = titles(page, "#strip")
    page.check("#by-weight")
    texts = page.locator("#strip .number").all_text_contents()
    weights = [float(text.removeprefix("attention ")) for text in texts[::2]]
    assert weights == sorted(weights, reverse=True)
    assert all(re.fullmatch(r"log-odds [+-]\d+\.\d\d", text) for text in texts[1::2])
    assert sorted(titles(page, "#strip")) == sorted(in_time)
    page.uncheck("#by-weight")
    assert titles(page, "#strip") == in_time


def test_items_that_go_with_the_chosen_one_can_be_explained(page):
    choose_user(page, 7)
    page.wait_for_selector("#strip .bar")
    page.wait_for_selector("#like")
    other = page.locator("#similar button").first
    title = other.text_content()
    other.click()
    page.wait_for_selector(f"text=What counted for “{title}”")
    page.reload()  # the address has it, though it need not be among the ten best
    page.wait_for_selector(f"text=What counted for “{title}”")
    about = page.locator("#best .time").all_text_contents()
    assert all(re.fullmatch(r"item \d+, category \d", text) for text in about)


def test_the_keyboard_alone_is_enough(page):
    page.focus("#user")
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    page.wait_for_selector("#strip .bar")
    n_events = page.locator("#strip li").count()
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#strip li') !== null"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#strip:not(:has(li:nth-child({n_events})))")
    page.wait_for_selector("#strip button:focus")  # it stays on the strip
    page.focus("#tab-user")
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-model").is_visible()


def test_text_of_a_catalogue_is_text(page):
    page.fill("#item", "script")
    button = page.locator("#items button", has_text="alert")
    assert button.text_content() == TITLES[0]
    button.click()
    page.wait_for_selector("#strip li")
    page.fill("#item", "very long")
    page.click("#items button:has-text('very long')")
    page.wait_for_selector("#strip li:nth-child(2)")
    assert titles(page, "#strip") == TITLES[:2]
    assert page.locator("#panel-user script").count() == 0
    assert is_narrow(page)


def test_unknown_users_and_nobody_get_items_and_a_sentence(page):
    assert "no events" in page.text_content("#whose")
    choose_user(page, 424242)
    page.wait_for_selector("text=User 424242 has no event in the log")
    page.wait_for_selector("#best li:nth-child(10)")
    assert page.locator("#best li").count() == 10
    page.fill("#user", "nobody")
    page.press("#user", "Enter")
    page.wait_for_selector("text=user must be integers")


def test_pictures_are_files_beside_the_catalogue(page, address):
    page.fill("#item", "alert")
    page.click("#items button:has-text('alert')")  # row 0: hat.png
    picture = page.locator("#strip img")  # no wait_for_function: the page's policy forbids its eval
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1
    assert page.request.get(f"{address}page/image/1").status == 404  # outside the folder
    assert page.request.get(f"{address}page/image/-1").status == 404


def test_the_model_has_its_curve_its_calibration_and_its_drift(page):
    page.click("#tab-model")
    assert page.locator("#training circle").count() == 4  # two epochs, two losses
    last = page.locator("#training circle").nth(1).get_attribute("cx")
    assert page.locator("#training line[stroke='#1a7a3c']").get_attribute("x1") == last
    assert page.locator("#training text:text-is('kept')").count() == 1
    assert "after epoch 2 is kept" in page.text_content("#training-note")
    learns = "The last pass learns the validation rows: loss 0.450"
    assert learns in page.text_content("#training-note")
    assert "its 4 sampled items" in page.text_content("#calibration-note")
    assert "NaN" not in page.text_content("#panel-model")
    assert page.locator("#calibration polyline").count() == 2
    x_and_y = page.locator("#calibration text").all_text_contents()[:4]
    assert x_and_y[:2] == x_and_y[2:]  # both axes alike
    rows = page.locator("#figures tr").all_text_contents()
    assert "own validation rows (1,000, beside 9,000 training rows)" in rows[0]
    assert rows[1] == "log loss0.40000.5000"
    assert rows[-3:] == ["on held-out usersAUC", "popularity0.6100", "DIN0.7000"]
    assert "tab=model" in page.url
    page.reload()
    page.wait_for_selector("#panel-model:not([hidden])")
    page.go_back()
    page.wait_for_selector("#panel-user:not([hidden])")
    page.go_forward()
    page.wait_for_selector("#drift td:has-text('%')")
    assert "hist_item" in page.locator("#drift th").all_text_contents()
    assert page.evaluate(CONTRAST) == []
    assert is_narrow(page)


def test_every_view_has_one_main_landmark_and_controls_that_are_named_and_large_enough(page):
    choose_user(page, 7)
    page.wait_for_selector("#strip .bar")
    page.locator("#strip button").last.click()
    page.wait_for_selector("#undo")
    assert page.evaluate(ARIA) == [1, [], [], []]
    page.click("#tab-model")
    page.wait_for_selector("#drift td")
    assert page.evaluate(ARIA) == [1, [], [], []]
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_routes_are_described_and_can_be_tried(page, address):
    page.goto(f"{address}docs")
    page.click("text=Send POST /rank")
    page.wait_for_selector("pre:has-text('probabilities')")
    page.click("text=Send POST /events")
    page.wait_for_selector("pre:has-text('added')")
    assert page.evaluate(CONTRAST) == []
    assert is_narrow(page)


def test_nothing_but_the_server_itself_is_allowed(page, address):
    headers = page.request.get(address).headers
    assert all(headers[name.decode()] == value.decode() for name, value in HEADERS)
    package = Path(__file__).resolve().parents[1] / "sklearn_din" / "server"
    for file in package.glob("*.[hcj]*s*"):
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text
        assert "innerHTML" not in text


def test_events_are_taken_out_or_added_a_link_shows_what_somebody_saw_and_changes_are_undone(page):
    choose_user(page, 7)
    page.wait_for_selector("#strip .bar")
    strip, numbers = titles(page, "#strip"), page.locator("#best .number").all_text_contents()
    assert page.locator("#undo").is_hidden()
    page.locator("#strip button").last.click()
    page.wait_for_selector(f"#strip:not(:has(li:nth-child({len(strip)})))")
    page.wait_for_selector("#status:has-text('place 1 to')")  # what the removal changed
    assert page.locator("#best .number").all_text_contents() != numbers
    assert titles(page, "#strip") == strip[:-1]
    page.fill("#item", "ITEM NUMBER 99996")  # among 100,000
    page.click("#items button:has-text('Item number 99996')")
    page.wait_for_selector("#strip li:last-child :text('added')")
    page.wait_for_selector("#strip .bar")
    assert titles(page, "#strip") == [*strip[:-1], "Item number 99996"]
    page.locator("#best button").nth(2).click()
    page.wait_for_selector("#best li:nth-child(3) [aria-pressed=true]")
    seen = titles(page), titles(page, "#strip"), page.text_content("#why")
    link = page.url
    assert "user=7" in link
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("#best li:nth-child(3) [aria-pressed=true]")
    page.wait_for_selector("#strip .bar")
    assert (titles(page), titles(page, "#strip"), page.text_content("#why")) == seen
    page.click("#reset")
    page.wait_for_selector(f"#strip li:nth-child({len(strip)})")
    page.wait_for_selector("#reset", state="hidden")
    assert titles(page, "#strip") == strip
    page.go_back()
    page.wait_for_selector("#strip li:last-child :text('added')")


def test_a_page_that_needs_a_token_asks_for_it(browser):
    model, clicks = fit_served()
    answers = Answers(model, clicks.drop_duplicates("item")[["item", "category"]])
    with serve_page(answers, token="word", protects_reading=True) as address:
        page = browser.new_page()
        page.goto(address)
        page.fill("#ask-token [type=password]", "word")
        page.press("#token", "Enter")
        page.wait_for_selector("#best li")
        page.goto(f"{address}docs")
        page.fill("#token", "word")
        page.press("#token", "Tab")
        page.click("text=Send POST /rank")
        page.wait_for_selector("pre:has-text('probabilities')")
        page.close()
