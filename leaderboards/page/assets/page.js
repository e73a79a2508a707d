// Sorting, filters, charts and the cells behind the figures. The boards are complete without this script.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const filters = document.getElementById("filters");

/** Return a new element with properties and children (nodes or texts). */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// ---------------------------------------------------------------- data beside the page

const requested = {};
const waiting = {};

/** Return a promise of the data in `page/NAME.js`, which calls `received`. A page from disk may load nothing else. */
function load(name) {
  return (requested[name] ??= new Promise((done, fail) => {
    waiting[name] = done;
    const script = make("script", { src: `page/${name}.js` });
    script.addEventListener("error", () => fail(new Error(`page/${name}.js is missing; advser draw writes it`)));
    document.head.append(script);
  }));
}

function received(name, value) {
  waiting[name](value);
}

// ---------------------------------------------------------------- the address: #cell=ID&domain=waveform, or #attacks

function state() {
  const text = location.hash.slice(1);
  return new URLSearchParams(text.includes("=") ? text : "");
}

function go(changed) {
  const next = state();
  for (const [key, value] of Object.entries(changed)) value ? next.set(key, value) : next.delete(key);
  // Without any state, an empty hash would make the browser jump to the top.
  location.hash = next.size ? next.toString() : "=";
}

// ---------------------------------------------------------------- sorting

function compare(left, right) {
  const [a, b] = [left, right].map((text) => (text === "" || text === "–" ? null : text));
  if (a === null || b === null) return (a === null) - (b === null);
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
}

/** Return a board's blocks of rows, each with its `tbody`. */
function blocksOf(bodies) {
  return [...bodies].map((body) => {
    const rows = [...body.rows];
    return { body, title: rows.filter((row) => row.className === "block"), rows: rows.filter((row) => row.className !== "block") };
  });
}

/** Return a board: its rows are sorted within their block, filtered, and the first of them shown. */
function board(section) {
  const table = section.querySelector("table");
  const rest = section.querySelector(".rest");
  // Rows that the page shows at first, and shows more of at a time.
  const step = rest ? table.querySelectorAll("tbody tr:not(.block)").length : Infinity;
  let blocks = blocksOf(table.tBodies);
  let whole = !rest;
  let most = step;
  let order = null;
  let chosen = [];

  async function complete() {
    if (whole) return;
    const template = make("template");
    template.innerHTML = `<table>${await load(`board-${section.id}`)}</table>`;
    blocks = blocksOf(template.content.firstChild.tBodies);
    whole = true;
    table.replaceChildren(table.caption, table.tHead, ...blocks.map((block) => block.body));
  }

  const text = (row) => row.cells[order.column].dataset.sort;
  const empty = (row) => text(row) === "" || text(row) === "–";
  const before = (a, b) => (empty(a) || empty(b) ? empty(a) - empty(b) : order.direction * compare(text(a), text(b)));

  function render() {
    let count = 0;
    for (const block of blocks) {
      if (order) block.rows.sort(before);
      const fitting = block.rows.filter((row) => fits(row.dataset, chosen));
      const shown = fitting.slice(0, Math.max(0, most - count));
      block.body.replaceChildren(...block.title, ...shown);
      block.body.hidden = shown.length === 0;
      count += fitting.length;
    }
    if (rest) {
      const all = whole ? count : Number(rest.dataset.rows);
      rest.querySelector("span").textContent = `The first ${Math.min(most, all)} of ${all} rows`;
      rest.querySelector("button").hidden = all <= most;
    }
    return count;
  }

  if (rest) {
    const more = make("button", { type: "button" }, "Show more");
    more.addEventListener("click", async () => {
      await complete();
      most += step;
      render();
    });
    rest.append(" ", more);
  }
  for (const [column, heading] of [...table.tHead.rows[0].cells].entries()) {
    const button = make("button", { type: "button" });
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", async () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      order = { column, direction: ascending ? 1 : -1 };
      await complete();
      render();
    });
  }
  return {
    async narrow(filters) {
      const earlier = chosen;
      chosen = filters;
      if (chosen.length) await complete();
      return chosen.length || earlier.length ? render() : 0;
    },
  };
}

