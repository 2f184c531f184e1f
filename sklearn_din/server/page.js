"use strict";
// What is shown: the events on the strip, the user's columns, the best items, the chosen one.
const shown = { events: [], all: [], context: {}, best: [], chosen: null, why: null };
let about = null;
let token = sessionStorage.getItem("token");
const asking = {}; // what is being asked, by address

const byId = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children); // text stays text: nothing is read as HTML
  return made;
}

function say(text, isFine = false) {
  byId("status").textContent = text;
  byId("status").className = isFine ? "fine" : "";
}

function askToken() {
  const dialog = byId("ask-token");
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(byId("token").value), { once: true }));
}

// A later question at the same address takes the place of the one before.
async function ask(address, body) {
  const key = address.split("?")[0];
  asking[key]?.abort();
  const own = (asking[key] = new AbortController());
  document.body.setAttribute("aria-busy", "true");
  try {
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const method = body === undefined ? "GET" : "POST";
    const answer = await fetch(address, { method, headers, body: JSON.stringify(body), signal: own.signal });
    const given = await answer.json();
    if (answer.status === 401 && (token = await askToken())) {
      sessionStorage.setItem("token", token);
      return await ask(address, body);
    }
    if (!answer.ok) throw new Error(given.detail);
    return given;
  } finally {
    if (asking[key] === own) delete asking[key];
    document.body.setAttribute("aria-busy", String(Object.keys(asking).length > 0));
  }
}

function task(work) {
  return async (...given) => {
    try { await work(...given); } catch (error) { if (error.name !== "AbortError") say(error.message.replace(/ Write them (in|without) quotes\.$/, "")); }
  };
}

function asNumber(value) {
  return about.number === "probability" ? `${(100 * value).toFixed(1)} %` : value.toPrecision(4);
}

// A date as the log has it, wherever one looks; numbers that can only be seconds or milliseconds are dates.
function asTime(time) {
  const since1970 = typeof time === "number" ? [1000, 1].map((unit) => time * unit).find((ms) => ms > 1e12 && ms < 4e12) : undefined;
  const text = since1970 === undefined ? String(time ?? "added") : new Date(since1970).toISOString();
  const date = new Date(`${text.slice(0, 19).padEnd(19, "T00:00:00".slice(text.length - 10))}Z`);
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(date.getTime())) return text;
  const isDay = date.getTime() % 86_400_000 === 0;
  return date.toLocaleString("en-GB", { timeZone: "UTC", dateStyle: "medium", ...(!isDay && { timeStyle: "medium" }) });
}

const isolate = (textContent) => element("bdi", { textContent });
const keyOf = (event) => JSON.stringify([event.item, event.time]);

// The address holds what is seen: a user, events taken out and added, and the item that is explained.
function remember(isNew) {
  const seen = new URLSearchParams(shown.user === undefined ? {} : { user: shown.user });
  shown.all.filter((event) => !shown.events.includes(event)).forEach((event) => seen.append("without", keyOf(event)));
  shown.events.filter((event) => !shown.all.includes(event)).forEach((event) => seen.append("with", event.item));
  if (shown.chosen) seen.set("item", shown.chosen.item);
  if (!byId("panel-model").hidden) seen.set("tab", "model");
  history[isNew ? "pushState" : "replaceState"](null, "", `?${seen}`);
  const isChanged = seen.has("without") || seen.has("with");
  for (const name of ["undo", "reset"]) byId(name).hidden = !isChanged;
}

