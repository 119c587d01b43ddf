// A table of any length: only the rows in sight are in the page.

import { csv, download, h, number } from "./dom.js";
import { renew } from "./renew.js";

const ROW = 30;
const WIDTH = 90;

export function grid({ label, columns, count, value, cell, key, marked, onMark, sort, onSort, name }) {
  const data = columns.filter((column) => column.key !== "mark");
  const names = data.filter((column) => !column.numeric);
  let order = Uint32Array.from({ length: count }, (_, row) => row);
  const pixels = columns.map((column) => column.width ?? WIDTH);
  const fit = (line) => {
    line.style.gridTemplateColumns = pixels.map((width) => `minmax(${width}px, ${width}fr)`).join(" ");
    line.style.minWidth = `${pixels.reduce((sum, width) => sum + width)}px`;
    return line;
  };
  const slice = h("div", { class: "slice", role: "rowgroup" });
  const body = h("div", { class: "body" }, slice);
  const said = h("span", { class: "hint" });
  let sorted = sort;

  const headOf = (column, place) => {
    const isSorted = sorted?.column === column.key;
    return h("div", { role: "columnheader", "data-key": column.key, class: column.numeric ? "n" : "", "aria-sort": isSorted ? (sorted.up ? "ascending" : "descending") : "none" },
      h("button", { type: "button", onclick: () => sortBy(place) }, `${column.head}${isSorted ? (sorted.up ? " ↑" : " ↓") : ""}`));
  };
  const head = h("div", { class: "line head", role: "row" });
  const box = h("div", { class: "grid", role: "table", "aria-label": label, tabindex: "0" }, h("div", { role: "rowgroup" }, head), body);

  function sortBy(place) {
    const column = columns[place];
    sorted = { column: column.key, up: sorted?.column === column.key ? !sorted.up : !column.numeric };
    onSort?.(sorted);
    arrange();
  }

  function arrange(keepRow = current) {
    current = keepRow;
    const rows = [];
    for (let row = 0; row < count; row += 1) if (keepRow(row)) rows.push(row);
    const column = columns.find((one) => one.key === sorted?.column);
    if (column) {
      const values = rows.map((row) => value(row, column.key));
      const places = rows.map((_, place) => place);
      const direction = sorted.up ? 1 : -1;
      places.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (x === y) return a - b;
        if (x === null || x === undefined) return 1;
        if (y === null || y === undefined) return -1;
        return (x < y ? -1 : 1) * direction;
      });
      order = Uint32Array.from(places, (place) => rows[place]);
    } else order = Uint32Array.from(rows);
    renew(head, ...columns.map(headOf));
    fit(head);
    body.style.height = `${order.length * ROW}px`;
    box.setAttribute("aria-rowcount", String(order.length + 1));
    said.textContent = `${number(order.length)} of ${number(count)} rows`;
    paint();
  }

  function paint() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
    const last = Math.min(order.length, first + Math.ceil((box.clientHeight || 420) / ROW) + 16);
    slice.style.top = `${first * ROW}px`;
    renew(slice, ...Array.from({ length: last - first }, (_, offset) => line(order[first + offset], first + offset)));
  }

  function line(row, place) {
    const isMarked = marked?.has(key(row));
    const element = h("div", { class: `line${isMarked ? " marked" : ""}`, role: "row", "aria-rowindex": place + 2, "data-key": names.map((column) => value(row, column.key)).join(" ") },
      columns.map((column) => h("div", { role: "cell", class: column.numeric ? "n" : "" },
        column.key === "mark"
          ? h("input", { type: "checkbox", checked: Boolean(isMarked), "aria-label": `Mark ${key(row)}`, onchange: () => onMark(key(row)) })
          : cell(row, column.key))));
    return fit(element);
  }

  let current = () => true;
  // A browser tells of scrolling once a frame.
  box.addEventListener("scroll", paint);
  const save = () => download(`${name}.csv`, csv(data.map((column) => column.head), Array.from(order, (row) => data.map((column) => value(row, column.key)))), "text/csv");
  const whole = h("div", {}, h("div", { class: "row" }, said, h("button", { class: "small", type: "button", onclick: save }, "CSV")), box);
  requestAnimationFrame(paint);
  return { element: whole, filter: arrange, repaint: paint };
}
