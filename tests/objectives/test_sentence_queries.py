"""A: which questions are asked, that no true text counts as wrong, and exactness in parts."""

import numpy as np
import pytest
import torch

from colipri.architectures.sentence_attention import SentenceAttention
from colipri.common.errors import ColipriError
from colipri.dataloading.sharing import Shard
from colipri.objectives.batch import Batch, CasePart, PairInput, Sample, TextPart, TextTools
from colipri.objectives.sentence_queries import SentenceQueries
from colipri.text.finding_names import FindingNames
from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report
from colipri.text.tokenizer import train_wordpiece
from colipri.training.distributed.processes import Processes
from colipri.training.query_texts import QueryTexts


def report(text):
    return structure_report(report_from_text(text))


SICK = report("FINDINGS: Large left pleural effusion. The heart is enlarged. No pneumothorax.")
SICKER = report("FINDINGS: Small right pleural effusion. Large left pleural effusion. No nodules.")
NORMAL = report("FINDINGS: No pleural effusion. The heart is normal in size. No pneumothorax.")
NORMAL_TOO = report("FINDINGS: The pleura is unremarkable. No pleural effusion or pneumothorax.")
VAGUE = report("FINDINGS: Possible pleural effusion.")
REPORTS = [SICK, SICKER, NORMAL, NORMAL_TOO, VAGUE]


class Reports(list):
    @property
    def finding_names(self):
        return FindingNames(self)


@pytest.fixture(scope="module")
def text():
    return TextTools(train_wordpiece([one.text for one in REPORTS] * 3, 300), 64, 60)


def asked(text, reports=REPORTS, **options):
    objective = SentenceQueries(**options)
    objective.prepare(Reports(reports * 3))
    samples = [
        Sample(str(i), str(i), "", "", one, None, None, {objective.name: drawn(objective, one, i)})
        for i, one in enumerate(reports)
    ]
    return objective, objective.collate(samples, text)


def drawn(objective, one, seed):
    return objective.draw(one, np.random.default_rng(seed))


def said(text, questions):
    decode = text.tokenizer.decode
    parts = questions.parts
    return [decode(ids, skip_special_tokens=True) for p in parts for ids in p["input_ids"]]


# ---------------------------------------------------------------------------- questions


def test_normal_texts_of_an_organ_are_true_of_every_normal_case(text):
    _, questions = asked(text, names=0, single_sentence=0.0)
    texts = said(text, questions)
    of_pleura = {t for t in texts if "pleura" in t}
    normal = {t for t in of_pleura if "no pleural" in t}
    rows = {}
    for row, case in enumerate(questions.case_index.tolist()):
        possible = {texts[i] for i in questions.candidates[row].nonzero().flatten().tolist()}
        true = {texts[i] for i in questions.positives[row].nonzero().flatten().tolist()}
        assert true < possible  # a question without a wrong answer teaches nothing
        if possible == of_pleura:
            rows[case] = true
    assert len(normal) == 2
    assert rows[2] == rows[3] == normal
    assert rows[0] == {"large left pleural effusion."}  # negated findings are left out
    assert len(rows[1]) == 2  # the other patient's words are in this report too
    assert 4 not in rows  # what is uncertain is neither


def test_a_sentence_of_two_is_drawn_at_the_share_that_is_asked_for():
    objective = SentenceQueries(single_sentence=0.5)
    objective.prepare(Reports(REPORTS * 3))
    found = [drawn(objective, SICKER, seed).organs for seed in range(200)]
    pleura = [one.text for organs in found for one in organs if one.organ == "pleura"]
    single = sum(one.count(".") == 1 for one in pleura) / len(pleura)
    assert 0.4 < single < 0.6
    assert drawn(objective, SICKER, 3) == drawn(objective, SICKER, 3)


def test_bare_names_are_asked_with_both_answers(text):
    _, questions = asked(text, organs=0)
    assert (questions.candidates.sum(dim=1) == 2).all()
    assert (questions.positives.sum(dim=1) == 1).all()
    assert not (questions.positives & ~questions.candidates).any()
    texts = said(text, questions)
    answers = {
        (c, texts[int(p.nonzero())])
        for c, p in zip(questions.case_index.tolist(), questions.positives, strict=True)
    }
    assert (0, "pleural effusion.") in answers and (2, "no pleural effusion.") in answers
    assert questions.weight.sum().item() == pytest.approx(len(REPORTS))