const restore = task(async () => {
  const seen = new URLSearchParams(location.search);
  const found = seen.has("user") ? await ask("page/user", { user: seen.get("user") }) : { user: undefined, events: [], context: {} };
  const find = async (id) => (await ask(`page/items?search=${encodeURIComponent(id)}`)).items.filter((hit) => String(hit.item) === id);
  const events = [...found.events];
  for (const key of seen.getAll("without")) {
    const place = events.findIndex((event) => keyOf(event) === key);
    if (place >= 0) events.splice(place, 1);
  }
  for (const id of seen.getAll("with")) events.push(...(await find(id)).map(asEvent));
  const chosen = seen.has("item") ? (await find(seen.get("item")))[0] : null;
  showTab(seen.get("tab") === "model" ? "model" : "user");
  Object.assign(shown, { ...found, all: found.events, events, best: [], why: null, chosen: chosen ?? null });
  byId("user").value = found.user ?? "";
  say(found.n_events === 0 ? `User ${found.user} has no event in the log: these are items for somebody unknown.` : "", true);
  drawContext();
  draw();
  byId("strip").scrollLeft = byId("strip").scrollWidth; // the newest
  await refresh();
});

const request = () => ({ events: shown.events.map((e) => e.event), context: shown.context, exclude: byId("exclude").checked });

const refresh = task(async () => {
  asking["page/why"]?.abort(); // the events have changed
  const { best } = await ask("page/rank", request());
  const place = (items) => items.findIndex((b) => shown.chosen && String(b.item) === String(shown.chosen.item));
  const [before, now] = [place(shown.best), place(best)];
  if (before >= 0) {
    const moved = now < 0 ? "no longer among the ten best" : `place ${before + 1} to ${now + 1}, ${asNumber(shown.best[before].number)} to ${asNumber(best[now].number)}`;
    say(`“${shown.best[before].title}”: ${moved}`, true);
  }
  shown.best = best;
  await choose(best[now] ?? (before < 0 && shown.chosen ? shown.chosen : best[0] ?? null)); // who chose an item of elsewhere sees it
  if (!best.length) say("The history has every item of the catalogue.");
});

const choose = task(async (candidate) => {
  Object.assign(shown, { chosen: candidate, why: null });
  remember();
  draw();
  if (candidate) drawSimilar(candidate).catch(() => {});
  if (!candidate) return;
  shown.why = await ask("page/why", { ...request(), item: candidate.item });
  draw();
});

async function drawSimilar(candidate) {
  byId("like").hidden = true; // a model without item neighbours knows none
  const { items, titles } = await ask(`similar?item=${encodeURIComponent(candidate.item)}`);
  byId("like").hidden = !items.length;
  byId("similar").replaceChildren(...items.map((item, n) => drawHit(titles[n], item, () => choose({ item, title: titles[n] }))));
}

function change(events) {
  say("");
  const isLonger = events.length > shown.events.length;
  Object.assign(shown, { events, why: null });
  remember(true);
  draw();
  if (isLonger) byId("strip").scrollLeft = byId("strip").scrollWidth; // the newest
  return refresh();
}

function showUser(user) {
  say(""); // what was said of the one before
  history.pushState(null, "", `?${new URLSearchParams({ user })}`);
  return restore();
}

const asEvent = (item) => ({ event: { [about.item]: item.item }, time: null, ...item });

const addEvent = (item) => change([...shown.events, asEvent(item)]);

const FULL = { weight: 0.1, effect: 0.5 }; // the least that fills a card: what is nearly nothing looks so

function drawBar(value, largest, kind) {
  if (value === undefined) return element("div");
  const bar = element("div", { className: `bar ${value < 0 ? "down" : "up"} ${kind || (value < 0 ? "against" : "for")}` });
  bar.style.height = `${(largest ? Math.abs(value) / largest : 0) * 2.4}rem`;
  return element("div", {}, bar);
}

function drawNumbers(weight, effect) {
  const texts = [];
  if (weight !== undefined) texts.push(`attention ${weight.toFixed(3)}`);
  const what = about.number === "probability" ? "log-odds" : "prediction";
  const change = effect?.toFixed(2).replace(/^-0.00$/, "0.00");
  if (change) texts.push(`${what} ${change.startsWith("-") ? "" : "+"}${change}`);
  return texts.map((textContent) => element("span", { className: "number", textContent }));
}

