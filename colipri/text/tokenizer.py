"""Tokenizers: a WordPiece vocabulary trained on the data set's reports, or a pretrained one.

Checkpoints store the tokenizer's content, so a model works where its tokenizer's name or folder is
unknown. Only this module of the room needs torch and transformers, and only when it is used.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from colipri.common.errors import ColipriError
from colipri.text.cxr_bert import bert_tokenizer_file, is_cxr_bert, read_config
from colipri.text.model_files import is_gguf, model_location
from colipri.text.tokenizer_files import STORED_FORMAT

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # BERT's, in the order of their ids
_MINIMUM_COUNT = 2  # a word that occurs once is a typing error or a name
_LARGEST_ALPHABET = 1000  # characters with a token of their own; BERT's own limit
_ONE_SCRIPT = 64  # letters, digits and punctuation of one language
_WORDS_A_LINE = 1000
_LONGEST_COUNT = 1 << 20  # of one word; higher counts do not change its rank among the merges


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a BERT-like tokenizer (lower case, accents removed, WordPiece).

    The same texts in any order give the same tokenizer. The library numbers characters in the order
    of a hash map, so the alphabet is counted and numbered here first.

    Args:
        texts: reports; read once, so a generator works.
        vocab_size: maximum number of tokens, including special ones. A small corpus gives fewer,
            because only pairs that occur twice are merged.

    Raises:
        ColipriError: the texts contain no word, or vocab_size is too small.
    """
    words = _count_words(texts)
    if not words:
        raise ColipriError("no words to learn a vocabulary from: all reports are empty")
    alphabet = _alphabet(words, vocab_size - len(SPECIAL_TOKENS))
    known = set(alphabet)
    words = Counter({w: n for w, n in words.items() if known.issuperset(w)})
    pieces = [*alphabet, *(f"##{char}" for char in alphabet)]
    if not alphabet or vocab_size < len(SPECIAL_TOKENS) + len(pieces):
        raise ColipriError(f"a vocabulary of {vocab_size} tokens is too small; use at least 100")
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=_MINIMUM_COUNT,
        special_tokens=[*SPECIAL_TOKENS, *pieces],
        show_progress=False,
    )
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = _whitespace_splitter()
    learner.train_from_iterator(_lines(words), trainer=trainer)
    return _bert_tokenizer(learner.get_vocab(with_added_tokens=True))


