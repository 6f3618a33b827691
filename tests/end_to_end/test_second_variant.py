"""The planner's choices learn on a set that they were not made on: other findings, other words."""

import json

import pytest
from commands import run

from colipri.checkpoints.baselines import save_untrained

NAME = "Dataset915_Second"
RUN = "ColipriTrainer__colipriPlans__3d_lowres/fold_0"


def successful(command, *arguments):
    done = run(command, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_second_variant_is_learned_by_its_own_plan(workspace, tmp_path):
    """The length of the run is the only number of the training that is given."""
    successful(
        *("colipri_convert_dataset", "semi_synthetic_chest", "-d", "915", "-n", "Second"),
        *("--variant", "second", "--seed", "77", "--num_studies", "240", "-np", "2"),
    )
    successful(
        *("colipri_plan_and_preprocess", "-d", "915", "-c", "3d_lowres"),
        *("-gpu_memory_target", "4", "-text_encoder", "scratch", "-np", "2"),
    )
    successful(
        *("colipri_train", "915", "3d_lowres", "0", "-device", "cpu"),
        *("--epochs", "10", "--iterations_per_epoch", "30"),
    )
    trained = workspace.results / NAME / RUN / "checkpoint_final.pth"
    untrained = tmp_path / "untrained.pth"
    save_untrained(trained, untrained)
    aurocs = []
    for checkpoint in (trained, untrained):
        result = tmp_path / f"{checkpoint.stem}.json"
        successful(
            *("colipri_zero_shot", "-m", str(checkpoint), "-d", "915", "--split", "test"),
            *("-device", "cpu", "-o", str(result)),
        )
        aurocs.append(json.loads(result.read_text())["macro_auroc"])
    learned, control = aurocs
    assert learned["low"] > 0.5, aurocs
    assert learned["low"] > control["high"], aurocs
