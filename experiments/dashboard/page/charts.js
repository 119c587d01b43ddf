// Charts: Plotly in the page's colours, each with its numbers as a table and as CSV, and as PNG or SVG.

import { csv, download, h, kindOf, number, table } from "./dom.js";

const TABLE_ROWS = 200;

// Colours of Okabe and Ito, which colour-blind people tell apart; every method has a shape as well.
const COLOURS = { light: ["#0072b2", "#b04a00", "#007a5a", "#9a4f83", "#8a6d00", "#3c4a5a", "#2f7fb8"], dark: ["#6cb6f5", "#f2a35e", "#4fd0a7", "#e19ccb", "#e4d04f", "#c3ccd6", "#9bd0ff"] };
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star"];

// A style's value takes long to ask for, and a figure of ten thousand people asks forty thousand times.
const known = new Map();
export function colour(name) {
  const key = `${document.documentElement.dataset.theme} ${name}`;
  if (!known.has(key)) known.set(key, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return known.get(key);
}

export const methodStyle = (place) => ({ color: COLOURS[document.documentElement.dataset.theme][place % 7], symbol: SHAPES[place % 7] });

// Plotly loads beside the documents: the page's text does not wait for it.
let loading = null;
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    if (window.Plotly) return resolve(window.Plotly);
    const script = document.querySelector("script[src^='plotly.js']");
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => reject(new Error("Plotly did not load")));
    return undefined;
  });
  return loading;
}

function themed(layout) {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("soft"), linecolor: colour("line"), automargin: true };
  const both = { xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height: 300, showlegend: false,
    font: { color: colour("text"), family: "system-ui, sans-serif", size: 12 }, margin: { l: 56, r: 16, t: 8, b: 52 },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") } },
    ...layout, ...both,
  };
}

// What Plotly shows must not be read as its markup: `<b>` in a name is a name.
export const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

// Spreads points that would lie on each other, by up to 1.2 % of the range and always alike; their numbers stay.
// Where all are equal they stay too: an axis over the spread alone would show numbers that nobody has.
// The two steps make an even cloud (Roberts 2018); one step for both axes would make a line.
export function spread(values, axis) {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const range = values.reduce((a, b) => Math.max(a, b), -Infinity) - least;
  const step = { x: 0.7548776662, y: 0.5698402909 }[axis];
  return values.map((value, place) => value + (((place * step) % 1) - 0.5) * 0.024 * range);
}

// Figures are drawn one after the other, each in a frame of its own: the page's text is shown first, and the first figure
// does not wait for ten thousand points of the others.
let drawing = Promise.resolve();
function inTurn(draw) {
  const shown = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
  drawing = drawing.then(shown).then(draw);
}

