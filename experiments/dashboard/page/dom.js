// Elements. Text of users and models reaches the page only as text nodes: nothing here, or anywhere, parses HTML.

export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// `toLocaleString` makes a format for every call, which takes forty times as long.
const formats = new Map();
export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (!formats.has(digits)) formats.set(digits, new Intl.NumberFormat("en", { maximumFractionDigits: digits }));
  return formats.get(digits).format(value);
}

export const counted = (count, what) => `${number(count)} ${what}${count === 1 ? "" : "s"}`;

// Scores stand below each other with equally many decimals.
export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

export const signed = (value, digits = 3) => (value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + value.toFixed(digits));

export const interval = (one) => (one && one.low !== undefined ? `[${score(one.low)}, ${score(one.high)}]` : "");

export const pText = (p) => (p === null || p === undefined ? "–" : p < 0.0001 ? "< 0.0001" : p.toFixed(4));

export const kindOf = (gain) => (gain > 0 ? "better" : gain < 0 ? "worse" : "equal");

// The direction of a gain has a shape as well as a colour.
const SIGNS = { better: "▲", worse: "▼", equal: "●", "not shown": "●" };
export const mark = (kind) => h("span", { class: kind === "not shown" ? "equal" : kind, title: kind }, SIGNS[kind]);

// What a filter keeps, in words.
export function bound(limits) {
  if (!limits) return "–";
  if (limits.low !== undefined && limits.high !== undefined) return `${limits.low} to ${limits.high}`;
  return limits.low !== undefined ? `at least ${limits.low}` : `at most ${limits.high}`;
}

export function table(heads, rows, { caption = "", numeric = [] } = {}) {
  const kind = (place) => (numeric.includes(place) ? "n" : place ? "" : "name");
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || "table" },
    h("table", {},
      caption && h("caption", { class: "hint" }, caption),
      h("thead", {}, h("tr", {}, heads.map((head, place) => h("th", { class: kind(place), scope: "col" }, head)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, place) => h("td", { class: kind(place) }, cell)))))));
}

export function choice(label, values, chosen, onChange) {
  const select = h("select", { onchange: () => onChange(select.value) },
    values.map((value) => {
      const [key, shown] = Array.isArray(value) ? value : [value, value];
      return h("option", { value: key, selected: key === chosen }, shown);
    }));
  return h("label", {}, label, select);
}

export function download(name, text, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A cell that begins like a formula would be run by a spreadsheet.
export function csv(heads, rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [heads, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
