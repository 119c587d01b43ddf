"""The program gets the prompt and its settings, and every request is answered with as many samples as it asks for."""

import sys

from command_engine import CommandEngine

from cdcda_flower.plugins import GenerationRequest, Sample

PROGRAM = "import os, sys; print(sys.stdin.read().upper(), os.environ['SEED'], os.environ['TEMPERATURE'], end='')"


def test_the_program_answers() -> None:
    request = GenerationRequest(
        prompt="say it", prefix="", then="", samples=2, seed=7, max_new_tokens=9, choices=(), greedy=False
    )
    heard: list[tuple[int, tuple[Sample, ...], int]] = []
    engine = CommandEngine(command=[sys.executable, "-c", PROGRAM])
    engine.generate([request], temperature=0.5, on_answer=lambda *answer: heard.append(answer))
    texts = (Sample(text="SAY IT 7 0.5", cut=""), Sample(text="SAY IT 8 0.5", cut=""))
    assert heard == [(0, texts, 8)]
    engine.close()
