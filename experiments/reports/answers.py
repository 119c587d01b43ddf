"""A device's answers under one method, as it keeps them in its own folder."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cdcda_flower.errors import DataError


class Answer(BaseModel):
    """One answer to a held-out example; `parsed` is None where the task's parser refuses the output."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    example_id: str
    output: str
    parsed: str | None = None


def read_answers(file: Path) -> list[Answer]:
    """Returns the file's answers; raises DataError where it holds something else."""
    try:
        # A file's lines end at "\n" only: answers may hold U+2028 and its like, at which `str.splitlines` would cut.
        with file.open(encoding="utf-8") as lines:
            return [Answer.model_validate_json(line) for line in lines]
    except (ValidationError, UnicodeDecodeError):
        raise DataError(f"{file} cannot be read as a device's answers, one JSON object a line") from None
