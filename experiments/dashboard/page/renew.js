// Draws a part of the page anew, and keeps what its reader holds: what is open, what is scrolled, the focus and the selected text.

const HOLDS = "a, button, input, select, details, summary, [tabindex]";

// An element is found again by the nearest `data-key`, its tag, and its name or address; equal ones by their order.
function holds(root) {
  const found = new Map();
  for (const element of root.querySelectorAll(HOLDS)) {
    const own = [element.closest("[data-key]")?.dataset.key, element.tagName, element.getAttribute("aria-label") ?? element.getAttribute("href")].join(" ");
    let place = 0;
    while (found.has(`${own} ${place}`)) place += 1;
    found.set(`${own} ${place}`, element);
  }
  return found;
}

const holding = (element) => ({
  isOpen: element.open, isExpanded: element.getAttribute("aria-expanded") === "true", top: element.scrollTop, left: element.scrollLeft,
  isFocused: element === document.activeElement, selected: [element.selectionStart, element.selectionEnd, element.selectionDirection],
});

function reopen(element, { isOpen, isExpanded }) {
  if (element.tagName === "DETAILS") element.open = isOpen;
  if (isExpanded && element.getAttribute("aria-expanded") === "false") element.click();
}

function rescroll(element, { top, left }) {
  if (!top && !left) return;
  element.scrollTop = top;
  element.scrollLeft = left;
  // The browser tells it with the next frame, and a table has only the rows in sight.
  element.dispatchEvent(new Event("scroll"));
}

function refocus(element, { isFocused, selected }) {
  if (!isFocused) return;
  element.focus({ preventScroll: true });
  if (typeof selected[0] === "number") element.setSelectionRange(...selected);
}

export function renew(root, ...children) {
  const before = [...holds(root)].map(([key, element]) => [key, holding(element)]);
  root.replaceChildren(...children);
  // In this order: only what is open scrolls, and only what is there has the focus.
  for (const mend of [reopen, rescroll, refocus]) {
    const now = holds(root);
    for (const [key, was] of before) if (now.has(key)) mend(now.get(key), was);
  }
}