// ---------------------------------------------------------------- filters

function wanted() {
  const chosen = state();
  return [...(filters?.elements ?? [])]
    .filter((field) => field.name && chosen.get(field.name))
    .map((field) => [field.name, chosen.get(field.name)]);
}

/** Return whether keys match the chosen filters; a filter of a key that they lack matches. */
function fits(keys, chosen) {
  return chosen.every(([key, value]) => keys[key] === undefined || keys[key] === value);
}

const boards = [...document.querySelectorAll(".board")].filter((section) => section.querySelector("table")).map(board);

function filter() {
  const chosen = wanted();
  for (const field of filters?.elements ?? []) if (field.name) field.value = state().get(field.name) ?? "";
  const output = filters?.querySelector("output");
  Promise.all(boards.map((each) => each.narrow(chosen))).then((counts) => {
    if (output) output.textContent = chosen.length ? `${counts.reduce((sum, count) => sum + count, 0)} rows match` : "";
  });
  return chosen;
}

filters?.addEventListener("change", (event) => go({ [event.target.name]: event.target.value }));
filters?.addEventListener("reset", () => go(Object.fromEntries(wanted().map(([key]) => [key, ""]))));

// ---------------------------------------------------------------- dialog of a cell

const dialog = document.getElementById("cell");

function number(value, decimals = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(decimals).replace("-", "−");
}

function figureText(name, figure) {
  const { decimals, unit } = data.metrics[name];
  if (figure.status !== "ok") return `${figure.status}${figure.reason ? `: ${figure.reason}` : ""}`;
  const interval = figure.low === null ? "" : ` [${number(figure.low, decimals)}, ${number(figure.high, decimals)}]`;
  const spread = figure.spread === null ? "" : ` ±${number(figure.spread, decimals)}`;
  const clips = `${figure.n} clips${figure.failed ? `, ${figure.failed} could not be measured` : ""}`;
  return `${number(figure.value, decimals)}${unit ? ` ${unit}` : ""}${interval}${spread} (${clips})`;
}

