// The address: which view, which run, and every selection. A copied link shows a colleague the same.

export function readAddress() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view = "runs", ...names] = path.split("/").map(decodeURIComponent);
  return { view: view || "runs", names, query: new URLSearchParams(query) };
}

export function address(view, names = [], query = {}) {
  const set = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(set).toString();
  return `#/${[view, ...names].map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

// Changes selections in the address without a new entry in the history.
export function keep(changes) {
  const { view, names, query } = readAddress();
  for (const [key, value] of Object.entries(changes)) value === "" || value === null ? query.delete(key) : query.set(key, value);
  const next = address(view, names, Object.fromEntries(query));
  // A slider changes it often, and a browser may refuse after a hundred times in a few seconds.
  try { history.replaceState(null, "", next); } catch { /* the next change keeps it */ }
}

// Changes selections and draws the view anew.
export function choose(changes) {
  keep(changes);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

// A file, or a browser that keeps nothing, has no storage; then a value lasts as long as the page.
const values = new Map();
export function store(key, value) {
  values.set(key, value);
  try { localStorage.setItem(key, value); } catch { /* see above */ }
}

export function stored(key) {
  let found = null;
  try { found = localStorage.getItem(key); } catch { /* see above */ }
  return found ?? values.get(key) ?? null;
}

export const listIn = (query, key) => (query.get(key) ?? "").split(",").filter(Boolean).map(decodeURIComponent);
export const listText = (values) => [...values].map(encodeURIComponent).join(",");
