// Run: methods by metrics with intervals, gains against one method, cost beside quality, and where the time went.

import { chart, colour, methodStyle, plain } from "./charts.js";
import { choice, h, interval, mark, number, pText, score, signed, table } from "./dom.js";
import { fetchDocument, runPath } from "./documents.js";
import { address, choose, readAddress } from "./state.js";
import { badge } from "./view_runs.js";

const COSTS = { train_tokens: "tokens trained", device_seconds: "device seconds", cloud_tokens: "cloud tokens", bytes_up: "bytes up", bytes_down: "bytes down", adapter_bytes: "bytes per adapter" };

const lastCosts = new Map();

export async function runView() {
  const { names: [name], query } = readAddress();
  const against = query.get("against") ?? "";
  const run = await fetchDocument(runPath(name, "run") + (against ? `?against=${encodeURIComponent(against)}` : ""));
  const methods = Object.keys(run.methods);
  const metrics = Object.keys(run.better);
  const metric = metrics.includes(query.get("metric")) ? query.get("metric") : run.headline;
  const cost = query.get("cost") in COSTS ? query.get("cost") : "train_tokens";

  // Costs of ten thousand devices take seconds to read; everything else does not wait for them.
  const costsOf = (costs) => costChart(run, costs, metric, cost, (value) => choose({ cost: value }));
  const before = lastCosts.get(name);
  const costPlace = before ? costsOf(before) : h("section", { class: "card waiting" }, h("h2", {}, "Cost beside quality"), h("p", { class: "hint" }, "Reading what the devices wrote ..."));
  fetchDocument(runPath(name, "costs"))
    .then((costs) => {
      lastCosts.set(name, costs);
      // Drawn anew only where they have changed: its reader may be in the middle of it.
      if (JSON.stringify(costs) !== JSON.stringify(before)) costPlace.replaceWith(costsOf(costs));
    })
    .catch((error) => costPlace.replaceChildren(h("h2", {}, "Cost beside quality"), h("p", { class: "worse" }, error.message)));

  return h("div", {},
    h("h1", {}, run.run, " ", badge(run.status)),
    h("p", { class: "soft" }, `${run.title} (${run.task}), ${number(run.people)} people${run.synthetic ? ", embedded personas: synthetic data" : ""}${run.control ? "; positive control: no real cloud" : ""}`),
    run.error && h("p", { class: "worse" }, run.error),
    h("p", { class: "hint", "data-live": run.run }),
    h("div", { class: "row" },
      choice("metric", metrics.map((one) => [one, `${one} (${run.better[one] > 0 ? "higher" : "lower"} is better)`]), metric, (value) => choose({ metric: value })),
      choice("baseline", methods, run.against, (value) => choose({ against: value }))),
    methods.length > 1 && h("section", { class: "card" }, h("h2", {}, `Who is better off than with ${run.against}?`),
      run.gains.filter((gain) => gain.metric === metric).map((gain) => h("p", { class: "sentence" }, gain.sentence, " ", h("span", { class: "soft" }, gain.certainty), " ",
        h("a", { href: address("people", [run.run], { a: run.against, b: gain.b, metric }) }, "See them")))),
    h("div", { class: "cards" },
      means(run, methods, metric),
      methods.length > 1 && forest(run, metric),
      costPlace,
      leakage(run),
      run.phases.length > 0 && phases(run)),
    h("section", { class: "card" }, h("h2", {}, "Methods"), methodTable(run, methods, metrics)),
    h("section", { class: "card" }, h("h2", {}, `Gains over ${run.against}`), gainTable(run),
      h("p", { class: "hint" }, "Interval: if the run were repeated with other people like these, 95 of 100 such intervals would hold the true mean difference. ▲ and ▼: the interval excludes 0, with at least six people. p: Wilcoxon's signed-rank test, corrected by Holm over the headline metric's comparisons. Effect: rank-biserial correlation, 1 where everybody gains, -1 where everybody loses.")),
    Object.keys(run.swap).length > 0 && h("section", { class: "card" }, h("h2", {}, "Swap test: own adapter against another person's"), swapTable(run)),
    run.failures.length > 0 && h("section", { class: "card error" }, h("h2", {}, `${number(run.failures.length)} failures`),
      table(["person", "phase", "reason"], run.failures.map((one) => [h("a", { href: address("person", [run.run, one.user]) }, one.user), one.phase, one.reason]))),
    h("section", { class: "card" }, h("details", { "data-key": "config" }, h("summary", {}, "Models and config"),
      table(["role", "model"], Object.entries(run.models)), table(["key", "value"], Object.entries(run.config).map(([key, value]) => [key, String(value)])))));
}

