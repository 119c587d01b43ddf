// JSON documents: from the server, or from the page itself where it is one file (`cdcda report --html`).

const held = document.getElementById("documents");
const embedded = held ? JSON.parse(held.textContent) : null;

export const isFile = embedded !== null;

export async function fetchDocument(path) {
  if (embedded) {
    if (path in embedded) return embedded[path];
    throw new Error("This file does not hold that; open the run with `cdcda dashboard`.");
  }
  const response = await fetch(path);
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Error(said.error ?? `The dashboard answered ${response.status}; is it still running?`);
  }
  return response.json();
}

export const runPath = (run, document) => `api/runs/${encodeURIComponent(run)}/${document}`;

export function comparePath(left, leftMethod, right, rightMethod, metric) {
  const query = new URLSearchParams({ left, "left-method": leftMethod, right, "right-method": rightMethod, metric });
  return `api/compare?${query}`;
}
