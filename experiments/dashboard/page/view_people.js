// People: who gained, who lost. A selection in one figure or in the table marks the same people in all.

import { chart, colour, diagonal, gainLayout, gainTraces, personPoints, plain } from "./charts.js";
import { choice, h, kindOf, mark, number, score, signed } from "./dom.js";
import { fetchDocument, runPath } from "./documents.js";
import { grid } from "./grid.js";
import { address, choose, keep, listIn, listText, readAddress } from "./state.js";

export async function peopleView() {
  const { names: [run], query } = readAddress();
  const people = await fetchDocument(runPath(run, "people"));
  const methods = Object.keys(people.methods);
  if (!methods.length) return h("p", {}, "No person has a result yet.");
  const pick = (key, otherwise) => (methods.includes(query.get(key)) ? query.get(key) : otherwise);
  const a = pick("a", methods.includes("direct-ft") ? "direct-ft" : methods[0]);
  const b = pick("b", methods.includes("cdcda") && a !== "cdcda" ? "cdcda" : methods.at(-1));
  const metric = people.metrics.includes(query.get("metric")) ? query.get("metric") : people.headline;
  const everybody = new Set(people.people);
  const marked = new Set(listIn(query, "marked").filter((name) => everybody.has(name)));
  const data = paired(people, a, b, metric);

  const lines = peopleGrid(people, { metric, baseline: a, method: b }, marked, query, (name) => remark(marked.has(name) ? without(name) : new Set([...marked, name])));
  const said = h("p", { class: "hint", role: "status" });
  const without = (name) => new Set([...marked].filter((one) => one !== name));

  function remark(chosen) {
    marked.clear();
    for (const name of chosen) marked.add(name);
    keep({ marked: listText(marked) });
    for (const figure of figures) figure.draw();
    lines.repaint();
    tell();
  }
  const tell = () => { said.textContent = marked.size ? `${number(marked.size)} marked: ${[...marked].slice(0, 6).join(", ")}${marked.size > 6 ? ", …" : ""}` : "Nobody is marked. Drag over points, click a bar, or tick people in the table."; };
  tell();
  const selecting = { onSelect: (names) => remark(new Set(names)), onPoint: (name) => remark(marked.has(name) ? without(name) : new Set([...marked, name])) };

  const nobody = h("p", { class: "card" }, `Nobody has a value of ${metric} with both ${a} and ${b} yet. Choose another metric or method.`);
  const figures = data.rows.length ? [bars(data), scatter(data), byHistory(data), byKept(data), swapFigure(people, data)].filter(Boolean) : [];

  function figure(options) { return chart({ ...options, ...selecting }); }
  const shade = (one) => (marked.size === 0 || marked.has(one.name) ? 1 : 0.25);
  const edge = (one) => (marked.has(one.name) ? 2.5 : 0);
  const look = (rows) => ({ opacity: rows.map(shade), line: { color: colour("mark-edge"), width: rows.map(edge) } });

  function dots(key, title, hint, x, y, xTitle, yTitle, rows, shapes = () => []) {
    return figure({
      key, title, hint,
      traces: () => [personPoints(rows, x, y, look(rows))],
      layout: () => ({ dragmode: "select", xaxis: { title: { text: xTitle } }, yaxis: { title: { text: yTitle } }, shapes: shapes() }),
      heads: ["person", xTitle, yTitle, "gain"], rows: () => rows.map((one) => [one.name, x(one), y(one), one.gain]),
    });
  }

  // Without a kept pair the training sets are the same, and so are the adapters.
  function unsupplied(rows) {
    const none = rows.filter((one) => one.kept === 0).length;
    return none ? ` ${number(none)} people got no pair from the cloud.` : "";
  }

  function bars({ rows }) {
    const ordered = [...rows].sort((one, other) => other.gain - one.gain);
    const counts = ["better", "equal", "worse"].map((kind) => ordered.filter((one) => kindOf(one.gain) === kind).length);
    return figure({
      key: "bars", title: `Who gains with ${b} over ${a}`, wide: true,
      hint: `One bar per person, in order. ${b} is better for ${number(counts[0])}, equal for ${number(counts[1])}, worse for ${number(counts[2])}.${unsupplied(ordered)}`,
      traces: () => gainTraces(ordered, look(ordered), (one) => marked.has(one.name)),
      layout: () => ({ dragmode: "select", ...gainLayout(`gain in ${metric}`) }),
      heads: ["person", "gain", a, b], rows: () => ordered.map((one) => [one.name, one.gain, one.first, one.second]),
    });
  }

  function scatter({ rows, better }) {
    return dots("scatter", `${b} against ${a}`, `One point per person. ${better > 0 ? "Above" : "Below"} the diagonal: ${b} is better. Points of equal value are spread a little.`,
      (one) => one.first, (one) => one.second, plain(`${metric} with ${a}`), plain(`${metric} with ${b}`), rows,
      () => [diagonal(rows.flatMap((one) => [one.first, one.second]))]);
  }

  function byHistory({ rows }) {
    const known = rows.filter((one) => one.history !== null);
    return known.length ? dots("history", "Gain by length of history", "Do people with much history gain more?", (one) => one.history, (one) => one.gain, "history items", `gain in ${metric}`, known) : null;
  }

  function byKept({ rows }) {
    const known = rows.filter((one) => one.kept !== null);
    return known.length ? dots("kept", "Gain by kept pairs", `Pairs that ${b} trained on.`, (one) => one.kept, (one) => one.gain, "kept pairs", `gain in ${metric}`, known) : null;
  }

  function swapFigure(document, { rows, better }) {
    const swapped = document.methods[b].swapped;
    if (!swapped || metric !== document.headline) return null;
    const known = rows.filter((one) => swapped[one.row] !== null).map((one) => ({ ...one, gap: better * (one.second - swapped[one.row]) }));
    return dots("swap", "Swap gap", `Above 0: the person's own ${b} adapter answers better than another person's.`, (one) => one.gain, (one) => one.gap, `gain in ${metric}`, "swap gap", known);
  }

  return h("div", {},
    h("h1", {}, `People of ${run}`),
    h("div", { class: "row" },
      choice("metric", people.metrics.map((one) => [one, `${one} (${people.better[one] > 0 ? "higher" : "lower"} is better)`]), metric, (value) => choose({ metric: value })),
      choice("baseline", methods, a, (value) => choose({ a: value })),
      choice("method", methods, b, (value) => choose({ b: value })),
      h("button", { type: "button", onclick: () => remark(new Set()) }, "Clear marks")),
    said,
    data.rows.length ? h("div", { class: "cards" }, figures) : nobody,
    h("section", { class: "card" }, h("h2", {}, "Every person and method"), lines.element));
}

