// Chooses the view by the address, and follows running runs by the server's events.

import { h, number } from "./dom.js";
import { fetchEvents, isFile, takeToken } from "./documents.js";
import { renew } from "./renew.js";
import { address, readAddress, store, stored } from "./state.js";
import { compareView } from "./view_compare.js";
import { filtersView } from "./view_filters.js";
import { peopleView } from "./view_people.js";
import { personView } from "./view_person.js";
import { runView } from "./view_run.js";
import { runsView } from "./view_runs.js";

const VIEWS = { runs: runsView, run: runView, people: peopleView, person: personView, filters: filtersView, compare: compareView };
const REFRESH_MS = 5000;
const RETRY_MS = 3000;
const main = document.getElementById("main");
const states = new Map();
let drawn = null;
let turn = 0;
let last = "";
let lastRun = null;
let refreshAt = 0;

const render = () => (drawn = draw());

async function draw() {
  takeToken();
  const mine = (turn += 1);
  const { view, names } = readAddress();
  tabs(view, names[0]);
  const place = `${view}/${names.join("/")}`;
  try {
    const page = await (VIEWS[view] ?? runsView)();
    if (mine !== turn) return;
    const height = scrollY;
    // Plotly listens to the window for each figure until it is told that the figure has gone.
    for (const figure of main.querySelectorAll(".js-plotly-plot")) window.Plotly.purge(figure);
    if (place === last) {
      renew(main, page);
      scrollTo(0, height);
    } else main.replaceChildren(page);
  } catch (error) {
    if (mine !== turn) return;
    main.replaceChildren(h("section", { class: "card error", role: "alert" }, h("h1", {}, "This cannot be shown"), h("p", {}, error.message)));
  }
  document.title = [...names, view, "cdcda dashboard"].join(" · ");
  if (place !== last) scrollTo(0, 0);
  last = place;
  showStates();
}

function tabs(view, run) {
  const open = run ?? lastRun;
  lastRun = open;
  const links = [["runs", "Runs", address("runs")], ...(open ? [["run", "Run", address("run", [open])], ["people", "People", address("people", [open])], ["filters", "Filters", address("filters", [open])]] : []), ["compare", "Compare", address("compare", [], open ? { left: open } : {})]];
  renew(document.getElementById("tabs"), ...links.map(([name, label, href]) => h("a", { href, "data-key": name, "aria-current": name === view || (name === "people" && view === "person") ? "page" : null }, label)));
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function progress(state) {
  if (state.status !== "running" || !state.phase) return state.status === "running" ? "starting" : "";
  const speed = state.tokens_per_second >= 1 ? `, ${number(state.tokens_per_second, 0)} tokens/s` : "";
  const left = state.seconds_left === null ? "" : `, about ${clock(state.seconds_left)} left`;
  const failed = state.failures.length ? `, ${number(state.failures.length)} failed` : "";
  return `${state.phase}: ${number(state.done)} of ${number(state.total)}${left}${speed}${failed}`;
}

function showStates() {
  for (const element of document.querySelectorAll("[data-live]")) {
    const state = states.get(element.dataset.live);
    if (state) element.textContent = progress(state);
  }
  const running = [...states.values()].filter((state) => state.status === "running");
  const live = document.getElementById("live");
  live.hidden = running.length === 0;
  live.textContent = running.map((state) => `${state.run} is running. ${progress(state)}`).join("  ·  ");
}

async function follow() {
  try {
    for await (const state of fetchEvents("api/events")) await tell(state);
  } catch (error) {
    console.warn("The line to the dashboard is lost:", error);
  }
  setTimeout(follow, RETRY_MS);
}

async function tell(state) {
  const before = states.get(state.run);
  states.set(state.run, state);
  showStates();
  // Whether a run is listed can be seen once the list is there.
  await drawn;
  const { view, names } = readAddress();
  const concerns = view === "runs" || names[0] === state.run;
  const isNew = view === "runs" && !main.querySelector(`[data-live="${CSS.escape(state.run)}"]`);
  const isNews = before && (before.status !== state.status || before.results !== state.results || before.failures?.length !== state.failures?.length);
  if (isNew || (isNews && concerns)) refresh(before && before.status !== state.status);
}

// New results are drawn at most every few seconds, an end at once.
function refresh(atOnce) {
  const wait = atOnce ? 0 : Math.max(0, refreshAt + REFRESH_MS - Date.now());
  if (refreshAt > Date.now() && !atOnce) return;
  refreshAt = Date.now() + wait;
  setTimeout(render, wait);
}

function theme(chosen) {
  document.documentElement.dataset.theme = chosen;
  store("theme", chosen);
}

theme(stored("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => { theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); render(); });
window.addEventListener("hashchange", render);
// The address names views, so a link within the page is no address.
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
render();
if (!isFile) follow();