const drawAbout = ({ about: text }) => (text ? [element("span", { className: "time", textContent: text })] : []);

// All of a list are of one height, where one of them has a picture.
function drawImage({ image }, all) {
  if (!all.some((one) => one.image)) return [];
  return [image ? element("img", { src: image, alt: "" }) : element("span", { className: "no-image" })];
}

function drawEvents() {
  const { events, why } = shown;
  const [weights, effects] = ["weight", "effect"].map((name) => events.map((_, n) => why?.[name]?.at(n - events.length))); // the newest have some
  const sizes = (values) => values.map((v) => Math.abs(v ?? 0));
  const counted = why?.weight ? weights : sizes(effects);
  const order = events.map((_, n) => n);
  if (byId("by-weight").checked) order.sort((a, b) => (counted[b] ?? -Infinity) - (counted[a] ?? -Infinity));
  const strip = byId("strip");
  const isAtNewest = strip.scrollLeft + strip.clientWidth >= strip.scrollWidth - 2;
  strip.replaceChildren(...order.map((n, place) => {
    const event = events[n];
    const card = element("li");
    card.append(element("div", { className: "bars" },
      drawBar(weights[n], Math.max(FULL.weight, ...sizes(weights)), "weight"), drawBar(effects[n], Math.max(FULL.effect, ...sizes(effects)), "")),
      ...drawNumbers(weights[n], effects[n]));
    card.append(...drawImage(event, events));
    const remove = element("button", { type: "button", textContent: "Take out" });
    remove.setAttribute("aria-label", `Take out ${event.title}`);
    remove.onclick = async () => {
      await change(events.filter((other) => other !== event));
      (byId("strip").children[Math.min(place, events.length - 2)]?.querySelector("button") || byId("item")).focus();
    };
    card.append(
      element("span", { className: "title", title: event.title }, isolate(event.title)),
      element("span", { className: "time", textContent: asTime(event.time) }), ...drawAbout(event), remove);
    return card;
  }));
  if (isAtNewest && !byId("by-weight").checked) strip.scrollLeft = strip.scrollWidth;
}

function drawBest() {
  const focused = document.activeElement?.closest("#best li");
  const place = focused ? [...byId("best").children].indexOf(focused) : -1;
  // Of the ten best all are much alike: bars are of their range, of probabilities in log-odds.
  const size = ({ number }) => (about.number === "probability" ? Math.log(number / (1 - number)) : number);
  const [least, largest] = [Math.min, Math.max].map((of) => of(...shown.best.map(size)));
  byId("best").replaceChildren(...shown.best.map((b, n) => {
    const button = element("button", { type: "button", onclick: () => choose(b) }, element("span", { textContent: n + 1 }));
    button.append(...drawImage(b, shown.best));
    const part = element("span", { className: "part" });
    part.style.width = `${largest > least ? 10 + (90 * (size(b) - least)) / (largest - least) : 100}%`;
    button.append(
      element("span", { className: "title", title: b.title }, isolate(b.title)), ...drawAbout(b),
      element("span", { className: "number", textContent: asNumber(b.number) }), part);
    button.setAttribute("aria-pressed", String(b.item === shown.chosen?.item));
    return element("li", {}, button);
  }));
  if (place >= 0) byId("best").children[place]?.querySelector("button").focus();
}

function draw() {
  const { events, chosen, why } = shown;
  const count = shown.n_events > shown.all.length ? `the newest ${events.length} of ${shown.n_events} events`
    : ["no events yet", "1 event"][events.length] ?? `${events.length} events`;
  byId("whose").textContent = shown.user === undefined ? `History: ${count}` : `History of user ${shown.user}: ${count}`;
  byId("why").replaceChildren(...(!chosen ? []
    : !events.length ? ["Without events there is nothing to count: add one, or choose a user."]
    : ["What counted for “", isolate(chosen.title), ["”", ...(why ? why.notes : [])].join(". ")]));
  byId("legend").hidden = !events.length;
  drawLevels(why?.levels ?? [], why?.online ?? []);
  drawEvents();
  drawBest();
}

