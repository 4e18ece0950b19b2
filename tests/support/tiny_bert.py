"""A BERT of thirteen word pieces as somebody's own model, and sentences for it."""

from pathlib import Path

from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

from models.data.tagged_sentences import Sentence

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIAL, "an", "##na", "lives", "in", "ber", "##lin", "paris", "."]
CLS, SEP, AN, NA, LIVES, IN, BER, LIN, PARIS, DOT = 2, 3, 5, 6, 7, 8, 9, 10, 11, 12
SENTENCES = [
    Sentence(["Anna", "lives", "in", "Berlin", "."], ["B-PER", "O", "O", "B-LOC", "O"]),
    Sentence(["Paris"], ["B-LOC"]),
    Sentence(["in", "\u200b", "Paris"], ["O", "B-PER", "B-LOC"]),  # BERT drops control characters
]


def write_bert(path: Path) -> None:
    """Write a network of two layers, 16 wide, and its tokenizer into a folder."""
    (path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    BertTokenizerFast(str(path / "vocab.txt"), model_max_length=32).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertForTokenClassification(config).save_pretrained(path)
