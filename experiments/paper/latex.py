"""One grid as LaTeX (booktabs)."""

import re
from collections.abc import Sequence
from dataclasses import replace

from experiments.paper.grid import Cell, Grid, grouped
from experiments.unicode import spelled

_NEEDS = r"""% Needs \usepackage[T1]{fontenc} and \usepackage{adjustbox,array,booktabs}; written for pdfLaTeX.
% A character that it cannot set, such as an emoji, stands as its Unicode name in brackets.
"""
# A float cannot be broken over pages, and a page holds some 75 lines of a table of full width with its notes.
_ROWS_OF_A_PAGE = 60
# Longer labels, such as users' answers, are set as paragraphs.
_LONG = 40
_PARAGRAPH = r">{\raggedright\arraybackslash}p{0.55\textwidth}"
_BREAK = "\u200b"
_ESCAPED = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "`": r"\textasciigrave{}",
        "|": r"\textbar{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "†": r"$^{\dagger}$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        _BREAK: r"\allowbreak{}",
    }
)
# What pdfLaTeX sets in T1 beyond ASCII: tried, character by character, with TeX Live 2022.
_T1 = ({chr(code) for code in range(0xA1, 0x17F)} - set("\xadĦħĸĿŀŉŦŧ")) | set("‘’‚“”„‹›–—…•€™‡")


def latex(grid: Grid) -> str:
    """Returns a `table*`, which is narrowed where it is wider than the page.

    More rows than a page holds are one `table*` per first label (a task), the notes below the last.
    """
    return _NEEDS + "\n".join(map(_float, _pages(grid)))


def _pages(grid: Grid) -> list[Grid]:
    first = list(dict.fromkeys(row.labels[0] for row in grid.rows))
    if len(grid.rows) <= _ROWS_OF_A_PAGE or len(first) < 2:
        return [grid]
    return [
        replace(
            grid,
            name=f"{grid.name}-{label}",
            title=f"{grid.title} ({label})",
            rows=tuple(row for row in grid.rows if row.labels[0] == label),
            notes=grid.notes if label == first[-1] else (),
        )
        for label in first
    ]


def _float(grid: Grid) -> str:
    long = [any(len(row.labels[place]) > _LONG for row in grid.rows) for place in range(len(grid.heads))]
    shape = "".join(_PARAGRAPH if is_long else "l" for is_long in long) + "r" * len(grid.columns)
    lines = [
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_text(grid.title)}}}",
        rf"\label{{tab:{grid.name}}}",
        r"\begin{adjustbox}{max width=\textwidth}",
        rf"\begin{{tabular}}{{{shape}}}",
        r"\toprule",
        _line([_text(head) for head in (*grid.heads, *grid.columns)]),
        r"\midrule",
    ]
    for last, row, labels in grouped(grid.rows):
        texts = [_text(_breakable(x) if is_long else x) for x, is_long in zip(labels, long, strict=True)]
        lines.append(_line([*texts, *map(_number, row.cells)]))
        lines += [r"\midrule"] if last and row is not grid.rows[-1] else []
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}"]
    notes = [rf"{{\footnotesize\raggedright {_text(note)}\par}}" for note in grid.notes]
    lines += [r"\par\smallskip", *notes] if notes else []
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _number(cell: Cell) -> str:
    text = _text(cell.text())
    return f"$-${text[1:]}" if cell.value is not None and text.startswith("-") else text


def _breakable(text: str) -> str:
    """Returns the text with places where a long word may be broken."""
    return re.sub(r"\S{16}(?=\S)", rf"\g<0>{_BREAK}", text)


def _text(text: str) -> str:
    # TeX makes one dash of two.
    return spelled(text, _shows).translate(_ESCAPED).replace("--", "-{}-")


def _shows(character: str) -> bool:
    return " " <= character <= "~" or character in _T1 or ord(character) in _ESCAPED
