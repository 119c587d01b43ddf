"""What an adapter learned of a synthetic persona, in words: how often its answers show each of the persona's traits."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from cdcda_flower.data.personas import Author, authors_of
from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import predictions_file
from cdcda_flower.statistics import LEVEL, intervals_over_users
from experiments.paper.cells import data_notes, run_notes
from experiments.paper.comparison import first_counts, repeated
from experiments.paper.grid import Cell, Grid, Row
from experiments.paper.paper_runs import PaperRun
from experiments.reports.predictions import held_out, read_predictions

# (trait, column) -> person -> the mean over the person's answers that can show the trait.
_Shown = dict[tuple[str, str], dict[str, float]]


def traits(runs: Sequence[PaperRun], mixed: Sequence[str] = ()) -> Grid:
    """Returns one row per task, trait and method; raises BadInputError for runs over other data than the embedded corpus."""
    real = [run.name for run in runs if not run.manifest.synthetic]
    if real:
        raise BadInputError(
            f"--traits: {', '.join(real)} is not over embedded data; nobody knows the traits of real people"
        )
    rows = []
    for task in sorted({run.config.task for run in runs}):
        found: _Shown = {}
        for run in runs:
            if run.config.task == task:
                _add(found, run)
        intervals = intervals_over_users([list(own.values()) for own in found.values()])
        for ((trait, column), own), interval in zip(found.items(), intervals, strict=True):
            cells = (Cell(value=len(own), digits=0), *(Cell(value=number) for number in interval))
            rows.append(Row(labels=(task, trait, column), cells=cells))
        rows.sort(key=lambda row: row.labels[:2])
    return Grid(
        name="traits",
        title="how much of each trait of a persona the answers show",
        heads=("task", "trait", "method"),
        columns=("people", "share", "low", "high"),
        rows=tuple(rows),
        notes=(
            *data_notes(runs),
            f"share: of the answers that can show the trait, mean over people, with its {LEVEL:.0%} bootstrap interval. "
            "Personas of two seeds are different people. 1: as the traits imply, without the slips of a person.",
            *first_counts(repeated(runs)),
            *run_notes(runs, mixed=mixed),
        ),
    )


def _add(found: _Shown, run: PaperRun) -> None:
    """Adds each person's share of each trait under each method of a run."""
    task, split = run.config.chosen_task, run.config.query_split
    authors = _authors(run)
    asked = {
        user: _same_questions(
            run,
            user,
            {query: draft.input for query, draft in zip(author.query_ids(split), author.queries[split], strict=True)},
        )
        for user, author in authors.items()
    }
    for method, results in run.own.items():
        for user in sorted(results):
            author = authors[user]
            drafts = dict(zip(author.query_ids(split), author.queries[split], strict=True))
            file = predictions_file(run.folder.devices / user, method)
            if not file.is_file():
                raise BadInputError(
                    f"--traits reads the devices' answers, and {file} is not there; give whole run folders"
                )
            shown: dict[str, list[float]] = {}
            answers = read_predictions(file)
            if {one.example_id for one in answers} != asked[user]:
                raise BadInputError(
                    f"--traits: {file} has not one answer to each of the user's questions; copy the run's folder again"
                )
            for one in answers:
                answer = one.parsed if one.parsed is not None else "" if task.labels else one.output
                for trait, share in author.persona.shown(drafts[one.example_id], answer).items():
                    shown.setdefault(trait, []).append(share)
            for trait, shares in shown.items():
                own = found.setdefault((trait, run.column(method)), {})
                # Of several runs of one seed the first given counts.
                own.setdefault(f"{user} of seed {run.config.seed}", fmean(shares))


def _same_questions(run: PaperRun, user: str, drawn: Mapping[str, str]) -> set[str]:
    """Returns the ids of a user's questions; raises BadInputError where they are not those that the seed draws by today's code."""
    stored = held_out(run.manifest, user)
    if stored is None:
        raise BadInputError(
            f"--traits: the prepared data of {run.name} are not here ({run.manifest.prepared or 'not named'}); run it anew"
        )
    task = run.config.chosen_task
    for example in stored:
        asked, own = (task.parts(text).text.split() for text in (example.query, drawn.get(example.id, "")))
        # max-words may have cut the stored one.
        if asked != own[: len(asked)]:
            raise BadInputError(
                f"--traits: {run.name} asked {user} something else than the corpus of seed {run.config.seed} does; the "
                "data were prepared with another seed, or by an older version: run it anew"
            )
    return {example.id for example in stored}


def _authors(run: PaperRun) -> Mapping[str, Author]:
    """Returns the personas of a run's users, drawn anew: they follow from task, seed and number alone."""
    users = {user for results in run.own.values() for user in results}
    last = max(int(user.removeprefix("syn")) for user in users)
    corpus = authors_of(run.config.chosen_task, users=last + 1, seed=run.config.seed)
    return {author.user_id: author for author in corpus if author.user_id in users}