function list(pairs) {
  return make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function sound(folder, name, caption, transcript) {
  const picture = name.replace(/\.flac$/, ".png");
  return make(
    "figure",
    {},
    make("figcaption", {}, caption),
    make("img", { src: `${folder}/${picture}`, alt: `${caption}: waveform over spectrogram`, loading: "lazy" }),
    make("audio", { src: `${folder}/${name}`, controls: true, preload: "none", "aria-label": caption }),
    transcript ? make("p", { className: "marks" }, transcript) : null,
  );
}

function sampleSection(sample) {
  const before = `original: ${sample.clean_prediction}`;
  const after = `judged: ${sample.prediction}`;
  const gain = sample.gain ? `, ${Math.abs(sample.gain)} dB ${sample.gain > 0 ? "louder" : "softer"}` : "";
  const measured = Object.entries(sample.measured ?? {}).map(
    ([name, value]) => `${data.metrics[name]?.title ?? name} ${number(value, data.metrics[name]?.decimals)}`,
  );
  const truth = [`is ${sample.label}`, sample.text ? `“${sample.text}”` : "", ...measured].filter(Boolean).join("; ");
  return make(
    "section",
    {},
    make("h3", {}, `Clip ${sample.clip}`),
    make("p", { className: "marks" }, truth),
    make(
      "div",
      { className: "sounds" },
      sound("samples", sample.original, before, sample.clean_transcript && `transcribed as “${sample.clean_transcript}”`),
      sound("samples", sample.judged, after, sample.transcript && `transcribed as “${sample.transcript}”`),
      sample.difference ? sound("samples", sample.difference, `difference${gain}`, "") : null,
    ),
  );
}

/** Return a promise of a cell's data; of undefined without such a cell. */
async function cellOf(id) {
  // Chunks are sorted by identifier: the cell is in the last one that begins at or before it.
  const chunk = data.chunks.findLastIndex((first) => first <= id);
  return chunk < 0 ? undefined : (await load(`cells-${chunk}`))[id];
}

async function show(id) {
  const cell = await cellOf(id);
  // Meanwhile the address may have changed.
  if (state().get("cell") !== id) return;
  const title = document.getElementById("cell-title");
  const body = dialog.querySelector("div");
  if (!cell) {
    title.textContent = "No such cell";
    body.replaceChildren(make("p", {}, `These results have no cell ${id}.`));
  } else {
    title.textContent = cell.title;
    const keys = Object.entries(cell.keys).filter(([key]) => !["params", "norm", "budget"].includes(key));
    const params = JSON.stringify(cell.keys.params, null, 1);
    const artefacts = cell.artefacts.map(({ seed, fold, model_key: model, audio_key: audio }) => [
      `seed ${seed}, ${fold}`,
      make("code", {}, `model ${model.slice(0, 16) || "–"}, sound ${audio.slice(0, 16)}`),
    ]);
    const copy = make("button", { type: "button" }, "Copy");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(cell.command);
      copy.textContent = "Copied";
    });
    body.replaceChildren(
      ...cell.samples.map(sampleSection),
      make("h3", {}, "Figures"),
      list(Object.entries(cell.figures).map(([name, figure]) => [data.metrics[name].title, figureText(name, figure)])),
      make("h3", {}, "Command that reproduces this cell"),
      make("pre", { tabIndex: 0 }, cell.command),
      copy,
      make("h3", {}, "Cell"),
      list([...keys, ["parameters", make("code", {}, params)]]),
      ...(artefacts.length ? [make("h3", {}, "Artefacts, by their keys in the store"), list(artefacts)] : []),
      make("p", { className: "marks" }, make("a", { href: "#provenance" }, "Versions, machine and suite")),
    );
  }
  if (!dialog.open) dialog.showModal();
}

dialog.addEventListener("close", () => {
  for (const audio of dialog.querySelectorAll("audio")) audio.pause();
  if (state().get("cell")) go({ cell: "" });
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest('a[href="#provenance"]')) dialog.close();
  if (event.target.closest('a[href="#provenance"]')) location.hash = "provenance";
});
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#cell="], a[*|href^="#cell="]');
  if (!link) return;
  // A plain link would drop the filters from the address.
  event.preventDefault();
  go({ cell: (link.getAttribute("href") ?? link.getAttribute("xlink:href")).slice("#cell=".length) });
});

// ---------------------------------------------------------------- charts

const place = document.getElementById("charts");
/** Width of charts, in pixels: the available width, but at least 560, so that letters stay readable; phones scroll. */
const width = () => Math.max(560, Math.min(960, place.clientWidth));
// Contrast is at least 3 to 1 on white and on the dark paper; symbols differ as well.
const COLORS = ["#1f77b4", "#c8553d", "#2e8b57", "#9467bd", "#a0703c", "#c2559b", "#17829c", "#808080"];

function choice(label, values, chosen, change) {
  const select = make("select", {}, ...values.map((value) => make("option", {}, value)));
  select.value = chosen;
  select.addEventListener("change", () => change(select.value));
  return make("label", {}, label, select);
}

/** Add a chart: `draw(chosen, wanted)` returns an element or null; `offered` has the values to choose from, by name. */
function chart(id, title, offered, draw) {
  const chosen = Object.fromEntries(Object.entries(offered).map(([name, values]) => [name, values[0]]));
  const canvas = make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": title });
  const render = () => {
    const drawn = draw(chosen, wanted());
    canvas.replaceChildren(drawn ?? make("p", { className: "marks" }, "No data for these choices and filters."));
  };
  const selects = Object.entries(offered)
    .filter(([, values]) => values.length > 1)
    .map(([name, values]) => choice(name, values, chosen[name], (value) => ((chosen[name] = value), render())));
  place.append(make("figure", { id }, make("h3", {}, title), make("div", { className: "choices" }, ...selects), canvas));
  return render;
}