// A method keeps its shape in every figure of the run.
function points(run, rows, shown) {
  const places = Object.keys(run.methods);
  return rows.map(([label, one]) => ({
    type: "scatter", mode: "markers", x: [one.mean ?? one.difference], y: [plain(label)], marker: { size: 10, ...methodStyle(places.indexOf(label)), ...shown?.(one) },
    error_x: { type: "data", symmetric: false, array: [one.high - (one.mean ?? one.difference)], arrayminus: [(one.mean ?? one.difference) - one.low], color: colour("soft"), thickness: 1.5 },
    hovertemplate: "%{y}: %{x:.3f}<extra></extra>",
  }));
}

const tall = (count) => ({ height: 110 + 34 * count, yaxis: { autorange: "reversed", type: "category" } });

function means(run, methods, metric) {
  const rows = methods.map((name) => [name, run.methods[name].metrics[metric]]).filter(([, one]) => one?.low !== undefined);
  return chart({
    key: "means", title: `Mean ${metric} per method`, hint: `${run.better[metric] > 0 ? "Higher" : "Lower"} is better. Lines: 95 % bootstrap interval over people.`,
    traces: () => points(run, rows), layout: () => ({ ...tall(rows.length), xaxis: { title: { text: metric } } }),
    heads: ["method", "mean", "low", "high"], rows: () => rows.map(([name, one]) => [name, one.mean, one.low, one.high]),
  });
}

function forest(run, metric) {
  const rows = run.gains.filter((gain) => gain.metric === metric).map((gain) => [gain.b, oriented(gain, run.better[metric])]);
  const printed = rows.filter(([, one]) => one.paper !== null);
  return chart({
    key: "gains", title: `Gain over ${run.against} in ${metric}`, hint: `Right of 0: better. A line that crosses 0: these people do not show a difference.${printed.length ? " Diamond: the paper's difference, of its own people and models." : ""}`,
    traces: () => [
      ...points(run, rows, (one) => ({ color: colour({ better: "better", worse: "worse", "not shown": "equal" }[favoured(one)]) })),
      ...(printed.length ? [{ type: "scatter", mode: "markers", x: printed.map(([, one]) => one.paper), y: printed.map(([name]) => plain(name)), marker: { size: 11, symbol: "diamond-open", color: colour("soft"), line: { width: 2 } }, hovertemplate: "%{y}: %{x:.3f} in the paper<extra></extra>" }] : []),
    ],
    layout: () => ({ ...tall(rows.length), xaxis: { title: { text: `gain in ${metric}` }, zeroline: true, zerolinewidth: 2 }, shapes: [{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: colour("soft"), dash: "dot", width: 1 } }] }),
    heads: ["method", "gain", "low", "high", "better", "equal", "worse", "in the paper"], rows: () => rows.map(([name, one]) => [name, one.difference, one.low, one.high, one.wins, one.ties, one.losses, one.paper]),
  });
}

const favoured = (gain) => (gain.favours === gain.b ? "better" : gain.favours === gain.a ? "worse" : "not shown");

// A gain is positive where it is better, whichever way the metric points.
const oriented = (gain, better) => (better > 0 ? gain : { ...gain, difference: -gain.difference, low: -gain.high, high: -gain.low, paper: gain.paper === null ? null : -gain.paper });

function costChart(run, costs, metric, cost, onCost) {
  const rows = Object.keys(run.methods).map((name) => [name, costs[name]?.[cost] ?? null, run.methods[name].metrics[metric]?.mean]).filter(([, paid, mean]) => paid !== null && mean !== undefined);
  const section = chart({
    key: "costs", title: "Cost beside quality", hint: "Summed over all people; better is up. Where two methods train on the same examples, one training serves both and both count it. A method whose cost nobody measured is not shown.",
    traces: () => rows.map(([name, paid, mean], place) => ({ type: "scatter", mode: "markers+text", x: [paid], y: [mean], text: [plain(name)], textposition: "middle right", marker: { size: 11, ...methodStyle(place) }, cliponaxis: false, hovertemplate: `${plain(name)}: %{x:,} ${COSTS[cost]}, %{y:.3f}<extra></extra>` })),
    layout: () => ({ xaxis: { title: { text: COSTS[cost] }, range: widened(rows.map((row) => row[1])) }, yaxis: { title: { text: metric }, autorange: run.better[metric] > 0 ? true : "reversed" }, margin: { l: 56, r: 40, t: 16, b: 52 } }),
    heads: ["method", COSTS[cost], metric], rows: () => rows,
  });
  section.querySelector("h2").after(choice("cost", Object.entries(COSTS), cost, onCost));
  return section;
}

