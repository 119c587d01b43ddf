// Filters: every pair's scores; thresholds that move and say at once what would be kept.

import { chart, colour } from "./charts.js";
import { bound, h, number, table } from "./dom.js";
import { fetchDocument, runPath } from "./documents.js";
import { address, keep, readAddress } from "./state.js";

const RANGES = { consistency: [0, 1], diversity: [0, 1], length: [0, 3] };
const OWN = "A filter of your own: it keeps by its own rule, so it has no threshold to move.";
const MEANING = { consistency: "Does each text imply the other? Higher is safer (equation 2 of the paper).", diversity: "ROUGE-L with the shared text. Lower is newer (equation 3 of the paper).", length: "Words of the pair over words of the shared text (equation 4 of the paper)." };

export async function filtersView() {
  const { names: [run], query } = readAddress();
  const found = await fetchDocument(runPath(run, "filters"));
  const filters = Object.keys(found.scores);
  if (!filters.length) return h("div", {}, h("h1", {}, `Filters of ${run}`), h("p", {}, "This run has no judged pairs: none of its methods trains on the cloud's pairs."));
  const limits = Object.fromEntries(filters.map((name) => [name, Object.fromEntries(Object.entries(found.thresholds[name] ?? {}).map(([side, value]) => [side, Number(query.get(`${name}-${side}`) ?? value)]))]));
  const selecting = new Set(query.has("filters") ? query.get("filters").split(",") : found.selecting);
  const said = h("p", { class: "sentence", role: "status", id: "would-keep" });
  const perPerson = h("p", { class: "hint" });
  const figures = filters.map(histogram);
  const persons = chart({
    key: "persons", title: "Kept pairs per person", hint: "At the thresholds above.", traces: () => [{ type: "histogram", x: counts(), marker: { color: colour("better") }, xbins: { start: -0.5, size: 1 } }],
    layout: () => ({ xaxis: { title: { text: "kept pairs" }, dtick: 1 }, yaxis: { title: { text: "people" } }, bargap: 0.1 }), heads: ["person", "kept pairs"], rows: () => counts().map((count, place) => [found.people[place], count]),
  });

  const passes = (name, row) => {
    if (found.keeps[name]) return found.keeps[name][row];
    const score = found.scores[name][row];
    const { low, high } = limits[name];
    // A text without words never passes, whatever the bound.
    if (name === "length" && score === 0) return false;
    return score !== null && (low === undefined || score >= low - 1e-9) && (high === undefined || score <= high + 1e-9);
  };
  const keepsRow = (row) => filters.every((name) => !selecting.has(name) || passes(name, row));
  function counts() {
    const kept = found.people.map(() => 0);
    found.person.forEach((person, row) => { if (keepsRow(row)) kept[person] += 1; });
    return kept;
  }

  function update() {
    const kept = counts();
    const total = kept.reduce((sum, count) => sum + count, 0);
    const share = found.person.length ? (100 * total) / found.person.length : 0;
    said.textContent = `These thresholds keep ${number(total)} of ${number(found.person.length)} pairs (${share.toFixed(1)} %); the run kept ${number(found.funnel.kept)}.`;
    perPerson.textContent = `${number(kept.filter((count) => count > 0).length)} of ${number(kept.length)} people get at least one pair.`;
    const changes = { filters: [...selecting].join(",") === found.selecting.join(",") ? "" : [...selecting].join(",") || "none" };
    for (const name of filters) for (const [side, value] of Object.entries(limits[name])) changes[`${name}-${side}`] = value === found.thresholds[name][side] ? "" : String(value);
    keep(changes);
  }

  function histogram(name) {
    const [start, end] = RANGES[name] ?? range(found.scores[name]);
    const section = chart({
      key: name, title: MEANING[name] ? `${name[0].toUpperCase()}${name.slice(1)}` : name, hint: MEANING[name] ?? OWN,
      traces: () => [{ type: "histogram", x: found.scores[name], xbins: { start, end, size: (end - start) / 30 }, marker: { color: colour("equal") }, hovertemplate: "%{y} pairs around %{x}<extra></extra>" }],
      layout: () => ({ height: 220, bargap: 0.05, xaxis: { title: { text: "score" }, range: [start, end] }, yaxis: { title: { text: "pairs" } },
        shapes: Object.values(limits[name]).map((value) => ({ type: "line", x0: value, x1: value, yref: "paper", y0: 0, y1: 1, line: { color: colour("worse"), width: 2.5 } })) }),
      heads: ["pair", "score"], rows: () => found.scores[name].map((score, row) => [row, score]),
    });
    const sliders = Object.keys(limits[name]).map((side) => {
      const shown = h("output", {}, String(limits[name][side]));
      const slider = h("input", { type: "range", min: start, max: end, step: 0.01, value: limits[name][side], "data-threshold": `${name}-${side}`,
        oninput: () => { limits[name][side] = Number(slider.value); shown.textContent = slider.value; update(); redraw(section); } });
      return h("label", {}, h("span", {}, `${name} ${side === "low" ? "at least" : "at most"} `, shown), slider);
    });
    const uses = h("label", { class: "check" }, h("input", { type: "checkbox", checked: selecting.has(name), onchange: (event) => { event.target.checked ? selecting.add(name) : selecting.delete(name); update(); redraw(section); } }), `use the filter ${name}`);
    section.querySelector(".chart").before(h("div", { class: "row" }, uses), ...sliders);
    return section;
  }

  let waiting = false;
  function redraw(section) {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; section.draw(); persons.draw(); }, 80);
  }
  update();

  return h("div", {},
    h("h1", {}, `Filters of ${run}`),
    h("p", { class: "soft" }, "Move a threshold to see what another one would have kept. Nothing is changed in the run."),
    said, perPerson,
    h("button", { type: "button", onclick: () => { location.hash = address("filters", [run]); } }, "Back to the run's thresholds"),
    h("div", { class: "cards three" }, figures, persons, funnel(found)),
    h("section", { class: "card" }, h("h2", {}, "What became of the samples in the run"), h("p", { class: "hint" }, "At the run's own thresholds. A pair can fail several filters."),
      table(["", "samples"], [...Object.entries(found.reasons).map(([reason, count]) => [`no pair: ${reason}`, count]), ...Object.entries(found.rejected_by).map(([name, count]) => [`rejected by ${name}${found.thresholds[name] ? ` (${bound(found.thresholds[name])})` : ""}`, count])], { numeric: [1] })));
}

// Of scores that may lie anywhere: a little room on both sides, so that the extreme ones show.
function range(scores) {
  const known = scores.filter((score) => score !== null);
  const [least, most] = known.reduce(([low, high], score) => [Math.min(low, score), Math.max(high, score)], [Infinity, -Infinity]);
  const room = (most - least) / 20 || 0.5;
  return [least - room, most + room];
}

function funnel(found) {
  const steps = [["shared items", found.funnel.shared], ["samples written", found.funnel.written], ["pairs parsed", found.funnel.parsed], ["pairs kept", found.funnel.kept]];
  return chart({
    key: "funnel", title: "From shared item to kept pair", hint: "In the run, at its own thresholds.",
    traces: () => [{ type: "bar", orientation: "h", y: steps.map(([name]) => name), x: steps.map(([, count]) => count), text: steps.map(([, count]) => number(count)), textposition: "outside", cliponaxis: false, marker: { color: colour("better") }, hovertemplate: "%{y}: %{x}<extra></extra>" }],
    layout: () => ({ height: 220, yaxis: { autorange: "reversed" }, margin: { l: 56, r: 60, t: 8, b: 52 } }), heads: ["step", "count"], rows: () => steps,
  });
}
