"""One grid as Markdown, LaTeX, CSV and a terminal's table."""

import csv
import io
from dataclasses import replace

from experiments.paper.grid import Cell, Grid, Row
from experiments.paper.latex import latex
from experiments.paper.render import csv_text, markdown, render

GRID = Grid(
    name="table9",
    title="50% of a_b & c|d",
    heads=("task", "source"),
    columns=("x_1", "y ↑"),
    rows=(
        Row(labels=("lamp-3", "ours"), cells=(Cell(value=0.5, sd=0.1, seeds=3), Cell())),
        Row(labels=("lamp-3", "paper"), cells=(Cell(value=0.25, comparable=False), Cell(value=1.0, comparable=True))),
    ),
    notes=("† of {models}",),
)


def test_markdown_escapes_what_would_break_a_table() -> None:
    assert markdown(GRID) == (
        "**Table 9: 50% of a\\_b & c\\|d**\n\n"
        "| task | source | x\\_1 | y ↑ |\n|---|---|---:|---:|\n"
        "| lamp-3 | ours | 0.500 ± 0.100 (3) | - |\n| lamp-3 | paper | 0.250† | 1.000 |\n\n- † of {models}\n"
    )


def test_latex_is_booktabs_with_everything_escaped() -> None:
    text = latex(GRID)
    assert r"\caption{50\% of a\_b \& c\textbar{}d}" in text
    assert r"task & source & x\_1 & y $\uparrow$ \\" in text
    assert r"lamp-3 & ours & 0.500 $\pm$ 0.100 (3) & - \\" in text
    assert r" & paper & 0.250$^{\dagger}$ & 1.000 \\" in text
    assert r"$^{\dagger}$ of \{models\}" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


def test_latex_sets_what_pdflatex_can_and_spells_out_the_rest() -> None:
    words = "so 😂👍🏽 | “naïve” `quotes` --mixed αβ\ufe0f ≤ 3"
    row = Row(labels=("lamp-7", words), cells=(Cell(value=-0.075, sd=0.01, seeds=2), Cell()))
    text = latex(replace(GRID, rows=(row,)))
    assert (
        r" & so [face with tears of joy][thumbs up sign][emoji modifier fitzpatrick type-4] \textbar{} “naïve” "
        r"\textasciigrave{}quotes\textasciigrave{} -{}-mixed [greek small letter alpha][greek small letter beta] "
        r"[less-than or equal to] 3 & $-$0.075 $\pm$ 0.010 (2) & - \\"
    ) in text
    assert text.splitlines()[0] == (
        r"% Needs \usepackage[T1]{fontenc} and \usepackage{adjustbox,array,booktabs}; written for pdfLaTeX."
    )


def test_latex_wraps_long_texts_and_enlarges_nothing() -> None:
    row = Row(labels=("device", f"{'@Jordan' * 16} and so on"), cells=(Cell(value=0.5), Cell(value=0.25)))
    text = latex(replace(GRID, rows=(row,)))
    assert r"{l>{\raggedright\arraybackslash}p{0.55\textwidth}rr}" in text
    assert r"@Jordan@Jordan@J\allowbreak{}ordan@Jordan@Jor\allowbreak{}" in text
    assert r"\begin{adjustbox}{max width=\textwidth}" in text
    assert "resizebox" not in text


def test_latex_of_more_rows_than_a_page_has_one_table_per_task_and_its_notes_once() -> None:
    rows = [Row(labels=(f"lamp-{2 + n // 40}", f"m{n}"), cells=(Cell(value=n), Cell())) for n in range(80)]
    text = latex(replace(GRID, rows=tuple(rows)))
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    assert r"\caption{50\% of a\_b \& c\textbar{}d (lamp-2)}" in text
    assert r"\label{tab:table9-lamp-3}" in text
    assert all(rf"& m{n} & {n}.000 & -" in text for n in range(80))
    assert text.index(r"of \{models\}") > text.index("(lamp-3)")
    assert text.count(r"of \{models\}") == 1
    # One task alone stays one table, however long.
    alone = [replace(row, labels=("lamp-2", row.labels[1])) for row in rows]
    assert latex(replace(GRID, rows=tuple(alone))).count(r"\begin{table*}") == 1


def test_csv_has_one_line_per_cell_and_no_number_for_what_is_missing() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(GRID))))
    assert len(rows) == 4
    assert rows[0] == {
        "task": "lamp-3",
        "source": "ours",
        "column": "x_1",
        "value": "0.5",
        "sd": "0.1",
        "seeds": "3",
        "comparable": "",
        "notes": "† of {models}",
    }
    assert (rows[1]["value"], rows[1]["seeds"]) == ("", "")
    assert [row["comparable"] for row in rows] == ["", "", "no", "yes"]
    assert [row["notes"] for row in rows[1:]] == ["", "", ""]


def test_csv_names_metrics_without_arrows_and_leaves_a_users_words_alone() -> None:
    words = Row(labels=("mae ↓", "more ↑ please"), cells=(Cell(value=1), Cell(value=2)))
    rows = list(csv.DictReader(io.StringIO(csv_text(replace(GRID, heads=("metric", "answer"), rows=(words,))))))
    assert [(row["metric"], row["answer"], row["column"]) for row in rows] == [
        ("mae", "more ↑ please", "x_1"),
        ("mae", "more ↑ please", "y"),
    ]


def test_the_terminals_table_names_a_task_once() -> None:
    text = render(GRID, "terminal", width=100)
    assert text.count("lamp-3") == 1
    assert "Table 9: 50% of a_b & c|d" in text
    assert "† of {models}" in text


def test_a_narrow_terminal_gets_several_tables_with_whole_numbers() -> None:
    text = render(GRID, "terminal", width=36)
    assert text.count("lamp-3") == 2
    assert text.index("0.500 ± 0.100 (3)") < text.index("y ↑")
    assert all(len(line) <= 36 for line in text.splitlines())
