"""colipri_retrieve --index: search an index by text or by image."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.imageio.parts import image_ending
from colipri.run.inference_options import check_output, make_predictor
from colipri.run.tables import format_table

if TYPE_CHECKING:
    import numpy as np

    from colipri.inference.predictor import ColipriPredictor
    from colipri.reporting.retrieval_page import Found

_PICTURES = 10  # scans per query that a page shows


def search_index_command(options: argparse.Namespace) -> int:
    """Encode the queries, search, and print, or write a page or JSON."""
    if options.i is not None or options.d is not None or options.control_untrained:
        raise ColipriError("--index takes neither -i nor -d nor --control_untrained")
    if options.q is None:
        raise ColipriError("--index needs something to look for (-q)")
    if options.top < 1:
        raise ColipriError("--top must be at least 1")
    output = check_output(options.o, (".json", ".html"))

    import numpy as np

    from colipri.reporting.retrieval_page import Found, retrieval_page
    from colipri.retrieval.index import ScanIndex
    from colipri.retrieval.indexing import model_key
    from colipri.retrieval.search import search_index

    index = ScanIndex(Path(options.index))  # before the model, which takes longer
    predictor = make_predictor(options)
    index.require_model(model_key(predictor), predictor.source)
    kinds, rows = zip(*(_encode(predictor, query) for query in options.q), strict=True)
    hits, searched = search_index(
        index, np.stack(rows), options.top, options.where, _approximate(options)
    )
    results = [
        Found(query, is_text, one)
        for query, is_text, one in zip(options.q, kinds, hits, strict=True)
    ]
    for found in results:
        _print(found, searched)
    if output is not None and output.suffix == ".html":
        retrieval_page(output, predictor, results, _PICTURES)
    elif output is not None:
        from colipri.common.atomic import atomic_write_json

        atomic_write_json(output, _plain(options, predictor, results, searched))
    if output is not None:
        print(f"Wrote {output}")
    return EXIT_OK


def _encode(predictor: ColipriPredictor, query: str) -> tuple[bool, np.ndarray]:
    """Whether a query is a text, and its embedding; what exists as a path is an image."""
    if not query.strip():  # as a path it would be the current folder
        raise ColipriError("an empty text cannot be looked for")
    try:
        is_path = Path(query).exists()
    except OSError:  # longer than a path can be
        is_path = False
    if not is_path and image_ending(query):
        raise ColipriError(f"there is no image {query}")
    if not is_path:
        predictor.require_known_words([query])
        return True, predictor.encode_texts([query])[0].numpy()
    from colipri.inference.inputs import find_images

    images = find_images(query, predictor.num_channels)
    if len(images) != 1:
        raise ColipriError(f"{query} holds {len(images)} images; a query is one image")
    return False, predictor.encode_file(images[0]).embedding.numpy()


def _approximate(options: argparse.Namespace) -> bool | None:
    """As asked for; None leaves it to the size of the index."""
    return options.approximate if options.approximate or options.exact else None


def _print(found: Found, searched: int) -> None:
    print(f'"{found.query}" in {searched} scans')
    rows = []
    for hit in found.hits:
        known = [name for name, value in hit.entry.facts.items() if value == "1"]
        rows.append([hit.entry.name, f"{hit.similarity:.4f}", ", ".join(known)])
    print(format_table(["scan", "similarity", "known findings"], rows))


def _plain(
    options: argparse.Namespace,
    predictor: ColipriPredictor,
    results: list[Found],
    searched: int,
) -> dict[str, Any]:
    return {
        "model": predictor.describe(),
        "index": str(Path(options.index).absolute()),
        "where": options.where,
        "approximate": options.approximate,
        "queries": [
            {
                "query": found.query,
                "searched": searched,
                "found": [
                    {
                        "scan": hit.entry.name,
                        "similarity": hit.similarity,
                        "files": list(hit.entry.files),
                        "facts": hit.entry.facts,
                        "report": hit.entry.report,
                    }
                    for hit in found.hits
                ],
            }
            for found in results
        ],
    }
