"""The figures of a verification against numbers by hand, and every sentence about what is not as promised."""

import numpy as np
import pytest

from bittrue.flow.verify.verify import mean_interval, problems


@pytest.mark.parametrize(
    ("ends", "interval"),
    [
        ([], None),
        ([7], None),
        ([7, 30], None),
        ([7, 30, 40], 10),  # from the second to the third
        ([3, 10, 20, 40, 70], 25),  # 50 cycles for the two frames behind the third
        ([3, 10, 20, 40, 71], 26),  # 51 / 2: half to even
        ([0, 1, 2, 10, 20, 33], 12),  # 23 / 2 from the fourth to the sixth
        ([0, 1, 2, 10, 20, 31], 10),
    ],
)
def test_mean_interval_is_that_of_the_second_half(ends, interval):
    assert mean_interval(np.array(ends)) == interval


ROW = {
    "backend": "rtl",
    "simulator": "icarus",
    "stalls": False,
    "mismatches": 0,
    "values": 40,
    "errors": [],
    "divergence": None,
    "events": None,
    "interval": 12,
    "estimated_interval": 12,
    "latency": 30,
    "estimated_latency": 30,
}


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({}, []),
        ({"mismatches": 1}, ["rtl/icarus: 1 of 40 values differ"]),
        ({"mismatches": 2, "divergence": {"text": "here"}}, ["2 of 40 values differ; first divergence: here"]),
        ({"errors": ["a", "b"], "stalls": True}, ["rtl/icarus with stalls: a; b"]),
        ({"schedule": "frame 3 is late"}, ["rtl/icarus: frame 3 is late"]),
        ({"events": {"n": {"rtl": 4, "golden": 5}}}, ["4 events left n, in the golden simulator 5"]),
        ({"events": {"n": {"rtl": 5, "golden": 5}}}, []),
        ({"interval": 13}, ["interval is 13 cycles, the design promised 12"]),
        ({"interval": 11}, ["interval is 11 cycles, the design promised 12"]),
        ({"latency": 29}, ["latency is 29 cycles, the design promised 30"]),
        ({"latency": 31, "interval": 1}, ["interval is 1 cycles", "latency is 31 cycles"]),
        ({"design": "mine", "mismatches": 1}, ["mine/icarus: 1 of 40"]),
    ],
)
def test_what_is_not_as_promised_is_said(changed, sentences):
    found = problems([ROW | changed], {"mismatches": 0, "values": 9})
    assert len(found) == len(sentences)
    for sentence, part in zip(found, sentences, strict=True):
        assert part in sentence


def test_a_wrong_golden_run_is_said():
    assert problems([], {"mismatches": 1, "values": 9}) == ["golden: 1 of 9 values differ from the reference"]
    assert problems([], None) == []
