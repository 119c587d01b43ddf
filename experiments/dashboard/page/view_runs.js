// Runs: what there is, how it ended, its headline, and what differs between the configs.

import { h, interval, number, score } from "./dom.js";
import { fetchDocument } from "./documents.js";
import { address, keep, listIn, listText, readAddress } from "./state.js";

const MOST_KEYS = 8;

export async function runsView() {
  const { query } = readAddress();
  const { runs } = await fetchDocument("api/runs");
  const chosen = new Set(listIn(query, "select").filter((name) => runs.some((run) => run.run === name)));
  const compare = h("button", { type: "button", onclick: () => open([...chosen]) }, "Compare the two selected runs");
  const differing = keysThatDiffer(runs);

  const mark = (name, isOn) => {
    isOn ? chosen.add(name) : chosen.delete(name);
    keep({ select: listText(chosen) });
    compare.disabled = chosen.size !== 2;
  };
  const open = ([left, right]) => { location.hash = address("compare", [], { left, right }); };
  compare.disabled = chosen.size !== 2;

  const line = (run) => h("tr", {},
    h("td", {}, h("input", { type: "checkbox", checked: chosen.has(run.run), "aria-label": `Select ${run.run}`, onchange: (event) => mark(run.run, event.target.checked) })),
    h("td", { class: "name" }, h("a", { href: address("run", [run.run]) }, run.run), run.synthetic && h("div", { class: "hint" }, run.control ? "synthetic personas; positive control: no real cloud" : "synthetic personas")),
    h("td", {}, badge(run.status), h("div", { class: "hint", "data-live": run.run })),
    h("td", { class: "short" }, run.task ?? ""),
    h("td", { class: "n" }, number(run.people)),
    h("td", { class: "n" }, number(run.minutes, 1)),
    h("td", {}, headline(run)),
    differing.length > 0 && h("td", {}, differing.map((key) => h("span", { class: "key" }, `${key} = ${run.config?.[key] ?? "–"}`))));

  const heads = ["", "run", "status", "task", "people", "minutes", "headline metric, mean over people [95 % interval]", ...(differing.length ? ["what differs"] : [])];
  return h("div", {},
    h("h1", {}, runs.length === 1 ? "1 run" : `${number(runs.length)} runs`),
    runs.length ? "" : h("p", {}, "There is no run here yet. Start one: cdcda run experiments/conf/quick.toml"),
    runs.length > 1 && h("div", { class: "row" }, compare, h("span", { class: "hint" }, "Select two runs of one task over the same people.")),
    h("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": "Runs" },
      h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: ["people", "minutes"].includes(head) ? "n" : "" }, head)))), h("tbody", {}, runs.map(line)))));
}

export const badge = (status) => h("span", { class: `badge ${status}` }, status);

function headline(run) {
  if (run.doubles?.length) return h("span", { class: "hint" }, `test doubles (${run.doubles.join(", ")}): the numbers mean nothing and are not shown`);
  const failed = run.error && h("div", { class: "worse" }, run.error.split("\n")[0].slice(0, 200));
  // A run that finished has results beside the names of those who failed.
  if (run.error && run.status !== "finished") return failed;
  if (!run.headline) return h("span", { class: "hint" }, "no results yet");
  const { metric, better, methods } = run.headline;
  const best = Object.entries(methods).sort(([, a], [, b]) => better * (b.mean - a.mean));
  return h("div", {}, failed, h("span", { class: "hint" }, `${metric}, ${better > 0 ? "higher" : "lower"} is better`),
    best.slice(0, 4).map(([name, one]) => h("div", {}, `${name} ${score(one.mean)} `, h("span", { class: "soft" }, interval(one)))),
    best.length > 4 && h("div", { class: "hint" }, `and ${best.length - 4} more`));
}

function keysThatDiffer(runs) {
  const configs = runs.map((run) => run.config).filter(Boolean);
  const keys = new Set(configs.flatMap((config) => Object.keys(config)));
  return [...keys].filter((key) => new Set(configs.map((config) => JSON.stringify(config[key]))).size > 1).slice(0, MOST_KEYS);
}
