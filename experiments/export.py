"""A trained adapter out of a run's folder, written for another program and re-scored (docs/how-to/take-an-adapter-with-you.md)."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError, DataError, RunError
from cdcda_flower.files import private_files, whole_folder
from cdcda_flower.key_rules import expanded
from cdcda_flower.models.exports.agreement import Agreement, compare, tolerance_of
from cdcda_flower.models.exports.personal import Dtype, ExportFormat, PersonalModel, check_format
from cdcda_flower.models.requests import StoredAdapter
from cdcda_flower.models.sources import files_digest, is_local
from cdcda_flower.runs.folder import RunFolder, adapter_folder, predictions_file
from cdcda_flower.tasks.metrics import answer_sums, pool, values
from cdcda_flower.types import Example, Prediction, TrainingReport
from experiments.model_card import Card, card_text, modelfile
from experiments.reports.predictions import held_out, read_predictions
from experiments.reports.report import OpenedRun, open_run
from experiments.terminal import Terminal

# Of users, where there are hundreds.
_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOrder:
    """Whose adapter under which method goes where, and how it is written; `user` is "" for the one that all share."""

    user: str
    method: str
    to: Path
    form: ExportFormat
    dtype: Dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A checked order: the run, the training and its adapter, the held-out examples and what the run answered to each."""

    run: OpenedRun
    config: RunConfig
    order: ExportOrder
    training: TrainingReport
    personal: PersonalModel
    items: Sequence[tuple[Example, Prediction]]

    @property
    def retrieval(self) -> bool:
        """Whether the run put items of the history before each question, which an export does not have."""
        return any(m.retrieval for m in self.config.chosen_methods if m.name == self.order.method)

    def score(self, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """Returns the task's metrics of answers to the held-out examples, but for those that need an encoder."""
        golds = {example.id: example.response for example, _ in self.items}
        return values(self.run.task, answer_sums(self.run.task, predictions, golds))


@private_files()
def export(folder: RunFolder, order: ExportOrder, terminal: Terminal) -> None:
    """Writes the export; one whose answers are no longer the run's is removed, with a RunError."""
    run = open_run(folder)
    config = RunConfig.from_flwr(run.manifest.config)
    training = _training(run, order)
    personal = _personal(run, config, training)
    check_format(personal, order.form)
    job = _Job(
        run=run, config=config, order=order, training=training, personal=personal, items=tuple(_items(run, order))
    )
    to = expanded(order.to).absolute()
    _check_place(to, personal, order.dtype)
    # torch takes seconds to import, which bad input need not wait for.
    from cdcda_flower.models.exports.write import write

    with whole_folder(to) as draft:
        terminal.say(f"writing {order.form} in {order.dtype}")
        write(order.form, personal, order.dtype, draft)
        terminal.say(f"answering {len(job.items)} held-out items with it")
        agreement, score = _checked(job, draft)
        card = _card(job, agreement, score)
        (draft / "README.md").write_text(card_text(card), encoding="utf-8")
        if order.form.startswith("gguf"):
            (draft / "Modelfile").write_text(modelfile(card), encoding="utf-8")
        _check_new(to)
    terminal.say(str(agreement))


def _training(run: OpenedRun, order: ExportOrder) -> TrainingReport:
    """Returns the training of the adapter that is asked for; raises BadInputError with what there is."""
    trainings = run.ledger.trainings()
    found = {(report.adapter.user_id, report.adapter.method): report for report in trainings}
    if report := found.get((order.user, order.method)):
        return report
    shared = [method for user, method in found if not user]
    users = sorted({user for user, _ in found if user})
    if order.user and order.method in shared:
        raise BadInputError(f"{order.method} has one adapter for all users; leave --user out")
    if order.method not in {method for _, method in found}:
        known = ", ".join(dict.fromkeys(method for _, method in found)) or "none"
        raise BadInputError(
            f"method {order.method!r} has no adapter in run {run.manifest.run}; methods that have one: {known}"
        )
    own = sorted(user for user, method in found if method == order.method)
    listed = ", ".join(own[:_LISTED]) + (f" and {len(own) - _LISTED} more" if len(own) > _LISTED else "")
    if not order.user:
        raise BadInputError(f"{order.method} has an adapter for each user; give --user, one of {listed}")
    what = f"no adapter of {order.method}" if order.user in users else "no trained adapter"
    raise BadInputError(f"user {order.user!r} has {what} in run {run.manifest.run}; users that have one: {listed}")


def _personal(run: OpenedRun, config: RunConfig, training: TrainingReport) -> PersonalModel:
    """Returns the adapter with the M_base that it was trained over, both still as the run left them."""
    adapter = training.adapter
    home = run.folder.devices / adapter.user_id
    folder = adapter_folder(home, adapter.trained_as) if adapter.user_id else run.folder.pooled
    file = folder / "adapter_config.json"
    try:
        base = Path(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{file} cannot be read as an adapter's configuration; copy the run's whole folder, or run anew"
        ) from error
    if not (base / "config.json").is_file():
        raise DataError(
            f"M_base is no longer at {base}, where the run left it; copy it there again, or run the configuration anew, "
            "which trains it again"
        )
    weights = run.manifest.base_weights
    if weights and files_digest(base.glob("*.safetensors")) != weights:
        raise DataError(f"the weights in {base} are not those of the run's M_base; delete the folder, and run anew")
    as_published = config.base_epochs == 0 and not is_local(config.device_model) and config.quantization == "none"
    return PersonalModel(
        base=base,
        published=config.device_model if as_published else "",
        quantization=config.quantization,
        adapter=StoredAdapter(path=str(folder), weights_digest=adapter.weights_digest),
        rank=config.lora_rank,
        alpha=config.lora_alpha,
    )


def _items(run: OpenedRun, order: ExportOrder) -> Iterable[tuple[Example, Prediction]]:
    """Yields each held-out example of the user, or of all users, with what the run answered under the method."""
    answered = run.own.get(order.method, {})
    users = [order.user] if order.user else sorted(answered)
    if not answered or any(user not in answered for user in users):
        raise DataError(
            f"run {run.manifest.run} has no result under {order.method} to compare an export with; its status is "
            f'"{run.manifest.status}": run anew'
        )
    for user in users:
        queries, file = held_out(run.manifest, user), predictions_file(run.folder.devices / user, order.method)
        if queries is None or not file.is_file():
            lack = "answers" if queries else "held-out examples"
            raise DataError(
                f"the {lack} of user {user!r}, on which an export is re-scored, are not on this machine; copy the run's whole "
                f"folder and {run.manifest.prepared or 'its prepared data'}, or run anew"
            )
        answers = {answer.example_id: answer for answer in read_predictions(file)}
        for query in queries:
            if query.id not in answers:
                raise DataError(f"{file} has no answer to item {query.id}; run anew")
            yield query, answers[query.id]


def _check_place(to: Path, personal: PersonalModel, dtype: Dtype) -> None:
    """Raises BadInputError where the export cannot be written: something is there, or there is no room."""
    _check_new(to)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"--to is {to}, which cannot be made: {error.strerror}; give another folder") from error
    if not os.access(to.parent, os.W_OK):
        raise BadInputError(f"--to is {to}, but nothing can be written in {to.parent}; give another folder")
    # M_base is kept in 16 bits.
    needed = sum(file.stat().st_size for file in personal.base.glob("*.safetensors")) * (2 if dtype == "f32" else 1)
    free = shutil.disk_usage(to.parent).free
    if needed > free:
        raise BadInputError(f"--to is {to}: {needed / 1e9:.1f} GB are needed there and {free / 1e9:.1f} GB are free")