const distinct = (values) => [...new Set(values)];
/** The data of the charts: the cells as rows, the standings and the transfer matrices. */
let drawing;
const value = (row, metric) => row.figures[metric]?.[0] ?? null;
const titled = (metric) => data.metrics[metric].title + (data.metrics[metric].unit ? ` (${data.metrics[metric].unit})` : "");
const link = (row) => (row.cell || row.id ? `#cell=${row.cell || row.id}` : null);
const keysOf = (row) => ({ ...row.keys, attack: row.attack || undefined });
const victimOf = ({ keys }) => [keys.part, `${keys.model} · ${keys.defense}`].filter(Boolean).join(": ");
const crafted = ({ keys }) => (keys.source_model ? `, crafted on ${keys.source_model} · ${keys.source_defense}` : "");

function standings({ place: arena }, chosen) {
  const inArena = drawing.standings.filter((line) => line.place === arena && line.value !== null);
  const lines = inArena.filter((line) => fits(line.keys, chosen));
  const baselines = lines.filter((line) => line.anchor);
  const entries = lines.filter((line) => !line.anchor);
  if (!entries.length) return null;
  const order = [...entries].sort((a, b) => b.value - a.value).map((line) => line.who);
  const tooltip = (d) => `${d.who}\nrank ${d.rank}, tie group ${d.tie || "–"}\nworst case ${number(d.value)} [${number(d.low)}, ${number(d.high)}]\nclean ${number(d.clean)}`;
  return Plot.plot({
    width: width(),
    marginRight: 50,
    marginLeft: 190,
    height: 60 + 22 * order.length,
    ariaLabel: `Standings, ${arena}`,
    x: { label: "worst case; ○ clean; | chance baselines", grid: true },
    y: { domain: order, label: null },
    color: { legend: true, label: "tie group", range: COLORS },
    marks: [
      Plot.ruleX(baselines, { x: "value", stroke: "currentColor", strokeOpacity: 0.6, strokeDasharray: "3,3" }),
      Plot.link(entries, { x1: "low", x2: "high", y: "who", stroke: "tie", strokeWidth: 3 }),
      Plot.dot(entries, { x: "clean", y: "who", stroke: "tie", r: 4 }),
      Plot.dot(entries, { x: "value", y: "who", fill: "tie", r: 5, href: link, ariaLabel: tooltip }),
      Plot.text(entries, { y: "who", text: "tie", frameAnchor: "right", dx: 20, fontStyle: "italic" }),
      Plot.tip(entries, Plot.pointerY({ x: "value", y: "who", title: tooltip })),
    ],
  });
}

