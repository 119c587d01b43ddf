// Person: the story of one device, from what it has to what it answers.

import { chart, methodStyle, plain } from "./charts.js";
import { bound, counted, h, number, score, table } from "./dom.js";
import { fetchDocument, runPath } from "./documents.js";
import { address, readAddress } from "./state.js";

const LONG = 400;

export async function personView() {
  const { names: [run, name] } = readAddress();
  const person = await fetchDocument(runPath(run, `people/${encodeURIComponent(name)}`));
  const { has } = person;
  return h("div", {},
    h("h1", {}, person.person),
    h("p", { class: "soft" }, "One device of ", h("a", { href: address("run", [run]) }, run), " · ", h("a", { href: address("people", [run], { marked: encodeURIComponent(name) }) }, "mark among all people")),
    !person.texts && h("p", { class: "hint" }, "Texts are private and not in this file."),
    person.failures.map((one) => h("p", { class: "worse" }, `Failed in ${one.phase}: ${one.reason}`)),
    step(1, "What the device has", h("ul", { class: "facts" },
      fact(has.items, "history items"), fact(has.used, "of them used"), fact(has.queries, "held-out examples"), fact(has.shared, `shared (policy: ${has.policy || "–"})`))),
    step(2, "What left it, what came back, and why", messages(person)),
    step(3, "What the cloud wrote, and what the filters said", shared(person)),
    step(4, "What was trained", trained(person)),
    step(5, "What the methods answer", scores(person), answers(person)));
}

const step = (place, title, ...content) => h("section", { class: "card" }, h("h2", {}, `${place}. ${title}`), content);
const fact = (value, what) => h("li", {}, h("b", {}, number(value)), ` ${what}`);

function messages(person) {
  if (!person.messages.length) return h("p", {}, "Nothing yet.");
  return h("ol", { class: "story" }, person.messages.map((one) => h("li", { class: one.direction },
    h("b", {}, one.direction === "up" ? "↑ left the device" : "↓ came from the cloud"), ` in ${one.phase}: ${one.what}`, one.bytes === null ? "" : `, ${number(one.bytes)} bytes in all`,
    one.at.length > 0 && h("span", { class: "hint" }, ` at ${one.at.map((at) => new Date(at).toLocaleTimeString()).join(", ")}`),
    one.fields.length > 0 && h("details", { "data-key": one.reply }, h("summary", { class: "hint" }, `${one.reply}: every field and why it leaves`),
      table(["field", "bound", "why"], one.fields.map((field) => [field.path, field.kind, field.why]))))));
}

function shared(person) {
  if (!person.shared.length) return h("p", {}, "This device shared nothing.");
  const kept = person.shared.flatMap((item) => item.pairs).filter((pair) => pair.kept).length;
  const written = person.shared.reduce((sum, item) => sum + item.pairs.length + item.unparsable.length, 0);
  return h("div", {}, h("p", { class: "sentence" }, `The cloud wrote ${counted(written, "sample")} for ${counted(person.shared.length, "shared item")}; ${counted(kept, "pair")} ${kept === 1 ? "was" : "were"} kept.`),
    byKept(person.shared).map((item, place) => h("details", { "data-key": `shared ${item.id}`, open: item.pairs.some((pair) => pair.kept) || place === 0 },
      h("summary", {}, `Shared item ${item.id}: ${item.pairs.filter((pair) => pair.kept).length} of ${item.pairs.length + item.unparsable.length} samples kept`),
      item.query !== undefined && texts(item),
      item.pairs.map((pair) => h("div", { class: `pair${pair.kept ? " kept" : ""}` },
        h("b", {}, pair.kept ? "▲ kept" : "▼ not kept"), pair.query !== undefined && texts(pair),
        table(["filter", "score", "threshold", "verdict", "reason"], pair.verdicts.map((verdict) => [verdict.filter, score(verdict.score), bound(person.thresholds[verdict.filter]), verdict.keep ? "passes" : "fails", verdict.reason]), { numeric: [1] }))),
      item.unparsable.map((one) => h("p", { class: "hint" }, `A sample that is no pair: ${one.reason}`)))));
}