function paired(people, a, b, metric) {
  const [first, second] = [people.methods[a].values[metric] ?? [], people.methods[b].values[metric] ?? []];
  const better = people.better[metric];
  const rows = people.people.flatMap((name, row) => {
    const [x, y] = [first[row], second[row]];
    if (x === null || y === null || x === undefined || y === undefined) return [];
    const gain = Math.round(better * (y - x) * 1e6) / 1e6;
    return [{ name, row, first: x, second: y, gain, history: people.history[row], kept: people.methods[b].kept?.[row] ?? null }];
  });
  return { rows, better };
}

function peopleGrid(people, { metric, baseline, method }, marked, query, onMark) {
  const methods = Object.keys(people.methods);
  const size = people.people.length;
  const personOf = (row) => row % size;
  const methodOf = (row) => methods[Math.floor(row / size)];
  const base = people.methods[baseline].values[metric] ?? [];
  const columns = [
    { key: "mark", head: "✓", width: 44 }, { key: "person", head: "person", width: 150 }, { key: "method", head: "method", width: 120 },
    { key: "value", head: metric, numeric: true }, { key: "gain", head: `gain over ${baseline}`, numeric: true, width: 180 },
    { key: "swapped", head: "with another's adapter", numeric: true, width: 190 }, { key: "history", head: "history", numeric: true }, { key: "shared", head: "shared", numeric: true },
    { key: "kept", head: "kept pairs", numeric: true }, { key: "train_tokens", head: "tokens trained", numeric: true, width: 120 }, { key: "unparsed", head: "unreadable", numeric: true },
  ];
  const value = (row, column) => {
    const [person, own] = [personOf(row), people.methods[methodOf(row)]];
    switch (column) {
      case "mark": return marked.has(people.people[person]) ? 1 : 0;
      case "person": return people.people[person];
      case "method": return methodOf(row);
      case "value": return own.values[metric]?.[person] ?? null;
      case "gain": {
        const [x, y] = [base[person], own.values[metric]?.[person]];
        return x === null || x === undefined || y === null || y === undefined ? null : Math.round(people.better[metric] * (y - x) * 1e6) / 1e6;
      }
      case "history": return people.history[person];
      case "shared": return own.shares ? people.shared[person] : 0;
      default: return own[column]?.[person] ?? null;
    }
  };
  const cell = (row, column) => {
    const found = value(row, column);
    if (column === "person") return h("a", { href: address("person", [people.run, found]) }, found);
    if (column === "gain") return found === null ? "–" : h("span", {}, mark(kindOf(found)), ` ${signed(found)}`);
    if (column === "value" || column === "swapped") return score(found);
    return typeof found === "number" || found === null ? number(found) : found;
  };
  const shown = { text: query.get("filter") ?? "", method: query.has("only") ? query.get("only").replace("all", "") : method, isMarked: query.get("marked-only") === "1" };
  const [column, direction] = (query.get("sort") ?? "gain,down").split(",");
  const lines = grid({
    label: "People and methods", columns, count: size * methods.length, value, cell, marked, onMark, name: `people-${people.run}`,
    key: (row) => people.people[personOf(row)], sort: { column, up: direction === "up" }, onSort: (sort) => keep({ sort: `${sort.column},${sort.up ? "up" : "down"}` }),
  });
  const apply = () => {
    keep({ filter: shown.text, only: shown.method === method ? "" : shown.method || "all", "marked-only": shown.isMarked ? "1" : "" });
    const wanted = shown.text.toLowerCase();
    lines.filter((row) => (!wanted || people.people[personOf(row)].toLowerCase().includes(wanted)) && (!shown.method || methodOf(row) === shown.method) && (!shown.isMarked || marked.has(people.people[personOf(row)])));
  };
  const find = h("input", { type: "search", value: shown.text, placeholder: "part of a name", oninput: () => { shown.text = find.value; apply(); } });
  const only = choice("rows of", [["", "all methods"], ...methods], shown.method, (chosen) => { shown.method = chosen; apply(); });
  const onlyMarked = h("label", { class: "check" }, h("input", { type: "checkbox", checked: shown.isMarked, onchange: (event) => { shown.isMarked = event.target.checked; apply(); } }), "marked people only");
  lines.element.prepend(h("div", { class: "row" }, h("label", {}, "person", find), only, onlyMarked));
  apply();
  return lines;
}
