// JSON documents: from the server, or from the page itself where it is one file (`cdcda report --html`).

import { store, stored } from "./state.js";

const held = document.getElementById("documents");
const embedded = held ? JSON.parse(held.textContent) : null;

export const isFile = embedded !== null;

// The printed link holds the token after the #, which a browser sends to nobody; from the address it goes at once, so that a
// copied address does not hold it. It is kept for all tabs, as a link may be opened in a new one: only this port's pages can
// read it, and it opens nothing once its server has ended.
export function takeToken() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (!given) return;
  store("token", given[1]);
  history.replaceState(null, "", location.pathname);
}

const ask = (path) => fetch(path, { headers: { authorization: `Bearer ${stored("token")}` } });

export async function fetchDocument(path) {
  if (embedded) {
    if (path in embedded) return embedded[path];
    throw new Error("This file does not hold that; open the run with `cdcda dashboard`.");
  }
  const response = await ask(path);
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Error(said.error ?? `The dashboard answered ${response.status}; is it still running?`);
  }
  return response.json();
}

// Server-sent events until the line is lost. An EventSource sends no headers.
export async function* fetchEvents(path) {
  const reader = (await ask(path)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const events = (rest + part.value).split("\n\n");
    rest = events.pop();
    for (const event of events) if (event.startsWith("data: ")) yield JSON.parse(event.slice(6));
  }
}

export const runPath = (run, document) => `api/runs/${encodeURIComponent(run)}/${document}`;

export function comparePath(left, leftMethod, right, rightMethod, metric) {
  const query = new URLSearchParams({ left, "left-method": leftMethod, right, "right-method": rightMethod, metric });
  return `api/compare?${query}`;
}
