"""Reads a printed table back, for tests of what a terminal shows."""

import re
from collections.abc import Iterator

from rich.cells import cell_len

from experiments.terminal import Table, as_text


def check_whole(table: Table, width: int) -> None:
    """Every head and cell stands in the text whole, names and numbers on one line, and no line is longer than the width."""
    text = as_text(table, width=width)
    body = (
        text.removeprefix(as_text(Table(columns=(), lines=(), title=table.title), width=width)) if table.title else text
    )
    drawn = list(_columns(body))
    for printed in body.split("\n"):
        assert cell_len(printed) <= width or printed in "\n".join(table.notes), printed
    found = [_squeezed(text) for text in drawn or [body]]
    for place, column in enumerate(table.columns):
        assert any(_squeezed(column.head) in text for text in found), (column.head, text)
        for line in table.lines:
            cell = line.cells[place]
            assert any(_squeezed(cell) in text for text in found), (cell, text)
            # In a list the head stands before it.
            if not column.prose and cell_len(f"{column.head}: {cell}") <= width:
                # White space at its ends shows nothing.
                assert cell.strip() in body, (cell, text)


def _columns(text: str) -> Iterator[str]:
    """Yields the text of each column of each drawn table."""
    for part in re.split("[└┴┘─]+\n", text):
        rows = [re.split("[│┃]", line)[1:-1] for line in part.split("\n") if line[:1] in {"│", "┃"}]
        yield from ("".join(cells) for cells in zip(*rows, strict=True))


def _squeezed(text: str) -> str:
    # A text without a width shows nothing, and a column of such texts is not drawn.
    return re.sub(r"\s", "", text) if cell_len(text) else ""