// What the memory knows of the user and the item, beside the events' reasons.
function drawLevels(levels, online) {
  byId("known").hidden = !levels.length;
  const isMean = levels.some((level) => "mean" in level);
  const asLevel = ({ rows, rate, mean }) => (!rows ? "" : isMean ? mean.toPrecision(4) : `${(100 * rate).toFixed(1)} %`);
  const name = ({ of, label }) => [...Object.entries(of).map(([column, value]) => `${column} ${value ?? "not known"}`), ...(label ? [label] : [])].join(", ");
  const asPart = ({ mean, deviation }) => `${mean < 0 ? "\u2212" : "+"}${Math.abs(mean).toFixed(2)} \u00b1 ${deviation.toFixed(2)}`;
  byId("levels").replaceChildren(
    drawTable(["known of", "rows so far", isMean ? "mean" : "rate"], levels.map((level) => [name(level), level.rows.toLocaleString("en"), asLevel(level)])),
    ...(online.length ? [drawTable(["online estimate", "adds (probit)"], online.map((part) => [name(part) || "all rows", asPart(part)]))] : []));
}

const drawHit = (text, title, onclick) => element("li", {}, element("button", { type: "button", title, onclick }, isolate(text)));

function drawContext() {
  byId("context").hidden = !about.context.length;
  byId("context").replaceChildren(byId("context").firstElementChild, ...about.context.map(({ name, choices }) => {
    const value = shown.context[name] ?? "";
    let field = element("input", { value, type: choices ? "text" : "number", step: "any" });
    if (choices) {
      const values = [...new Set([null, ...choices, value === "" ? null : value])];
      field = element("select", {}, ...values.map((v) => element("option", { value: JSON.stringify(v), textContent: v ?? "not known", selected: v === value })));
    }
    field.onchange = () => {
      shown.context[name] = choices ? JSON.parse(field.value) : field.value === "" ? null : Number(field.value);
      refresh();
    };
    return element("label", {}, name, field);
  }));
}

function search(form, field, list, address, key, draw) {
  let timer = 0;
  const find = task(async () => {
    const found = (await ask(`${address}?search=${encodeURIComponent(byId(field).value)}`))[key];
    byId(list).replaceChildren(...found.map(draw));
    if (!found.length) byId(list).append(element("li", { textContent: "none found" }));
  });
  byId(field).oninput = () => { clearTimeout(timer); timer = setTimeout(find, 200); };
  byId(form).onsubmit = (event) => {
    event.preventDefault();
    if (key === "users" && byId(field).value) showUser(byId(field).value);
    else find();
  };
  return find;
}

const findUsers = search("find-user", "user", "users", "page/users", "users", (hit) =>
  drawHit(`${hit.user} (${hit.events})`, `${hit.events} events`, () => showUser(hit.user)));