// What was kept is what a reader looks for.
const byKept = (items) => [...items].sort((a, b) => b.pairs.filter((pair) => pair.kept).length - a.pairs.filter((pair) => pair.kept).length);

const texts = (one) => [one.query && words(one.query), words(one.response)];

function trained(person) {
  if (!person.trainings.length) return h("p", {}, "This device trained no adapter.");
  const rows = person.trainings.filter((one) => one.losses?.length);
  return h("div", {},
    table(["method", "own items", "pairs", "steps", "tokens", "seconds", "first loss", "last loss"], person.trainings.map((one) => [
      one.trained_as === one.method ? one.method : `${one.method} (the adapter of ${one.trained_as}: equal training sets)`, one.private, one.synthetic, one.steps, number(one.tokens), number(one.seconds, 1), score(one.first_loss), score(one.last_loss)]), { numeric: [1, 2, 3, 4, 5, 6, 7] }),
    rows.length > 0 && chart({
      key: "losses", title: "Loss per training step", hint: "Kept on the device only.",
      traces: () => rows.map((one, place) => ({ type: "scatter", mode: "lines+markers", name: plain(one.method), x: one.losses.map((_, at) => at + 1), y: one.losses, ...lineStyle(place) })),
      layout: () => ({ showlegend: true, legend: { orientation: "h", y: 1.15 }, xaxis: { title: { text: "step" }, dtick: Math.max(...rows.map((one) => one.losses.length)) > 10 ? undefined : 1 }, yaxis: { title: { text: "loss" }, rangemode: "tozero" } }),
      heads: ["method", "step", "loss"], rows: () => rows.flatMap((one) => one.losses.map((loss, at) => [one.method, at + 1, loss])),
    }));
}

function lineStyle(place) {
  const { color, symbol } = methodStyle(place);
  return { line: { color }, marker: { color, symbol, size: 7 } };
}

function scores(person) {
  const metrics = [...new Set(Object.values(person.metrics).flatMap((own) => Object.keys(own)))];
  return table(["method", ...metrics, `${person.headline} with another's adapter`], Object.entries(person.metrics).map(([method, own]) => [
    method, ...metrics.map((metric) => score(own[metric])), score(person.swapped[method]?.[person.headline])]), { numeric: [...metrics, ""].map((_, place) => place + 1) });
}

function answers(person) {
  if (!person.questions) return h("p", { class: "hint" }, person.texts ? "The device's folder is not on this machine, or its data were prepared elsewhere, so its private texts cannot be shown." : "");
  return h("div", {}, person.questions.map((question) => h("details", { "data-key": `held-out ${question.id}`, open: true },
    h("summary", {}, `Held-out example ${question.id}`),
    words(question.query),
    table(["method", "answer", person.headline], [["reference", words(question.reference), ""], ...Object.entries(question.answers).map(([method, answer]) => [
      method, h("div", {}, words(differences(answer.output, question.reference)), answer.parsed === null && h("span", { class: "worse" }, "no readable answer")), score(answer.score)])], { numeric: [2] }))),
    h("p", { class: "hint" }, "Words that the reference does not have are marked."));
}

// A long text scrolls in its box, which the keyboard must reach.
function words(text) {
  const isLong = (typeof text === "string" ? text : text.map((part) => part.textContent ?? part).join("")).length > LONG;
  return h("div", { class: "text", dir: "auto", ...(isLong ? { tabindex: "0", role: "group", "aria-label": "A long text" } : {}) }, text);
}

// Marks the words of an answer that the reference does not have.
function differences(text, reference) {
  const known = new Set(reference.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []);
  return text.split(/([\p{L}\p{N}]+)/u).map((part, place) => (place % 2 && !known.has(part.toLowerCase()) ? h("mark", {}, part) : part));
}