export function chart({ key, title, hint = "", traces, layout, heads, rows, wide = false, onSelect, onPoint }) {
  const place = h("div", { class: "chart", role: "img", "aria-label": `${title}. The same numbers are under Table.` });
  const numbers = h("div", { hidden: true });
  const name = title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  const showTable = (event) => {
    numbers.hidden = !numbers.hidden;
    event.target.setAttribute("aria-expanded", String(!numbers.hidden));
    const all = rows();
    const more = all.length > TABLE_ROWS ? `The first ${TABLE_ROWS} of ${number(all.length)} rows; CSV has all.` : "";
    numbers.replaceChildren(table(heads, all.slice(0, TABLE_ROWS).map((row) => row.map((cell) => (typeof cell === "string" ? cell : number(cell)))), { caption: more || title }));
  };
  const image = async (format) => {
    const library = await plotly();
    const size = place.getBoundingClientRect();
    const url = await library.toImage(place, { format, width: size.width, height: size.height, scale: 2 });
    h("a", { href: url, download: `${name}.${format}` }).click();
  };
  const section = h("section", { class: `card${wide ? " wide" : ""}`, "data-key": key },
    h("h2", {}, title), hint && h("p", { class: "hint" }, hint), place,
    h("div", { class: "tools" },
      h("button", { class: "small", type: "button", "aria-expanded": "false", onclick: showTable }, "Table"),
      h("button", { class: "small", type: "button", onclick: () => download(`${name}.csv`, csv(heads, rows()), "text/csv") }, "CSV"),
      h("button", { class: "small", type: "button", onclick: () => image("png") }, "PNG"),
      h("button", { class: "small", type: "button", onclick: () => image("svg") }, "SVG")),
    numbers);
  let listening = false;
  section.draw = async () => {
    const library = await plotly();
    if (!place.isConnected) return;
    const drawn = themed(layout());
    place.style.minHeight = `${drawn.height}px`;
    await library.react(place, traces(), drawn, { displayModeBar: false, responsive: true });
    if (listening) return;
    listening = true;
    // Drawing again ends the selection, which Plotly tells as one of nobody.
    if (onSelect) place.on("plotly_selected", (event) => event?.points?.length && onSelect(event.points.map((point) => point.customdata)));
    if (onPoint) place.on("plotly_click", (event) => onPoint(event.points[0].customdata));
  };
  inTurn(() => section.draw().catch((error) => place.replaceChildren(error.message)));
  return section;
}

const SYMBOLS = { better: "triangle-up", worse: "triangle-down", equal: "circle" };

// Above so many people bars are too thin to see, and too many to draw.
const BARS = 400;

// One point per person. `look` says how each point looks beside its colour and shape.
export function personPoints(rows, x, y, look = {}) {
  return {
    type: "scatter", mode: "markers", x: spread(rows.map(x), "x"), y: spread(rows.map(y), "y"), customdata: rows.map((one) => one.name),
    text: rows.map((one) => `${plain(one.name)}<br>${number(x(one))}, ${number(y(one))}`), hovertemplate: "%{text}<extra></extra>",
    marker: { size: 9, color: rows.map((one) => colour(kindOf(one.gain))), symbol: rows.map((one) => SYMBOLS[kindOf(one.gain)]), ...look },
  };
}

// Everybody's gain in order: bars, or for many people two filled lines with the marked people as points.
export function gainTraces(ordered, look = {}, isMarked = () => false) {
  const shared = { customdata: ordered.map((one) => one.name), text: ordered.map((one) => plain(one.name)), textposition: "none", hovertemplate: "%{text}: %{y:.3f}<extra></extra>" };
  const places = ordered.map((_, place) => place);
  if (ordered.length <= BARS) return [{ type: "bar", x: places, y: ordered.map((one) => one.gain), ...shared, marker: { color: ordered.map((one) => colour(kindOf(one.gain))), ...look } }];
  const lines = ["better", "worse"].map((kind) => ({ ...shared, textposition: undefined, type: "scatter", mode: "lines", fill: "tozeroy", line: { shape: "hv", width: 1, color: colour(kind) }, x: places, y: ordered.map((one) => (kindOf(one.gain) === kind ? one.gain : null)) }));
  const chosen = places.filter((place) => isMarked(ordered[place]));
  const points = { ...shared, textposition: undefined, type: "scatter", mode: "markers", x: chosen, y: chosen.map((place) => ordered[place].gain), customdata: chosen.map((place) => ordered[place].name), text: chosen.map((place) => plain(ordered[place].name)), marker: { size: 9, color: colour("mark-edge") } };
  return [...lines, points];
}

export const gainLayout = (title) => ({ bargap: 0.15, xaxis: { title: { text: "people, from the greatest gain to the greatest loss" }, showticklabels: false, zeroline: false, showgrid: false }, yaxis: { title: { text: title } } });

// The line on which both methods are equal.
export function diagonal(values) {
  const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  return { type: "line", x0: low, y0: low, x1: high, y1: high, line: { color: colour("soft"), dash: "dot", width: 1.5 } };
}