const findItems = search("find-item", "item", "items", "page/items", "items", (hit) =>
  drawHit(hit.title, `${hit.title} ${hit.about}`, () => addEvent(hit)));

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Lines over one axis: [{ name, colour, dash, points: [[x, y], ...] }]; a mark at an x, or both axes alike.
function plot(lines, xName, label, { mark, isSquare } = {}) {
  const [width, height, left, bottom] = [Math.min(640, document.body.clientWidth - 32), 280, 60, 40];
  const all = lines.flatMap((line) => line.points);
  const [xs, ys] = isSquare ? [all.flat(), all.flat()] : [0, 1].map((n) => all.map((point) => point[n]));
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - 20);
  const y = (v) => height - bottom - ((v - y0) / (y1 - y0 || 1)) * (height - bottom - 50);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": label });
  for (const v of [y0, y1]) drawing.append(svg("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, Number(v.toPrecision(3))));
  for (const v of [x0, x1]) drawing.append(svg("text", { x: x(v), y: height - 22, "text-anchor": "middle" }, Number(v.toPrecision(3))));
  drawing.append(svg("text", { x: width / 2, y: height - 4, "text-anchor": "middle" }, xName));
  if (mark !== undefined) drawing.append(svg("line", { x1: x(mark), x2: x(mark), y1: 50, y2: height - bottom, stroke: "#1a7a3c" }), svg("text", { x: x(mark), y: 44, "text-anchor": "middle" }, "kept"));
  lines.forEach(({ name, colour, dash, points }, n) => {
    const style = { fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash };
    drawing.append(svg("polyline", { ...style, points: points.map((p) => `${x(p[0])},${y(p[1])}`).join(" ") }));
    for (const p of points) drawing.append(svg("circle", { cx: x(p[0]), cy: y(p[1]), r: 3, fill: colour }));
    drawing.append(svg("line", { ...style, x1: left, x2: left + 30, y1: 10 + 18 * n, y2: 10 + 18 * n }), svg("text", { x: left + 36, y: 14 + 18 * n }, name));
  });
  return drawing;
}

function drawModel() {
  const epochs = about.training.filter((c) => about.epochs === null || c.epoch <= about.epochs);
  const points = (name) => epochs.filter((c) => c[name] !== null).map((c) => [c.epoch, c[name]]);
  const newest = about.training[epochs.length]?.train_loss;
  const isPass = about.epochs !== null && about.best_epoch > about.epochs;
  byId("of-model").textContent = `${about.digest ? `Model ${about.digest}, loaded` : "Loaded"} ${asTime(about.loaded)}. Columns: ${about.columns.join(", ")}.`;
  const lines = [["train_loss", "loss, training rows", "#55555c", "5 4"], ["valid_loss", "loss, validation rows", "#0b57a4", "none"]]
    .map(([name, text, colour, dash]) => ({ name: text, colour, dash, points: points(name) })).filter((l) => l.points.length);
  const auc = about.training.find((c) => c.epoch === about.best_epoch)?.valid_auc;
  byId("training-note").textContent = !lines.length ? "A file of ONNX does not tell its training."
    : about.best_epoch === null ? "No rows were held out: all epochs count."
    : `The network as it was after ${isPass ? "the last pass" : `epoch ${Number(about.best_epoch.toPrecision(3))}`} is kept.` + (auc ? ` AUC on validation rows: ${auc.toFixed(3)}.` : "")
      + (newest === undefined ? "" : ` The last pass learns the validation rows: loss ${newest.toPrecision(3)}, each part predicted before it was learnt.`);
  if (lines.length) byId("training").replaceChildren(plot(lines, "epoch", "Losses by epoch", { mark: isPass ? undefined : about.best_epoch ?? undefined }));
  const own = about.validation;
  const bins = about.calibration ?? own.bins;
  const rows = about.calibration ? "tested rows, out of the command line's last split" : "the classifier's own validation rows, before the newest ones were learnt";
  const sampled = about.negatives ? ` Of each click and its ${about.negatives} sampled items: among all that is shown, clicks are rarer, and probabilities lower.` : "";
  byId("calibration-note").textContent = bins ? `Clicks that came, by what was predicted for ${rows}; dashed: as many as predicted.${sampled}`
    : about.calibrated_by ? `The probabilities are calibrated (${about.calibrated_by}).`
    : "Not known here: it takes rows with labels. “python -m sklearn_din log.csv --serve” shows it, out of its cross-validation.";
  if (bins) {
    const ends = [bins[0].predicted, bins[bins.length - 1].predicted];
    byId("calibration").replaceChildren(plot([
      { name: "clicks that came", colour: "#0b57a4", dash: "none", points: bins.map((b) => [b.predicted, b.observed]) },
      { name: "as predicted", colour: "#55555c", dash: "5 4", points: ends.map((v) => [v, v]) }], "predicted probability", "Calibration", { isSquare: true }));
  }
  const tests = Object.entries(about.scores);
  byId("figures-note").textContent = tests.length ? `Rules that need no network beside the models, as the command line compared them.${sampled}`
    : own.base_loss ? "“python -m sklearn_din log.csv --save” keeps those of other rules beside them."
    : "Not known here: “python -m sklearn_din log.csv --save” keeps them with the model.";
  const onOwn = [["log loss", own.valid_loss, own.base_loss], ["AUC", own.valid_auc, 0.5]].filter(([, value]) => value !== null);
  const nRows = own.rows?.length ? ` (${own.rows[1].toLocaleString("en")}, beside ${own.rows[0].toLocaleString("en")} training rows)` : "";
  const ownTable = drawTable([`on the classifier's own validation rows${nRows}`, "model", "base rate"], onOwn.map(([name, ...values]) => [name, ...values.map((v) => v?.toFixed(4))]));
  byId("figures").replaceChildren(...(own.base_loss ? [ownTable] : []), ...tests.map(([name, scores]) => drawTable(
    [`on ${name}`, ...Object.keys(Object.values(scores)[0])],
    Object.entries(scores).map(([model, own]) => [model, ...Object.values(own).map((v) => v.toFixed?.(4) ?? v)]))));
}

function drawTable(head, rows) {
  const cells = (row, scope) => row.map((textContent, n) => (scope || !n ? element("th", { textContent, scope: scope || "row" }) : element("td", { textContent, className: "n" })));
  return element("table", {}, element("thead", {}, element("tr", {}, ...cells(head, "col"))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))));
}

