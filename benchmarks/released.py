"""Our encoder against the released package `colipri` 0.1.3: the same weights, time and memory.

    python benchmarks/released.py [--image 96 96 96] [--rounds 3]

Installs the released package in an environment of its own (its import name is ours; torch and
transformers are borrowed from here), lets it write random weights of a trained size, and encodes
the same image with both, in turns and in processes of their own: fp32, bf16, and ours without air
(43 % of the tokens, as in a chest CT at 2 mm). Prints seconds of processor time and the peak of
memory, their ratios (below 1: ours is less), and how far embeddings are apart: at most 1e-4 in
fp32, a cosine of at least 0.999 in bf16. The released setting is ``--image 192 192 192``, which
takes some minutes a round on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

RELEASED = "colipri==0.1.3"
BODY = 0.43  # of the tokens of lidc_idri_0314 at 2 mm in 192^3
BERT = {
    "vocab_size": 1000,
    "hidden_size": 768,
    "num_hidden_layers": 1,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
LARGEST_DIFFERENCE, SMALLEST_COSINE = 1e-4, 0.999


def main() -> None:
    """Compare; exit code 1 if embeddings are further apart than they may be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=int, nargs=3, default=[96, 96, 96], metavar="VOXELS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, precision, folder = options.child
        print(json.dumps(SIDES[side](Path(folder), precision)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = install(folder / "environment")
        prepare(folder, tuple(options.image))
        call(python, ["released", "weights", str(folder)], folder)
        sys.exit(compare(python, folder, options.rounds))


def install(root: Path) -> Path:
    """Return the interpreter of a new environment with the released package.

    Raises:
        SystemExit: the index does not have it.
    """
    venv.create(root, with_pip=False)
    python = root / ("Scripts" if os.name == "nt" else "bin") / "python"
    place = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = subprocess.run(place, check=True, capture_output=True, text=True).stdout.strip()
    (Path(own) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", RELEASED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{RELEASED} cannot be installed: {done.stderr.strip()[-300:]}")
    return python


def prepare(folder: Path, shape: tuple[int, ...]) -> None:
    """Write an image, the tokens of a body, and a small text encoder without weights to load."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**BERT)).save_pretrained(folder / "bert")
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, *shape, generator=generator) * 2 - 1
    count = image.numel() // 512
    kept = torch.randperm(count, generator=generator)[: round(BODY * count)].sort().values
    save_file({"image": image, "kept": kept[None]}, folder / "input.safetensors")


def call(python: Path | str, child: list[str], folder: Path) -> dict[str, Any]:
    """Run one side in a process of its own; the last line of its output is JSON."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if str(python) == sys.executable:
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [python, __file__, "--child", *child],
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(child[:2])} failed:\n{done.stderr.strip()[-2000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def compare(python: Path, folder: Path, rounds: int) -> int:
    """Print both sides and their ratios; return the exit code."""
    import torch
    import torch.nn.functional as F

    best: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(rounds):
        for precision in ("fp32", "bf16"):
            for side in SIDES:
                interpreter = python if side == "released" else sys.executable
                found = call(interpreter, [side, precision, str(folder)], folder)
                before = best.get((side, precision))
                if before is None or found["seconds"] < before["seconds"]:
                    best[side, precision] = found
    print(f"{'':<24}{'processor s':>12}{'peak GB':>9}{'time ratio':>12}{'memory ratio':>14}")
    for (side, precision), found in best.items():
        against = best["released", precision]
        print(
            f"{side + ', ' + precision:<24}{found['seconds']:>12.2f}{found['gigabytes']:>9.2f}"
            f"{found['seconds'] / against['seconds']:>12.2f}"
            f"{found['gigabytes'] / against['gigabytes']:>14.2f}"
        )
    embedding = {key: torch.tensor(found["embedding"]) for key, found in best.items()}
    exact = embedding["released", "fp32"]
    difference = float((embedding["ours", "fp32"] - exact).abs().max())
    cosine = float(F.cosine_similarity(embedding["ours", "bf16"], exact, dim=0))
    print(f"fp32: largest difference {difference:.1e} (at most {LARGEST_DIFFERENCE:g})")
    print(f"bf16: cosine {cosine:.5f} with the released fp32 (at least {SMALLEST_COSINE})")
    return int(difference > LARGEST_DIFFERENCE or cosine < SMALLEST_COSINE)


# ---------------------------------------------------------------- in a process of its own


def released(folder: Path, precision: str) -> dict[str, Any]:
    """The released package; as "weights" it only writes some of a trained size."""
    import torch
    from safetensors.torch import load_file

    import colipri

    image = load_file(folder / "input.safetensors")["image"]
    model: Any = colipri.get_model(  # type: ignore[attr-defined]
        pretrained=False,
        **{
            "model.image_encoder.backbone.input_shape": list(image.shape[2:]),
            "model.text_encoder.backbone._target_": "transformers.AutoModel.from_pretrained",
            "model.text_encoder.backbone.pretrained_model_name_or_path": folder / "bert",
            "model.text_encoder.backbone.trust_remote_code": False,
            "model.text_encoder.backbone.revision": "main",
            "model.temperature": 0.07,
        },
    )
    weights = folder / "weights.safetensors"
    if precision == "weights":
        torch.manual_seed(5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn_like(parameter)
                if parameter.ndim > 1:
                    parameter.copy_(noise * (1.5 / parameter[0].numel() ** 0.5))
                else:
                    is_gain = "norm" in name.lower() and name.endswith("weight")
                    parameter.copy_(0.3 * noise + (1.0 if is_gain else 0.0))
        model.save_weights(weights)
        return {}
    model.load_state_dict(load_file(weights))
    model.eval()
    return timed(
        lambda: model.encode_image(image, pool=True, project=True, normalize=True), precision
    )


def ours(folder: Path, precision: str) -> dict[str, Any]:
    """Our model with all tokens."""
    return _ours(folder, precision, without_air=False)


def ours_without_air(folder: Path, precision: str) -> dict[str, Any]:
    """Our model with the tokens of the body."""
    return _ours(folder, precision, without_air=True)


def _ours(folder: Path, precision: str, without_air: bool) -> dict[str, Any]:
    from safetensors.torch import load_file

    from colipri.architectures.model import ColipriModel
    from colipri.architectures.primus import PRESETS, PrimusEncoder
    from colipri.architectures.text_encoder import TextEncoder
    from colipri.checkpoints.checkpoint_file import load_state_dict_reported
    from colipri.checkpoints.weight_conversion import model_from_released
    from colipri.plans.architecture import BertSettings, TextEncoderPlan

    sizes = {name: value for name, value in BERT.items() if name != "vocab_size"}
    text = TextEncoderPlan(source="scratch", arch_kwargs=BertSettings.from_dict(sizes))
    model = ColipriModel(
        PrimusEncoder(input_channels=1, **PRESETS["M"]),
        TextEncoder(text, BERT["vocab_size"], embed_dim=768),
        embed_dim=768,
        pool_heads=12,
    )
    load_state_dict_reported(model, model_from_released(load_file(folder / "weights.safetensors")))
    model.eval()
    given = load_file(folder / "input.safetensors")
    kept = given["kept"] if without_air else None
    return timed(lambda: model.encode_image(given["image"], kept).embedding, precision)


def timed(encode: Any, precision: str) -> dict[str, Any]:
    """Encode once; processor seconds, the peak of memory in GB, and the embedding."""
    import torch

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
        started = time.process_time()
        embedding = encode()
        seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": seconds, "gigabytes": peak, "embedding": embedding[0].float().tolist()}


SIDES = {"released": released, "ours": ours, "ours without air": ours_without_air}

if __name__ == "__main__":
    main()