/** Return black or white, whichever contrasts more with a colour: by at least 4.5 to 1. */
function readable(colour) {
  const { r, g, b } = d3.rgb(colour);
  const [red, green, blue] = [r, g, b].map((part) => (part / 255 <= 0.04045 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "black" : "white";
}

function transfer({ matrix }, chosen) {
  const lines = drawing.transfer.filter((line) => line.matrix === matrix && fits(line.keys, chosen));
  const fields = lines.flatMap((line) => line.fields.map((field) => ({ source: line.source, ...field })));
  const measured = fields.filter((field) => field.value !== null);
  if (!measured.length) return null;
  const sources = distinct(fields.map((field) => field.source));
  const victims = distinct(fields.map((field) => field.victim));
  const shade = d3.scaleSequential(d3.extent(measured, (field) => field.value), d3.interpolateYlGnBu);
  const remark = (d) => `crafted on ${d.source}\njudged on ${d.victim}\n${number(d.value)}${d.remark ? `\n${d.remark}` : ""}`;
  return Plot.plot({
    width: Math.max(width() / 2, Math.min(width(), 210 + 70 * victims.length)),
    height: 110 + 30 * sources.length,
    marginLeft: 200,
    marginBottom: 90,
    ariaLabel: `Transfer, ${matrix}`,
    x: { domain: victims, label: "judged on", tickRotate: -35 },
    y: { domain: sources, label: "crafted on" },
    color: { scheme: "YlGnBu", domain: shade.domain(), legend: true, label: matrix },
    marks: [
      Plot.cell(measured, { x: "victim", y: "source", fill: "value", inset: 1, href: link, ariaLabel: remark }),
      Plot.text(measured, {
        x: "victim",
        y: "source",
        text: (field) => number(field.value, 2),
        fill: (field) => readable(shade(field.value)),
        pointerEvents: "none",
      }),
      Plot.tip(measured, Plot.pointer({ x: "victim", y: "source", title: remark })),
    ],
  });
}

/** Return the Pareto front: the points that no other point beats in both recognition left and cost of quality. */
function front(points) {
  const beats = (a, b) => a.y <= b.y && a.cost <= b.cost && (a.y < b.y || a.cost < b.cost);
  return points.filter((point) => !points.some((other) => beats(other, point))).sort((a, b) => a.x - b.x);
}

function tradeOff(metric, quality) {
  return ({ victim }, chosen) => {
    const points = drawing.rows
      .filter((row) => victimOf(row) === victim && fits(keysOf(row), chosen))
      .map((row) => ({ id: row.id, name: row.title + crafted(row), attack: row.attack || "clean", x: value(row, quality), y: value(row, metric) }))
      .filter((point) => point.x !== null && point.y !== null)
      .map((point) => ({ ...point, cost: data.metrics[quality].higher ? -point.x : point.x }));
    if (!points.length) return null;
    const tooltip = (d) => `${d.name}\n${titled(metric)} ${number(d.y)}\n${titled(quality)} ${number(d.x)}`;
    return Plot.plot({
      width: width(),
      height: 360,
      ariaLabel: `${titled(metric)} against ${titled(quality)}, ${victim}`,
      x: { label: titled(quality), grid: true, nice: true },
      y: { label: titled(metric), grid: true, domain: [0, Math.max(1, ...points.map((point) => point.y))] },
      color: { range: COLORS },
      symbol: { legend: true },
      marks: [
        Plot.line(front(points), { x: "x", y: "y", stroke: "currentColor", strokeOpacity: 0.5, strokeDasharray: "4,3" }),
        Plot.dot(points, { x: "x", y: "y", fill: "attack", symbol: "attack", stroke: "var(--paper)", r: 6, href: link, ariaLabel: tooltip }),
        Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: tooltip })),
      ],
    });
  };
}

function curves({ victim, place: where, metric }, chosen) {
  const own = drawing.rows.filter((row) => victimOf(row) === victim && row.keys.access !== "transfer");
  const clean = own.find((row) => !row.attack);
  const points = own
    .filter((row) => row.attack && where === whereOf(row) && row.keys.budget !== null && fits(keysOf(row), chosen))
    .map((row) => ({
      id: row.id,
      curve: [row.name, row.keys.labels && `${row.keys.labels} labels`].filter(Boolean).join(", "),
      x: row.keys.budget,
      y: value(row, metric),
      low: row.figures[metric]?.[1],
      high: row.figures[metric]?.[2],
    }))
    .filter((point) => point.y !== null);
  if (!points.length) return null;
  const level = clean ? value(clean, metric) : null;
  const tooltip = (d) => `${d.curve}\nε ${d.x}\n${titled(metric)} ${number(d.y)}`;
  return Plot.plot({
    width: width(),
    height: 360,
    ariaLabel: `${titled(metric)} against ε, ${victim}, ${where}`,
    x: { label: `ε (${where})`, grid: true, zero: true },
    y: { label: titled(metric), grid: true, zero: true },
    color: { range: COLORS },
    symbol: { legend: true },
    marks: [
      level === null ? null : Plot.ruleY([level], { strokeDasharray: "3,3", strokeOpacity: 0.6 }),
      Plot.areaY(points, { x: "x", y1: "low", y2: "high", z: "curve", fill: "curve", fillOpacity: 0.12, sort: "x" }),
      Plot.line(points, { x: "x", y: "y", z: "curve", stroke: "curve", sort: "x" }),
      Plot.dot(points, { x: "x", y: "y", fill: "curve", symbol: "curve", r: 5.5, href: link, ariaLabel: tooltip }),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: tooltip })),
    ],
  });
}

