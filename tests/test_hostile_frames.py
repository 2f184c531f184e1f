"""Frames that nobody should have made: a right answer or a clear error, never anything else."""

import numpy as np
import pytest

from benchmarks.hostile_frames import STEPS, draw_frame, verdict


@pytest.mark.parametrize("step", STEPS)
def test_hostile_frames_end_in_answers_or_errors_of_our_own(step):
    endings = set()
    for number in range(120 if step != "classifier" else 30):
        frame = draw_frame(np.random.default_rng([7, number]))
        if step == "attach_history" and not {"user", "time", "item"} <= set(frame.columns):
            continue
        if step == "classifier" and len(frame) < 2:
            continue
        ending, said = verdict(STEPS[step], frame)
        assert ending != "FAILURE", f"frame {number}: {said}"
        endings.add(ending)
    assert endings == {"answer", "own error"}
