"""Labellers: rules, a real classifier of transformers, and tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from colipri.common.errors import ColipriError
from colipri.report_metrics.labellers import (
    ClassifierLabeller,
    LabellerPair,
    StructuringLabeller,
    TableLabeller,
    read_label_table,
)
from colipri.report_metrics.report_pairs import judged_text, match_reports

WORDS = ("effusion", "nodule", "no", "the", "lungs", "are", "clear")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A BERT whose first output sees the word effusion and whose second sees nodule."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    def make(names: dict[int, str] | None = None, kind: str = "multi_label_classification") -> Path:
        folder = tmp_path_factory.mktemp("labeller")
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        (folder / "vocab.txt").write_text("\n".join([*special, *WORDS]) + "\n")
        BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
        options = {"id2label": names} if names else {"num_labels": 2}
        config = BertConfig(
            vocab_size=12,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            max_position_embeddings=64,
            problem_type=kind,
            **options,
        )
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
        return folder

    return make


def test_rules_leave_doubt_unknown() -> None:
    texts = [judged_text(t) for t in ("Left effusion.", "Possible effusion.", "Clear lungs.")]
    found = StructuringLabeller(["Pleural effusion"]).label(["a", "b", "c"], texts)
    assert found[:, 0].tolist()[::2] == [1, 0]
    assert np.isnan(found[1, 0])


def test_what_a_generated_report_doubts_counts_as_written() -> None:
    text = {"a": judged_text("Possible effusion.")}
    rules = StructuringLabeller(["Pleural effusion"])
    pair = LabellerPair(rules, rules)
    assert pair.label_generated(match_reports(text, text)).tolist() == [[1]]
    assert np.isnan(pair.label_references(match_reports(text, text))[0, 0])


def test_a_classifier_is_read_with_its_own_tokenizer(classifier: Callable[..., Path]) -> None:
    folder = classifier({0: "Pleural effusion", 1: "Lung nodule"})
    labeller = ClassifierLabeller(folder)
    assert labeller.finding_names == ("Pleural effusion", "Lung nodule")
    texts = [judged_text("The lungs are clear."), judged_text("effusion " * 500), judged_text("")]
    tokens = labeller.tokenizer(
        [t.text for t in texts], padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    expected = (labeller.model(**tokens).logits > 0).float().numpy()
    assert labeller.label(["a", "b", "c"], texts).tolist() == expected.tolist()


def test_classifiers_that_do_not_fit(classifier: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ColipriError, match="it has no config"):
        ClassifierLabeller(tmp_path)
    with pytest.raises(ColipriError, match="of which one is true"):
        ClassifierLabeller(classifier(None, "single_label_classification"))
    nameless = classifier()
    with pytest.raises(ColipriError, match="does not name its 2 classes"):
        ClassifierLabeller(nameless)
    with pytest.raises(ColipriError, match="2 classes, but 3 names"):
        ClassifierLabeller(nameless, ["a", "b", "c"])
    assert ClassifierLabeller(nameless, ["a", "b"]).finding_names == ("a", "b")


def test_no_finding_in_common_names_both(classifier: Callable[..., Path]) -> None:
    pair = LabellerPair(
        StructuringLabeller(["Ascites"]), ClassifierLabeller(classifier(), ["Effusion", "Nodule"])
    )
    with pytest.raises(ColipriError, match=r"no finding in common.*Ascites.*Effusion, Nodule"):
        _ = pair.finding_names


def test_tables(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("case,subject,Effusion,Nodule,note\na,s,1,0,x\nb,s,,-1,y\n")
    found = read_label_table(table)
    assert found["a"] == {"Effusion": 1, "Nodule": 0}
    labeller = TableLabeller(found, "labels.csv")
    assert np.isnan(labeller.label(["b"], [])).all()
    with pytest.raises(ColipriError, match=r"no row for 1 cases \(c\)"):
        labeller.label(["c"], [])


@pytest.mark.parametrize(
    ("content", "names", "what"),
    [
        ("case,Effusion\na,yes\n", ["Effusion"], "'yes' in column 'Effusion' is no label"),
        ("case,Effusion\na,1\na,0\n", [], "appears twice"),
        ("case,Effusion\na,1\n", ["Nodule"], "no column Nodule"),
        ("name,Effusion\na,1\n", [], "no column 'case'"),
        ("case,note\na,text\n", [], "no column of 0 and 1"),
    ],
)
def test_faulty_tables(tmp_path: Path, content: str, names: list[str], what: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ColipriError, match=what):
        read_label_table(tmp_path / "t.csv", names)