const NORMS = { linf: "L∞", l2: "L2", "relative-l2": "relative L2" };
const deliveredAs = ({ domain, delivery }) => (domain === "spectrogram" && delivery === "audio" ? "as audio" : "");
const whereOf = ({ keys }) => [keys.domain, deliveredAs(keys), NORMS[keys.norm] ?? keys.norm].filter(Boolean).join(", ");
const draws = [];

/** Add the charts that these results have data for. */
function addCharts() {
  const { rows, standings: lines, transfer: matrices } = drawing;
  const victims = distinct(rows.map(victimOf));
  const has = (metric) => metric in data.metrics && rows.some((row) => value(row, metric) !== null);
  if (lines.some((line) => line.value !== null)) {
    draws.push(chart("standings", "Standings: the worst case, with 95 % intervals and tie groups", { place: distinct(lines.map((line) => line.place)) }, standings));
  }
  if (matrices.length) {
    draws.push(chart("transfer-map", "Transfer between models", { matrix: distinct(matrices.map((line) => line.matrix)) }, transfer));
  }
  for (const [metric, quality, title] of [["accuracy", "pesq", "Accuracy against PESQ"], ["uar", "wer", "UAR against WER"], ["uar", "snr", "UAR against SNR"]]) {
    if (has(metric) && has(quality) && (quality !== "snr" || !(has("pesq") || has("wer")))) {
      draws.push(chart(`${metric}-${quality}`, `${title}; dashed: points that no other beats in both`, { victim: victims }, tradeOff(metric, quality)));
    }
  }
  const bounded = rows.filter((row) => row.attack && row.keys.budget !== null);
  const sizes = (where) => new Set(bounded.filter((row) => whereOf(row) === where).map((row) => row.keys.budget)).size;
  const budgets = distinct(bounded.map(whereOf)).sort((a, b) => sizes(b) - sizes(a));
  if (budgets.length) {
    draws.push(chart("against-epsilon", "Against the budget ε; dashed: clean", { victim: victims, place: budgets, metric: Object.keys(data.metrics).filter(has) }, curves));
  }
}

// ---------------------------------------------------------------- everything follows the address

let narrowed;
function follow() {
  const chosen = JSON.stringify(filter());
  // Opening or closing a cell does not redraw the charts, so that its link keeps the focus.
  if (chosen !== narrowed) for (const draw of draws) draw();
  narrowed = chosen;
  const id = state().get("cell");
  if (id) show(id);
  else if (dialog.open) dialog.close();
}

// Links within the page would drop the filters from the address.
document.addEventListener("click", (event) => {
  const anchor = event.target.closest("a[href^='#']:not([href*='='])");
  const place = anchor && document.getElementById(anchor.getAttribute("href").slice(1));
  if (!place || !state().size) return;
  event.preventDefault();
  place.scrollIntoView();
  if (place.tabIndex < 0) place.tabIndex = -1;
  place.focus({ preventScroll: true });
});
window.addEventListener("hashchange", follow);
let drawn = width();
window.addEventListener("resize", () => {
  if (width() !== drawn) for (const draw of draws) draw();
  drawn = width();
});
follow();
place.setAttribute("aria-busy", "true");
// The boards come first.
window.addEventListener("load", async () => {
  drawing = await load("charts");
  addCharts();
  for (const draw of draws) draw();
  place.removeAttribute("aria-busy");
});
