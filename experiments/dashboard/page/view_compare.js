// Compare: two methods of one or two runs, paired over the people of both.

import { chart, diagonal, gainLayout, gainTraces, personPoints, plain } from "./charts.js";
import { choice, h, interval, kindOf, mark, pText, score, signed, table } from "./dom.js";
import { comparePath, fetchDocument } from "./documents.js";
import { address, choose, readAddress } from "./state.js";

const MOST = 10;

export async function compareView() {
  const { query } = readAddress();
  const { runs } = await fetchDocument("api/runs");
  const having = runs.filter((run) => run.headline);
  if (!having.length) return h("p", {}, "No run has results yet.");
  const find = (name) => having.find((run) => run.run === name);
  for (const side of ["left", "right"]) if (query.get(side) && !find(query.get(side))) throw new Error(`Run ${query.get(side)} has no results that can be compared.`);
  const left = find(query.get("left")) ?? having[0];
  const right = find(query.get("right")) ?? left;
  const method = (run, given, preferred) => (given in run.headline.methods ? given : preferred in run.headline.methods ? preferred : Object.keys(run.headline.methods)[0]);
  let [a, b] = [method(left, query.get("a"), left === right ? "direct-ft" : "cdcda"), method(right, query.get("b"), "cdcda")];
  if (left === right && a === b && !query.get("b")) b = Object.keys(right.headline.methods).find((name) => name !== a) ?? b;
  const metric = query.get("metric") ?? "";
  const result = await fetchDocument(comparePath(left.run, a, right.run, b, metric)).then(shown, (error) => h("p", { class: "card error", role: "alert" }, error.message));
  const names = having.map((run) => run.run);
  return h("div", {},
    h("h1", {}, "Compare"),
    h("div", { class: "row" },
      choice("baseline: run", names, left.run, (value) => choose({ left: value })), choice("method", Object.keys(left.headline.methods), a, (value) => choose({ a: value })),
      choice("against it: run", names, right.run, (value) => choose({ right: value })), choice("method", Object.keys(right.headline.methods), b, (value) => choose({ b: value })),
      choice("metric", [["", left.headline.metric], ...left.headline.others], metric, (value) => choose({ metric: value }))),
    differing(left, right), result);
}

function differing(left, right) {
  const keys = Object.keys({ ...left.config, ...right.config }).filter((key) => JSON.stringify(left.config[key]) !== JSON.stringify(right.config[key]));
  return left === right ? "" : h("p", { class: "hint" }, "What differs: ", keys.length ? keys.map((key) => h("span", { class: "key" }, `${key}: ${left.config[key]} → ${right.config[key]}`)) : "no key");
}

function shown(found) {
  const [one, other] = [found.a, found.b];
  const rows = found.people.map((name, row) => ({ name, x: found.left_values[row], y: found.right_values[row], gain: Math.round(found.better * (found.right_values[row] - found.left_values[row]) * 1e6) / 1e6 }));
  const ordered = [...rows].sort((a, b) => b.gain - a.gain);
  const open = (name) => { location.hash = address("person", [found.right.run, name]); };
  const people = (list) => table(["person", one, other, "gain"], list.map((row) => [
    h("span", {}, mark(kindOf(row.gain)), " ", h("a", { href: address("person", [found.right.run, row.name]) }, row.name), found.left.run === found.right.run ? "" : [" (", h("a", { href: address("person", [found.left.run, row.name]) }, `in ${found.left.run}`), ")"]),
    score(row.x), score(row.y), signed(row.gain)]), { numeric: [1, 2, 3] });
  return [
    h("section", { class: "card" }, h("p", { class: "sentence" }, found.sentence), h("p", { class: "sentence" }, found.certainty),
      table(["metric", "people", "mean difference", "95 % interval", "better", "equal", "worse", "p", "effect"], [[found.metric, found.users, signed(found.difference), interval(found), found.wins, found.ties, found.losses, pText(found.p), signed(found.effect, 2)]], { numeric: [1, 2, 3, 4, 5, 6, 7, 8] }),
      h("p", { class: "hint" }, "Effect: rank-biserial correlation, 1 where everybody gains, -1 where everybody loses. One comparison: p needs no correction.")),
    h("div", { class: "cards" },
      chart({
        key: "scatter", title: `${found.metric} per person`, hint: `${found.better > 0 ? "Above" : "Below"} the diagonal: ${other} is better.`, onPoint: open,
        traces: () => [personPoints(rows, (row) => row.x, (row) => row.y)],
        layout: () => ({ xaxis: { title: { text: plain(one) } }, yaxis: { title: { text: plain(other) } }, shapes: [diagonal(rows.flatMap((row) => [row.x, row.y]))] }),
        heads: ["person", one, other, "gain"], rows: () => rows.map((row) => [row.name, row.x, row.y, row.gain]),
      }),
      chart({
        key: "gains", title: "Gain of each person, in order", hint: "Right end: who loses most.", onPoint: open,
        traces: () => gainTraces(ordered), layout: () => gainLayout(`gain in ${found.metric}`),
        heads: ["person", "gain"], rows: () => ordered.map((row) => [row.name, row.gain]),
      })),
    h("div", { class: "cards" },
      h("section", { class: "card" }, h("h2", {}, "Who gains most"), people(ordered.filter((row) => row.gain > 0).slice(0, MOST))),
      h("section", { class: "card" }, h("h2", {}, "Who loses most"), people(ordered.filter((row) => row.gain < 0).reverse().slice(0, MOST)))),
  ];
}
