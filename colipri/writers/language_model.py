"""Any causal language model by folder, GGUF file or name, checked before hours are spent on it."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from colipri.common.errors import ColipriError
from colipri.common.optional import optional_module
from colipri.text.model_files import model_location

logger = logging.getLogger(__name__)

_PROBE = 6  # tokens of the causality check


def load_language_model(
    source: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Any]:
    """Load a language model and its tokenizer.

    Args:
        source: A folder that save_pretrained of transformers wrote, a .gguf file (needs the package
            gguf; its weights are unpacked), or a name in the local cache of Hugging Face.
        device: Where to compute.
        dtype: Of the weights.

    Raises:
        ColipriError: it cannot be loaded, is not causal, or its tokenizer has no end of text.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    location, options = model_location(source)
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(location, dtype=dtype, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise _cannot_load(source, error) from error
    if tokenizer.eos_token_id is None:
        raise ColipriError(
            f"the tokenizer of {source} has no end-of-text token (eos_token), so the writer could "
            "not learn to stop; set one in its tokenizer_config.json"
        )
    model = model.to(torch.device(device)).eval()
    if not _is_causal(model, device):
        raise ColipriError(
            f"{source} is not a causal language model: its output for a word depends on the words "
            "after it. Give a decoder, such as Llama, Qwen, GPT or SmolLM"
        )
    return model, tokenizer


def language_model_config(source: str) -> Any:
    """Read the configuration alone, for planning.

    Raises:
        ColipriError: it cannot be read, or is not that of a causal model.
    """
    from transformers import AutoConfig

    location, options = model_location(source)
    try:
        return AutoConfig.from_pretrained(location, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise _cannot_load(source, error) from error


def hidden_width(model: nn.Module) -> int:
    """Return the width of the word embeddings."""
    return int(model.get_input_embeddings().weight.shape[1])  # type: ignore[operator]


def add_lora(model: nn.Module, rank: int) -> nn.Module:
    """Freeze a model and add LoRA (arXiv 2106.09685) to all its linear layers.

    Args:
        model: Of :func:`load_language_model`.
        rank: r; alpha is 2 r, dropout 0.05.

    Raises:
        ColipriError: peft is not installed.
    """
    peft = optional_module("peft", "", "LoRA (stage 2)")
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.05,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    wrapped: nn.Module = peft.get_peft_model(model, settings)
    return wrapped


def lora_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that :func:`add_lora` added, by name."""
    return {name: p for name, p in model.named_parameters() if "lora_" in name}


def load_lora_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put weights of :func:`lora_weights` back.

    Raises:
        ColipriError: they are of another model or rank.
    """
    own = lora_weights(model)
    if own.keys() != weights.keys() or any(own[n].shape != weights[n].shape for n in own):
        raise ColipriError("the LoRA weights of the writer do not fit this language model")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def _cannot_load(source: str, error: Exception) -> ColipriError:
    reason = " ".join(str(error).split())[:300]
    return ColipriError(
        f"the language model {source} cannot be loaded: {reason} (give a folder, a .gguf file, or "
        "a name that is in the local cache of Hugging Face)"
    )


def _is_causal(model: nn.Module, device: torch.device) -> bool:
    """True if the last token does not change what the tokens before it predict."""
    size = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    ids = (torch.arange(1, _PROBE + 1, device=device) % int(size)).unsqueeze(0)
    other = ids.clone()
    other[0, -1] = 0
    with torch.inference_mode():
        first, second = (model(input_ids=x).logits[0, :-1].float() for x in (ids, other))
    noise = 1e-2 if next(model.parameters()).dtype == torch.bfloat16 else 1e-5
    return bool(torch.allclose(first, second, atol=noise * float(first.abs().max())))
