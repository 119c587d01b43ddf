"""A metric: whether an answer is about as long as the true one."""


class LengthMatch:
    """Scores the shorter length over the longer one, in words; lengths that differ by at most `spare` words count as equal."""

    def __init__(self, *, spare: int = 0) -> None:
        # The arguments come from the key `plugin-args`.
        self._spare = spare

    def score(self, answer: str, gold: str) -> float:
        """Returns a finite number for one answer; a run averages them, and higher is better.

        `answer` is "" where the task cannot read the model's output. It runs on the user's device: only the sum over the
        user's answers leaves.
        """
        shorter, longer = sorted((len(answer.split()), len(gold.split())))
        if longer - shorter <= self._spare:
            return 1.0
        return shorter / longer