def load_pretrained_tokenizer(
    name_or_path: str, local_only: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer by name or folder; code from a hub is never run.

    Args:
        name_or_path: name on the Hugging Face hub, or a folder.
        local_only: use folders and the local cache, but never download.

    Raises:
        ColipriError: it is neither a folder nor in the cache, and cannot be downloaded.
    """
    from transformers import AutoTokenizer

    if is_gguf(name_or_path):
        location, options = model_location(name_or_path)
        return as_embedding_tokenizer(AutoTokenizer.from_pretrained(location, **options), location)
    if _is_cxr_bert(name_or_path, local_only=True):  # as an imported model reads it
        return bert_tokenizer(name_or_path, local_only)
    failures = []
    for local_files_only in (True,) if local_only else (True, False):  # the cache first, then a hub
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                name_or_path, local_files_only=local_files_only, trust_remote_code=False
            )
            return as_embedding_tokenizer(tokenizer, name_or_path)
        except (OSError, ValueError, ImportError, KeyError) as error:
            failures.append(error)
    if _is_cxr_bert(name_or_path, local_only):  # names code of its own, which it does not need
        return bert_tokenizer(name_or_path, local_only)
    reason = str(failures[-1]).strip().splitlines()[0] if str(failures[-1]).strip() else "unknown"
    raise ColipriError(f"tokenizer '{name_or_path}' cannot be loaded: {reason}") from failures[-1]


def as_embedding_tokenizer(
    tokenizer: PreTrainedTokenizerBase, name: str
) -> PreTrainedTokenizerBase:
    """Prepare the tokenizer of a decoder, whose last token becomes the embedding of a text.

    Texts end with the end-of-text token. Without a padding token of its own that one pads as well:
    the mask tells both apart. A tokenizer with BERT's [CLS] is returned as it is.

    Args:
        tokenizer: changed in place.
        name: for messages.

    Raises:
        ColipriError: it has no end-of-text token.
    """
    if tokenizer.cls_token is not None:
        return tokenizer
    end = tokenizer.eos_token
    if end is None:
        raise ColipriError(
            f"the tokenizer of {name} has neither [CLS] nor an end-of-text token, so a text has no "
            "token that stands for all of it; set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = end
        logger.info("The tokenizer of %s has no padding token: %s pads, behind the mask", name, end)
    tokenizer.padding_side = "right"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
        )
    return tokenizer


def _is_cxr_bert(name_or_path: str, local_only: bool) -> bool:
    try:
        return is_cxr_bert(read_config(name_or_path, local_only))
    except ColipriError:
        return False


def bert_tokenizer(name_or_path: str, local_only: bool = False) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a BERT or CXR-BERT from its tokenizer.json or vocab.txt.

    Args:
        name_or_path: folder, or name on the hub.
        local_only: never download.

    Raises:
        ColipriError: neither file is there, it is damaged, or it lacks BERT's special tokens.
    """
    path = bert_tokenizer_file(name_or_path, local_only)
    try:
        if path.suffix == ".json":
            tokenizer = _with_bert_tokens(Tokenizer.from_file(str(path)))
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            tokenizer = _bert_tokenizer({token: number for number, token in enumerate(lines)})
    except Exception as error:
        raise ColipriError(f"{path} is not a tokenizer of BERT: {error}") from error
    known = tokenizer.get_vocab()
    missing = [token for token in SPECIAL_TOKENS if token not in known]
    if missing:
        raise ColipriError(f"{path} is not a tokenizer of BERT: it has no {', '.join(missing)}")
    return tokenizer


def tokenizer_to_string(tokenizer: PreTrainedTokenizerBase) -> str:
    """Write a fast tokenizer as JSON text, for checkpoints.

    Raises:
        ColipriError: the tokenizer is a slow (pure Python) one, which has no JSON form.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ColipriError(
            f"{type(tokenizer).__name__} is a slow tokenizer and cannot be stored in a checkpoint; "
            "use one that has a tokenizer.json"
        )
    content = {
        "format": STORED_FORMAT,
        "special_tokens": {
            k: str(v)
            for k, v in sorted(tokenizer.special_tokens_map.items())
            if not isinstance(v, list)
        },
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "tokenizer": _without_run_settings(json.loads(backend.to_str())),
    }
    return json.dumps(content, ensure_ascii=False)


def tokenizer_from_string(text: str) -> PreTrainedTokenizerFast:
    """The inverse of :func:`tokenizer_to_string`.

    Raises:
        ColipriError: the text has another format.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ColipriError(f"the stored tokenizer is not valid JSON: {error.msg}") from error
    if not isinstance(content, dict) or content.get("format") != STORED_FORMAT:
        raise ColipriError("the stored tokenizer has another format; was it written by colipri?")
    try:
        backend = Tokenizer.from_str(json.dumps(content["tokenizer"]))
    except Exception as error:  # the library raises nothing more precise
        raise ColipriError(f"the stored tokenizer is damaged: {error}") from error
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side=content["padding_side"],
        truncation_side=content["truncation_side"],
        **content["special_tokens"],
    )


def encode_batch(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int
) -> dict[str, torch.Tensor]:
    """Token ids of a batch, padded to its longest text.

    Args:
        tokenizer: any Hugging Face tokenizer.
        texts: B texts; an empty one becomes special tokens only.
        max_tokens: longer texts are truncated to this number of tokens, including special ones.

    Returns:
        input_ids and attention_mask, both (B, T) int64 with T <= max_tokens; the mask is 0 for
        padding.
    """
    encoded = tokenizer(
        list(texts), padding="longest", truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _count_words(texts: Iterable[str]) -> Counter[str]:
    normalizer, splitter = _normalizer(), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(w for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return words


def _alphabet(words: Counter[str], room: int) -> list[str]:
    """The most frequent characters, sorted; each takes two tokens (first or later in a word).

    Characters may fill half of the vocabulary, so that reports in many scripts leave room for
    words. A tiny vocabulary still gets one script.

    Args:
        words: word -> count.
        room: tokens left after the special ones.
    """
    limit = min(_LARGEST_ALPHABET, max(room // 4, min(_ONE_SCRIPT, room // 2)))
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for char in word:
            counts[char] += count
    ranked = sorted(counts, key=lambda char: (-counts[char], char))
    return sorted(ranked[: max(limit, 0)])


def _lines(words: Counter[str]) -> Iterator[str]:
    """Every word as often as it occurs, in a fixed order."""
    for word in sorted(words):
        count = min(words[word], _LONGEST_COUNT)
        for done in range(0, count, _WORDS_A_LINE):
            yield " ".join([word] * min(_WORDS_A_LINE, count - done))


def _bert_tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = _normalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return _with_bert_tokens(backend)


def _with_bert_tokens(backend: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side="right",
        truncation_side="right",
    )


def _normalizer() -> Any:
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )


def _whitespace_splitter() -> Any:
    return pre_tokenizers.WhitespaceSplit()


def _without_run_settings(content: dict[str, Any]) -> dict[str, Any]:
    """Drop padding and truncation of the last call: they are not part of the tokenizer."""
    return {**content, "padding": None, "truncation": None}