def _check_new(to: Path) -> None:
    if to.exists() or to.is_symlink():
        raise BadInputError(f"--to is {to}, which exists; give a new folder")


def _checked(job: _Job, draft: Path) -> tuple[Agreement, Mapping[str, float]]:
    """Returns how what stands in `draft` answers, and its score; raises RunError where that is no longer the run's model."""
    from cdcda_flower.models.exports.rescoring import Questions, said, written
    from cdcda_flower.models.loading import pick_device, release

    order, task = job.order, job.run.task
    questions = Questions(
        queries=tuple(example.query for example, _ in job.items),
        max_tokens=job.config.max_tokens,
        max_new_tokens=task.max_answer_tokens,
        device=pick_device("auto"),
    )
    answers = written(order.form, draft, job.personal, questions)
    release()
    recorded = None if job.retrieval else [prediction.output for _, prediction in job.items]
    agreement = compare(
        answers, said(job.personal, questions, answers), recorded, tolerance=tolerance_of(order.form, order.dtype)
    )
    predictions = [
        Prediction(example_id=example.id, output=answer.text, parsed=task.parse(answer.text))
        for (example, _), answer in zip(job.items, answers, strict=True)
    ]
    score = job.score(predictions)
    if not agreement.holds:
        before = _numbers(job.score([prediction for _, prediction in job.items]))
        raise RunError(
            f"the exported {order.form} is not the run's model: {agreement}; the run's metrics are {before}, the export's "
            f"{_numbers(score)}; it was removed"
        )
    return agreement, score


def _numbers(score: Mapping[str, float]) -> str:
    return ", ".join(f"{metric} {value:.4f}" for metric, value in score.items())


def _card(job: _Job, agreement: Agreement, score: Mapping[str, float]) -> Card:
    own = job.run.own.get(job.order.method, {})
    results = [own[job.order.user]] if job.order.user else list(own.values())
    return Card(
        manifest=job.run.manifest,
        config=job.config,
        task=job.run.task,
        method=job.order.method,
        form=job.order.form,
        dtype=job.order.dtype,
        published=job.personal.published,
        training=job.training,
        retrieval=job.retrieval,
        metrics=values(job.run.task, pool([result.sums for result in results])),
        queries=sum(result.queries for result in results),
        exported=score,
        agreement=agreement,
    )
