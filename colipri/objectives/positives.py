"""Which texts of a batch must not be negatives of which images.

Plain contrastive learning takes every other text of the batch as a negative. In radiology that is
often wrong: two reconstructions of one study share one report, hundreds of patients share the same
normal report word for word, and a single sentence such as "No pleural effusion." is true of most
images. The batches keep reconstructions of one study apart (colipri.dataloading.sampler); whatever
else is equal becomes a further positive here, from the text alone and without labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def positive_pairs(
    studies: Sequence[str],
    captions: Sequence[frozenset[str]],
    reports: Sequence[frozenset[str]],
) -> Tensor:
    """Mark the (image, text) pairs of a batch that belong together.

    Image i and text j are a positive pair where they come from the same study, or where every
    sentence of caption j also stands, word for word, in the report of image i. The second rule
    covers equal reports, and short captions that are true of several images.

    Args:
        studies: B study identifiers.
        captions: B sets of normalised sentences: what the text tower reads.
        reports: B sets of normalised sentences: the whole report of each image.

    Returns:
        (B, B) bool, rows are images, columns are texts; the diagonal is True.
    """
    size = len(studies)
    pairs = torch.eye(size, dtype=torch.bool)
    for image in range(size):
        for text in range(size):
            same_study = studies[image] == studies[text]
            also_true = bool(captions[text]) and captions[text] <= reports[image]
            if same_study or also_true:
                pairs[image, text] = True
    return pairs