// What the adapters give away beside what they gain; a method whose adapters nobody attacked is not shown.
function leakage(run) {
  const found = run.leakage;
  if (!found || found.error) return h("section", { class: "card" }, h("h2", {}, "Gain beside leakage"), h("p", { class: "hint" }, `${found?.error ?? "Not measured."} In a terminal, for a finished simulation: cdcda leakage ${run.run}`));
  const control = Math.max(...found.membership.map((one) => one.auc["control: M_base"]?.[0] ?? 0.5));
  const aucs = Object.fromEntries(found.membership.map((one) => [one.method, one.auc[one.strongest]]));
  const rows = Object.entries(found.gains).filter(([name]) => aucs[name]).map(([name, gain]) => [name, oriented(gain, run.better[gain.metric]), aucs[name]]);
  const bars = (values) => ({ type: "data", symmetric: false, array: values.map(([mean, , high]) => high - mean), arrayminus: values.map(([mean, low]) => mean - low), color: colour("soft"), thickness: 1.2 });
  return chart({
    key: "leakage", title: "Gain beside leakage", hint: `Right: an attacker who has the adapter tells better which texts it was trained on (AUC of the strongest attack; 0.5 is guessing, and what the dotted line has beyond it is no leak). Up: a greater gain over device. ${found.share_policy} ${found.share_ratio}: ${number(Math.round(found.bytes_up_per_user))} bytes shared per person.`,
    traces: () => rows.map(([name, gain, auc]) => ({ type: "scatter", mode: "markers+text", x: [auc[0]], y: [gain.difference], text: [plain(name)], textposition: "top right", marker: { size: 11, ...methodStyle(Object.keys(run.methods).indexOf(name)) }, error_x: bars([auc]), error_y: bars([[gain.difference, gain.low, gain.high]]), cliponaxis: false, hovertemplate: `${plain(name)}: AUC %{x:.3f}, gain %{y:.3f}<extra></extra>` })),
    layout: () => ({ xaxis: { title: { text: "AUC of the strongest attack" } }, yaxis: { title: { text: "gain over device" }, zeroline: true }, margin: { l: 56, r: 60, t: 24, b: 52 }, shapes: [{ type: "line", x0: control, x1: control, yref: "paper", y0: 0, y1: 1, line: { color: colour("soft"), dash: "dot", width: 1 } }] }),
    heads: ["method", "gain over device", "low", "high", "AUC", "low", "high"], rows: () => rows.map(([name, gain, auc]) => [name, gain.difference, gain.low, gain.high, ...auc]),
  });
}

// Room for a name right of the last point.
const widened = (values) => [-0.04 * Math.max(...values, 1), 1.3 * Math.max(...values, 1)];

function phases(run) {
  let start = 0;
  const rows = run.phases.map((phase) => { const row = [phase.name, start, phase.seconds, phase.tokens]; start += phase.seconds; return row; });
  return chart({
    key: "phases", title: "Where the time went", hint: `${number(run.minutes, 1)} minutes in all${run.peak_gib ? `, ${run.peak_gib} GiB at the peak` : ""}.`,
    traces: () => [{ type: "bar", orientation: "h", y: rows.map(([name]) => plain(name)), base: rows.map((row) => row[1]), x: rows.map((row) => row[2]), marker: { color: colour("better") }, text: rows.map((row) => `${number(row[2], 1)} s`), textposition: "outside", cliponaxis: false, hovertemplate: "%{y}: %{text}<extra></extra>" }],
    layout: () => ({ height: 110 + 26 * rows.length, xaxis: { title: { text: "seconds since the start" }, range: [0, start * 1.12] }, yaxis: { autorange: "reversed" } }),
    heads: ["phase", "starts at (s)", "seconds", "tokens"], rows: () => rows,
  });
}

function methodTable(run, methods, metrics) {
  const cell = (one) => (one ? h("span", {}, score(one.mean ?? one.pooled), " ", h("span", { class: "soft" }, interval(one))) : "–");
  return table(["method", "people", "unreadable", ...metrics], methods.map((name) => {
    const own = run.methods[name];
    return [name, number(own.users) + (own.failed ? ` (${own.failed} failed)` : ""), number(own.unparsed), ...metrics.map((metric) => cell(own.metrics[metric]))];
  }), { numeric: [1, 2, ...metrics.map((_, place) => place + 3)], caption: "Mean over people [95 % interval]" });
}

function gainTable(run) {
  return table(["method", "metric", "mean difference", "interval", "better", "equal", "worse", "p", "p (Holm)", "effect"],
    run.gains.map((gain) => [h("span", {}, mark(favoured(gain)), " ", gain.b), gain.metric, signed(gain.difference), interval(gain), gain.wins, gain.ties, gain.losses, pText(gain.p), pText(gain.p_holm), signed(gain.effect, 2)]),
    { numeric: [2, 3, 4, 5, 6, 7, 8, 9], caption: `Every method minus ${run.against}, paired over people` });
}

function swapTable(run) {
  const rows = Object.entries(run.swap).flatMap(([method, byMetric]) => Object.entries(byMetric).map(([metric, one]) =>
    [method, metric, score(one.own), score(one.swapped), signed(one.difference), interval(one), one.wins, one.ties, one.losses, pText(one.p), pText(one.p_holm)]));
  return table(["method", "metric", "own", "another's", "difference", "interval", "own better", "equal", "own worse", "p", "p (Holm)"], rows, { numeric: [2, 3, 4, 5, 6, 7, 8, 9, 10], caption: "An own adapter that is no better than another person's is not personal" });
}