const drawDrift = task(async () => {
  const { columns } = await ask("page/report");
  byId("drift-note").textContent = columns ? "The newest events of the log beside the training rows: the part of values that is unknown, missing or empty, and how far the rest has moved (not of items, which users choose)."
    : "Not known here: start the server with --history.";
  if (!columns) return;
  const part = (v) => (v === null || v === undefined ? "" : `${(100 * v).toFixed(1)} %`);
  const word = (v) => (v < 0.1 ? "little" : v < 0.25 ? "some" : "much");
  byId("drift").replaceChildren(drawTable(["column", "unknown", "missing", "empty", "moved"], columns.map((c) =>
    [c.column, part(c.unknown), part(c.missing), part(c.empty), c.shift === null ? "" : `${c.shift.toFixed(2)}, ${word(c.shift)}`])));
});

function showTab(name) {
  for (const other of ["user", "model"]) {
    byId(`tab-${other}`).setAttribute("aria-selected", String(other === name));
    byId(`tab-${other}`).tabIndex = other === name ? 0 : -1;
    byId(`panel-${other}`).hidden = other !== name;
  }
  if (name === "model" && !byId("drift-note").textContent) drawDrift();
}

for (const [name, other] of [["user", "model"], ["model", "user"]]) {
  byId(`tab-${name}`).onclick = () => { showTab(name); remember(true); };
  byId(`tab-${name}`).onkeydown = ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    showTab(other);
    remember(true);
    byId(`tab-${other}`).focus();
  };
}
byId("exclude").onchange = refresh;
byId("by-weight").onchange = () => { drawEvents(); byId("strip").scrollLeft = byId("by-weight").checked ? 0 : byId("strip").scrollWidth; };
byId("undo").onclick = () => history.back();
byId("reset").onclick = () => change([...shown.all]);
addEventListener("popstate", restore);
addEventListener("error", ({ target }) => { if (target.tagName === "IMG") target.style.visibility = "hidden"; }, true);

task(async () => {
  about = await ask("page/about");
  byId("about").textContent = `${about.items.toLocaleString("en")} items` + (about.events === null ? "" : `, ${about.events.toLocaleString("en")} events of users; now is ${about.now === null ? "the clock's" : asTime(about.now)}`);
  byId("find-user").hidden = about.events === null;
  byId("exclude").checked = !about.users_return;
  drawContext();
  drawModel();
  await Promise.all([findItems(), about.events === null ? null : findUsers()]);
  await restore();
})();
