"""Backbones of other kinds than BERT: places that they have, and what is refused in a line."""

import json
from pathlib import Path

import pytest
import torch
from tiny_bert import PIECES, SENTENCES
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.tagged_sentences import Sentence, dataset_of
from models.registry import load_task
from models.state import build_model
from models.task import Task
from models.text.backbone import load_backbone

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
LONG = [Sentence(["in", "Paris"] * 40, ["O", "B-LOC"] * 40)]


def save_tokenizer(folder: Path, **special: str) -> None:
    """Write a byte-level tokenizer, whose words begin with a blank, and which knows of no length."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<mask>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **special
    )
    wrapped.save_pretrained(folder)


def roberta(folder: Path) -> str:
    config = RobertaConfig(vocab_size=260, max_position_embeddings=34, pad_token_id=1, **SIZES)
    RobertaModel(config).save_pretrained(folder)
    save_tokenizer(folder, pad_token="<pad>", mask_token="<mask>")
    return str(folder)


def gpt2(folder: Path, **special: str) -> str:
    config = GPT2Config(vocab_size=260, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    GPT2Model(config).save_pretrained(folder)
    save_tokenizer(folder, **special)
    return str(folder)


def task_on(name: str, backbone: str) -> Task:
    config = TaskConfig(task=name, task_options=f"backbone = '{backbone}'")
    return load_task(config, dataset_of("toy", LONG, LONG))


@pytest.mark.parametrize("name", ["ner", "masked-lm"])
def test_positions_that_begin_after_padding(name: str, tmp_path: Path) -> None:
    """Of 34 rows in RoBERTa's table of positions two are no places; the old limit ran off its end."""
    backbone = roberta(tmp_path)
    assert load_backbone(backbone, []).max_length == 32
    task = task_on(name, backbone)
    model = build_model(task, 1)
    generator = torch.Generator().manual_seed(1)
    for batch in task.batches(model, task.dataset.train, generator, 4):
        assert batch["input_ids"].shape[1] <= 32
        assert torch.isfinite(task.objectives[0].loss(model, batch))
    with torch.no_grad():
        metrics = task.evaluate(model.eval(), task.dataset.test, generator)
    assert metrics["loss"][1] > 0
    if name == "ner":
        assert metrics["loss"][1] == 80


def test_bert_has_as_many_places_as_rows(bert_folder: Path) -> None:
    assert load_backbone(str(bert_folder), []).max_length == 32


@pytest.mark.parametrize("name", ["ner", "masked-lm"])
def test_a_network_without_padding_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"has no padding token, so that .*: give an encoder such as BERT"
    ) as error:
        task_on(name, gpt2(tmp_path))
    assert "\n" not in str(error.value)


def test_a_network_without_a_mask_is_no_masked_language_model(tmp_path: Path) -> None:
    backbone = gpt2(tmp_path, pad_token="<pad>")
    with pytest.raises(
        UserError, match=r"has no mask token, so that nothing can be hidden from it: give a masked"
    ):
        task_on("masked-lm", backbone)
    model = build_model(task_on("ner", backbone), 1)
    assert model.get_parameter("classifier.weight").shape == (3, 16)


def test_a_network_without_the_tasks_head_is_refused(tmp_path: Path) -> None:
    task = task_on("masked-lm", gpt2(tmp_path, pad_token="<pad>", mask_token="<mask>"))
    with pytest.raises(
        UserError, match=r"is a gpt2 network, which transformers has no AutoModelForMaskedLM of:"
    ):
        build_model(task, 1)


def test_a_tokenizer_of_another_network_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    load_backbone(str(bert_folder), []).tokenizer.save_pretrained(tmp_path)
    BertModel(BertConfig(vocab_size=9, max_position_embeddings=32, **SIZES)).save_pretrained(tmp_path)
    message = f"has a tokenizer of {len(PIECES)} tokens, and a network that knows 9: give the tokenizer that"
    with pytest.raises(UserError, match=message):
        load_backbone(str(tmp_path), [])


def test_a_folder_without_weights_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    for file in bert_folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["model_type"] == "bert"
    task = load_task(
        TaskConfig(task="ner", task_options=f"backbone = '{tmp_path}'"),
        dataset_of("toy", SENTENCES, SENTENCES),
    )
    with pytest.raises(
        UserError, match=r"has no weights that can be loaded: give a folder that save_pretrained"
    ):
        build_model(task, 1)
