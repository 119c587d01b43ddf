"""Writes models for tests: files of which only the headers are true, and a tiny cross-encoder that computes."""

import json
import struct
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import RobertaProcessing
from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizerFast

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = ["the", "cat", "sat", "down", "a", "dog", "ran"]


def write_safetensors(file: Path, *, missing: int = 0) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16 - missing))


def write_folder(folder: Path, architecture: str = "LlamaForCausalLM", **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture], **config}), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    write_safetensors(folder / "model.safetensors")
    return folder


def write_gguf(file: Path, *, kind: int = 0, missing: int = 0, **metadata: str | int) -> Path:
    """Writes a GGUF of one tensor of 256 elements; `kind` is the number of its type (0: F32, 8: Q8_0, 41: Q1_0)."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    parts = [struct.pack("<4sIQQ", b"GGUF", 3, 1, len(metadata) + 1)]
    parts.append(text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"))
    for key, value in metadata.items():
        name = text(key.replace("_", "."))
        parts.append(
            name + (struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<I", 8) + text(value))
        )
    parts.append(text("blk.0.w") + struct.pack("<IQIQ", 1, 256, kind, 0))
    head = b"".join(parts)
    size = {0: 1024, 8: 272, 41: 36}[kind]
    file.write_bytes(head + bytes(-len(head) % 32) + bytes(size - missing))
    return file


def write_cross_encoder(folder: Path, labels: list[str]) -> Path:
    """Writes a RoBERTa classifier with seeded weights; the same seed gives the same logits at the same positions."""
    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    inner.save(str(folder / "words.json"))
    RobertaTokenizerFast(tokenizer_file=str(folder / "words.json")).save_pretrained(folder)
    inner.save(str(folder / "tokenizer.json"))
    torch.manual_seed(7)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=1.0,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder
