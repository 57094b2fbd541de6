"""What pretraining costs, and after how many target tasks it is repaid."""

from types import SimpleNamespace

import numpy as np
import pytest

from tljax.study.results import cost_of

X = np.array([0, 10, 20, 40])
SCRATCH = [0.1, 0.6, 0.8, 0.8]  # at its end's level after 20 of 40 examples


def cost(transfer, seconds=(4.0, 4.0), pretraining=10.0):
    card = {'seconds': pretraining}
    study = SimpleNamespace(
        arms={'transfer': SimpleNamespace(experiment=SimpleNamespace(card=card))},
        records={
            name: [SimpleNamespace(seconds=each)]
            for name, each in zip(('transfer', 'scratch'), seconds, strict=True)
        },
    )
    curves = {'transfer': np.array([transfer]), 'scratch': np.array([SCRATCH])}
    return cost_of(study, X, curves)


def test_a_task_saves_the_time_until_both_are_where_scratch_ends():
    found = cost([0.5, 0.8, 0.9, 0.9])  # after 10 examples, 1 s; scratch after 2 s
    assert found['break_even_tasks'] == 10
    assert 'saves 1.00 s' in found['note']
    assert found['with_pretraining_seconds'] == 14.0


@pytest.mark.parametrize(
    ('transfer', 'seconds', 'pretraining', 'said'),
    [
        ([0.5, 0.6, 0.8, 0.9], (4.0, 4.0), 10.0, 'saves no time'),  # just when scratch does
        ([0.5, 0.8, 0.9, 0.9], (9.0, 4.0), 10.0, 'saves no time'),  # sooner, by slower steps
        ([0.5, 0.6, 0.7, 0.7], (4.0, 4.0), 10.0, 'does not reach the end'),
        ([0.5, 0.8, 0.9, 0.9], (4.0, 4.0), None, 'is not known'),
    ],
)
def test_where_nothing_is_repaid(transfer, seconds, pretraining, said):
    found = cost(transfer, seconds, pretraining)
    assert found['break_even_tasks'] is None
    assert said in found['note']