def test_cases_without_a_report_and_batches_without_a_question(text):
    objective, _ = asked(text)
    assert drawn(objective, None, 0).organs == ()
    assert asked(text, [NORMAL, NORMAL], names=0)[1] is None
    assert objective.further_texts(None) == ()
    part = CasePart(
        Batch(
            [""], [""], [""], [""], torch.ones(1).bool(), [False], torch.empty(0), torch.empty(0)
        ),
        (0,),
        (0,),
        0,
        0,
    )
    tokens = torch.randn(1, 3, 8, requires_grad=True)
    loss = objective.pair_losses(PairInput(part, {}, tokens, None, None))
    assert loss.tolist() == [0.0] and loss.requires_grad
    with pytest.raises(ColipriError, match="no training report names an organ system"):
        SentenceQueries().prepare(Reports([report("FINDINGS: Unremarkable study.")]))


# ---------------------------------------------------------------------------- exactness


def test_parts_of_cases_and_texts_equal_one_batch(text):
    """Gradients of image tokens, texts and head, in double precision."""
    objective, questions = asked(text)
    torch.manual_seed(0)
    head = SentenceAttention(12, 8).double()
    tokens = torch.randn(5, 7, 12).double()
    mask = torch.arange(7) < torch.tensor([[7], [5], [7], [3], [1]])
    embed = torch.nn.EmbeddingBag(300, 8, mode="mean").double()
    weight = torch.randn(12, 12).double().requires_grad_()

    def encode(part):
        ids = part.tokens["input_ids"]
        return torch.nn.functional.normalize(embed(ids), dim=1)

    def gradients(size, join):
        parts = [TextPart(objective.name, tokens, 0) for tokens in questions.parts]
        if join:  # all texts at once, with their graph
            texts = torch.cat([encode(part) for part in parts])
        else:
            made = QueryTexts.encode(
                parts, encode, 8, torch.device("cpu"), Processes(), Shard(), torch.float64
            )
            texts = made.embeddings
        total = 0.0
        for first in range(0, 5, size):
            rows = tuple(range(first, min(5, first + size)))
            inputs = PairInput(
                CasePart(None, rows, rows, 0, 0),
                {"sentence_attention": head},
                tokens[list(rows)] @ weight,
                mask[list(rows)],
                questions,
                texts,
            )
            loss = objective.pair_losses(inputs).sum() / 5
            loss.backward(retain_graph=True)
            total += loss.item()
        if not join:
            made.backward(encode, Processes(), lambda: None)
        found = [p.grad.clone() for p in (weight, embed.weight, *head.parameters())]
        for p in (weight, embed.weight, *head.parameters()):
            p.grad = None
        return total, found

    loss, whole = gradients(5, True)
    assert loss > 0.1
    for size in (1, 2, 5):
        again, parts = gradients(size, False)
        assert again == pytest.approx(loss, rel=1e-9)
        for expected, got in zip(whole, parts, strict=True):
            assert expected.abs().sum() > 0
            assert torch.allclose(expected, got, rtol=1e-7, atol=1e-12)


def test_a_text_learns_to_look_where_the_finding_is():
    """Without any mask: one token in twenty holds what decides between two texts."""
    torch.manual_seed(0)
    head = SentenceAttention(16, 8)
    texts = torch.nn.functional.normalize(torch.randn(2, 8), dim=1)
    sign = torch.randn(16)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(150):
        shown = torch.rand(32) < 0.5
        tokens = 0.5 * torch.randn(32, 20, 16)
        places = torch.randint(20, (32,))
        tokens[torch.arange(32), places] += shown[:, None] * 2 * sign
        loss = torch.nn.functional.cross_entropy(head(tokens, texts, None), (~shown).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens = 0.5 * torch.randn(20, 16)
    tokens[7] += 2 * sign
    seen = head.weights(tokens, texts).detach()
    assert seen.shape == (2, 20)
    assert torch.allclose(seen.mean(dim=1), torch.ones(2), atol=1e-5)
    assert int(seen[0].argmax()) == 7 and seen[0, 7] > 3
