"""Kinds of faults that users of public tools reported, and what is read here.

Each row names the kind, where it was reported (repository#number), a report, and its statements
with their polarity (p, n, u, 0) and nothing else. Faults that are no matter of polarity are tested
where ``TESTED_ELSEWHERE`` says.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from colipri.text.reports.report import report_from_text
from colipri.text.structured_report import structure_report

FAULTS = [
    (
        "denial with a verb before it, and a list with a slash",
        "medspacy/medspacy#232",
        "The patient is negative for stroke/hemorrhage.",
        [("n", "The patient is negative for stroke/hemorrhage.")],
    ),
    (
        "template without a space",
        "medspacy/medspacy#49",
        "Effusion:none. Nodule:5 mm.",
        [("n", "Effusion:none."), ("p", "Nodule:5 mm.")],
    ),
    (
        "template with No",
        "jenojp/negspacy#44",
        "Pneumothorax: No",
        [("n", "Pneumothorax: No")],
    ),
    (
        "a denied list after with",
        "jenojp/negspacy#14",
        "Cardiomegaly with no effusion and pneumothorax.",
        [("p", "Cardiomegaly"), ("n", "with no effusion and pneumothorax.")],
    ),
    (
        "neither and nor",
        "jenojp/negspacy#55",
        "There is neither effusion nor nodule.",
        [("n", "There is neither effusion nor nodule.")],
    ),
    (
        "words of denial that do not deny",
        "jenojp/negspacy#11",
        "Embolism is not ruled out. No increase in the effusion.",
        [("u", "Embolism is not ruled out."), ("p", "No increase in the effusion.")],
    ),
    (
        "what cannot be excluded is not absent",
        "aphp/edsnlp#245",
        "The result does not allow to exclude a metastasis.",
        [("u", "The result does not allow to exclude a metastasis.")],
    ),
    (
        "conjunctions deny nothing",
        "nlpie/biomedicus#100",
        "However, the heart is enlarged. Although cardiomegaly is present, the lungs are clear.",
        [
            ("p", "However, the heart is enlarged."),
            ("p", "Although cardiomegaly is present,"),
            ("n", "the lungs are clear."),
        ],
    ),
    (
        "a denial in a list of findings",
        "monarch-initiative/fenominal#42",
        "Nodule in the apex, but no cavitation, small effusion, thickened septa.",
        [
            ("p", "Nodule in the apex,"),
            ("n", "but no cavitation,"),
            ("p", "small effusion, thickened septa."),
        ],
    ),
    (
        "a denial before several nouns",
        "ncbi-nlp/NegBio#25",
        "There is no spinal canal hematoma.",
        [("n", "There is no spinal canal hematoma.")],
    ),
    (
        "several denials in a row",
        "stanfordmlgroup/chexpert-labeler#15",
        "The lungs are clear without evidence of focal airspace disease. There is no evidence of "
        "pneumothorax or large pleural effusion.",
        [
            ("n", "The lungs are clear without evidence of focal airspace disease."),
            ("n", "There is no evidence of pneumothorax or large pleural effusion."),
        ],
    ),
    (
        "no full stop at the end",
        "stanfordmlgroup/chexpert-labeler#8",
        "Heart size normal and lungs are clear. No edema or pneumonia. No effusion",
        [
            ("n", "Heart size normal and lungs are clear."),
            ("n", "No edema or pneumonia."),
            ("n", "No effusion"),
        ],
    ),
    (
        "a sentence of punctuation",
        "stanfordmlgroup/chexpert-labeler#13",
        "Lungs are clear. . Small effusion.",
        [("n", "Lungs are clear. ."), ("p", "Small effusion.")],
    ),
    (
        "a number without a space",
        "ClarityNLP/ClarityNLP#84",
        "1.No evidence of pneumonia.\n2.Small effusion.",
        [("n", "1.No evidence of pneumonia."), ("p", "2.Small effusion.")],
    ),
    (
        "fields on lines of their own",
        "ClarityNLP/ClarityNLP#139",
        "Lungs:\nSmall nodule\nHeart:\nNormal\nPleura:\nNo effusion",
        [("p", "Lungs: Small nodule"), ("n", "Heart: Normal"), ("n", "Pleura: No effusion")],
    ),
    (
        "bullets without a space",
        "medspacy/medspacy#73",
        "-Small effusion\n-Nodule: None \n-Fracture: None",
        [("p", "-Small effusion"), ("n", "-Nodule: None"), ("n", "-Fracture: None")],
    ),
    (
        "lines of spaces between statements",
        "medspacy/medspacy#210",
        "Small effusion\n  \nNo nodule\n \nNo fracture",
        [("p", "Small effusion"), ("n", "No nodule"), ("n", "No fracture")],
    ),
    (
        "a full stop after a bracket",
        "jianlins/PyRuSH#16",
        "Small effusion [image 3]. No nodule.",
        [("p", "Small effusion [image 3]."), ("n", "No nodule.")],
    ),
    (
        "a denial right after a colon",
        "medspacy/medspacy#155",
        "Pleura and diaphragm: no further effusion.",
        [("n", "Pleura and diaphragm: no further effusion.")],
    ),
    (
        "a denial in the next part of the sentence",
        "maziyarpanahi/openmed#508",
        "Suspected pneumonia; this was ruled out.",
        [("n", "Suspected pneumonia; this was ruled out.")],
    ),
    (
        "a condition is no finding",
        "maziyarpanahi/openmed#305",
        "If effusion recurs, repeat the scan.",
        [("0", "If effusion recurs, repeat the scan.")],
    ),
    (
        "relatives and risks",
        "medspacy/medspacy#105",
        "Mother with lung cancer. Risks of embolism were discussed.",
        [("0", "Mother with lung cancer."), ("0", "Risks of embolism were discussed.")],
    ),
    (
        "placeholders of de-identification",
        "LX-doctorAI1/M2KT#4",
        "Small XXXX effusion. No ___ nodule. [**Name**] is informed.",
        [
            ("p", "Small XXXX effusion."),
            ("n", "No ___ nodule."),
            ("0", "[**Name**] is informed."),
        ],
    ),
    (
        "capitals, numbers and dates",
        "Stanford-AIMI/chexpert-plus#4",
        "1.  NO INTERVAL CHANGE SINCE 5/2/2000. AGAIN, THERE IS CARDIOMEGALY.\n2.  NO EFFUSION.",
        [
            ("0", "1. NO INTERVAL CHANGE SINCE 5/2/2000."),
            ("p", "AGAIN, THERE IS CARDIOMEGALY."),
            ("n", "2. NO EFFUSION."),
        ],
    ),
]

SECTIONS = [
    (
        "headings in brackets",
        "batmanlab/Mammo-CLIP#18",
        "[History]\nPneumothorax.\n\n[Findings]\nNo nodule.\n\n[Impression]\nNormal.",
        ["clinical_information", "findings", "impression"],
    ),
    (
        "headings in small letters",
        "bvanaken/clinical-outcome-prediction#19",
        "history: pain\nFindings: no nodule.\nimpression: normal",
        ["clinical_information", "findings", "impression"],
    ),
    (
        "line ends that were removed",
        "ClarityNLP/ClarityNLP#165",
        "HISTORY: Chest pain and fever. TECHNIQUE: CT. FINDINGS: No nodule. IMPRESSION: Normal.",
        ["clinical_information", "technique", "findings", "impression"],
    ),
    (
        "headings without a colon",
        "medspacy/medspacy#63",
        "TECHNIQUE\nCT.\nFINDINGS\nNo nodule.\nIMPRESSION\nNormal.",
        ["technique", "findings", "impression"],
    ),
    (
        "sections that were empty although the report was not",
        "Stanford-AIMI/RRG24#9",
        "EXAMINATION: CT\nCOMPARISON: None.\n\nThe lungs are clear. No effusion.",
        ["examination", "comparison", "findings"],
    ),
]

# (kind, source): the test that covers it
TESTED_ELSEWHERE = {
    ("texts longer than the encoder reads", "stanfordmlgroup/CheXbert#6"): (
        "training.test_text_check:test_cut_captions_are_counted_in_the_tokens_of_the_tokenizer"
    ),
    (
        "nobody says what was cut",
        "Machine-Learning-for-Medical-Language/cnlp_transformers#151",
    ): "text.test_text_length:test_the_fingerprint_says_what_will_be_cut",
    ("cells of more than 131,072 characters", "1Panel-dev/MaxKB#6756"): (
        "raw_dataset.test_report_tables:test_a_report_of_200_kb_is_read"
    ),
    ("one study with two wordings of its report", "Stanford-AIMI/chexpert-plus#13"): (
        "raw_dataset.test_verification_codes:test_every_code_is_found"
    ),
    ("a column of another name", "ibrahimethemhamamci/CT-CLIP#34"): (
        "raw_dataset.test_report_tables:test_columns_of_public_data_sets"
    ),
}
_CODES = {"positive": "p", "negative": "n", "uncertain": "u", "neutral": "0"}


@pytest.mark.parametrize(("kind", "source", "text", "expected"), FAULTS, ids=lambda value: None)
def test_statements(kind: str, source: str, text: str, expected: list[tuple[str, str]]) -> None:
    found = structure_report(report_from_text(text)).sentences()
    assert [(_CODES[s.polarity], s.text) for s in found] == expected, f"{kind} ({source})"


@pytest.mark.parametrize(("kind", "source", "text", "expected"), SECTIONS, ids=lambda value: None)
def test_sections(kind: str, source: str, text: str, expected: list[str]) -> None:
    assert list(report_from_text(text).sections) == expected, f"{kind} ({source})"


def test_the_other_tests_exist() -> None:
    for place in TESTED_ELSEWHERE.values():
        module, _, function = place.partition(":")
        file = Path(__file__).resolve().parents[1] / f"{module.replace('.', '/')}.py"
        assert f"def {function}(" in file.read_text(encoding="utf-8"), place
    assert len(FAULTS) + len(SECTIONS) + len(TESTED_ELSEWHERE) >= 30
