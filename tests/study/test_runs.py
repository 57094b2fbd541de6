"""Runs one after another and mapped into one program find the same, phase by phase."""

import jax
import numpy as np
import pytest

from tljax.study import compare, mapped, probe
from tljax.study.runs import Arm, RunSpec
from tljax.train import experiment as experiment_lib
from tljax.train.experiment import run_keys

SPECS = [RunSpec(0, 0.1, False), RunSpec(1, 0.03, False), RunSpec(5, 0.3, False)]


def arm_of(config, source, points=6):
    return Arm(experiment_lib.build(config, source), points)


def ignore(steps):
    return None


def records(pairs):
    return [record for _, record in pairs]


TRAINED_THEN_FROZEN = [
    {'steps': 6, 'rules': [('.*', {})]},
    {'rules': [('head/.*', {}), ('.*', None)]},
]


@pytest.mark.parametrize(
    'policy',
    [
        pytest.param('lp_ft', id='lp_ft'),
        pytest.param(TRAINED_THEN_FROZEN, id='freezing', marks=pytest.mark.slow),
        pytest.param('scratch', id='scratch', marks=pytest.mark.matrix),
    ],
)
def test_mapped_runs_equal_single_runs(small_config, small_source, policy):
    scratch = policy == 'scratch'
    transfer = {} if scratch else {'policy': policy, 'reset': ('head/.*',)}
    arm = arm_of(small_config(transfer=transfer), None if scratch else small_source)
    single = [arm.run(spec, ignore) for spec in SPECS]
    together = records(mapped.run(arm, SPECS, ignore))
    for one, other in zip(single, together, strict=True):
        assert one.steps == other.steps
        # A score near a tie may fall either way: one of 239 validation, 600 test examples.
        np.testing.assert_allclose(one.validation, other.validation, atol=1.5 / 239)
        assert one.test == pytest.approx(other.test, abs=1.5 / 600)
        assert one.bad_step == other.bad_step == -1
    assert len({tuple(record.validation) for record in single}) == 3  # the seeds do differ


PROBE = [{'steps': 5, 'rules': [('head/kernel', {}), ('.*', None)]}]
PROBE += [{'rules': [('head/.*', {}), ('.*', None)]}]


@pytest.mark.parametrize('cache', ['on', pytest.param('off', marks=pytest.mark.slow)])
def test_mapped_runs_share_the_features_of_their_frozen_prefix(small_config, small_source, cache):
    config = small_config(transfer={'policy': PROBE}, prefix={'cache': cache})
    config.model.dropout = 0.0  # at the features, where it ends nothing worth keeping
    arm = arm_of(config, small_source)
    single = [arm.run(spec, ignore) for spec in SPECS]
    together = records(mapped.run(arm, SPECS, ignore))
    for one, other in zip(single, together, strict=True):
        np.testing.assert_allclose(one.validation, other.validation, atol=1.5 / 239)
        assert one.test == pytest.approx(other.test, abs=1.5 / 600)
    assert mapped.maps_well(arm) == (cache == 'on')
    programs = [program.as_text() for program in arm.mapped.values()]
    convolves = ['f32[3,8,8,8,' in text or 'f32[24,8,8,' in text for text in programs]
    assert convolves == [cache == 'off'] * 2


@pytest.mark.slow
def test_steps_beyond_a_chunk_and_of_padding(small_config, small_source, monkeypatch):
    arm = arm_of(small_config(), small_source)
    whole = records(mapped.run(arm, SPECS, ignore))
    monkeypatch.setattr(mapped, 'CHUNK', 5)  # 12 steps: two full chunks and one padded
    ticks = []
    parts = records(mapped.run(arm, SPECS, ticks.append))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.validation, other.validation, atol=1.5 / 239)
    assert ticks == [15, 15, 6]


@pytest.mark.slow
def test_a_group_too_large_for_the_device_is_halved(small_config, small_source, monkeypatch):
    arm = arm_of(small_config(), small_source)
    whole = records(mapped.run(arm, SPECS, ignore))
    sizes = []

    def refuse_more_than_one(compiled):
        sizes.append(1)
        if len(sizes) == 1:
            raise mapped.OutOfMemory

    monkeypatch.setattr(mapped, '_check_memory', refuse_more_than_one)
    arm.mapped.clear()
    parts = records(mapped.run(arm, SPECS, ignore))
    assert len(sizes) == 3  # refused with three, then a group of two and one of one
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.validation, other.validation, atol=1.5 / 239)


def test_a_trial_that_diverges_is_recorded_by_both(small_config, small_source):
    arm = arm_of(small_config(optim={'clip': 0.0}), small_source)
    specs = [RunSpec(0, 1e30, True), RunSpec(0, 0.01, True)]
    together = records(mapped.run(arm, specs, ignore))
    for spec, record in zip(specs, together, strict=True):
        assert record.bad_step == arm.run(spec, ignore).bad_step
        assert record.test is None
        assert record.steps == [12]
    assert together[0].bad_step >= 0
    assert together[1].bad_step == -1


def test_arms_are_paired(small_config, small_source):
    config = small_config(transfer={'reset': ('head/.*',)})
    transfer, scratch = arm_of(config, small_source), arm_of(config, None)
    for seed in (0, 1):
        one, other = transfer.order(seed), scratch.order(seed)
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1].batch(3), other[1].batch(3))
        key = run_keys(seed)[0]
        a, b = transfer.experiment.init(key), scratch.experiment.init(key)
        np.testing.assert_array_equal(a['params']['head']['kernel'], b['params']['head']['kernel'])
        assert np.any(
            np.asarray(a['params']['backbone']['hidden']['kernel'])
            != np.asarray(b['params']['backbone']['hidden']['kernel'])
        )
    assert not np.array_equal(transfer.order(0)[0], transfer.order(1)[0])


def test_the_start_of_a_transfer_is_the_source(small_config, small_source):
    experiment = experiment_lib.build(small_config(), small_source)
    leaves = experiment_lib.flat_variables(experiment.init(jax.random.key(5)))
    assert leaves.keys() == small_source.leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, small_source.leaves[path], err_msg=path)


def test_probe_reads_frozen_features(small_config, small_source):
    arm = arm_of(small_config(), small_source)
    scores = probe.accuracies(arm, [0, 1])
    assert scores is not None
    assert all(0.2 < score < 1 for score in scores)  # random features beat chance, 0.1
    assert scores == probe.accuracies(arm, [0, 1])


class FakeLedger:
    """Records by (learning rate): what each trial reached, and whether it diverged."""

    def __init__(self, reached):
        self.reached = reached

    def records(self, name, arm, specs):
        from tljax.study.runs import RunRecord

        return [
            RunRecord([12], [abs(self.reached[i])], None, 0.0, 3 if self.reached[i] < 0 else -1)
            for i, _ in enumerate(specs)
        ]


def test_tuning_takes_the_best_mean_and_counts_divergence_as_chance(small_config, small_source):
    config = small_config(study={'trials': 3, 'tuning_seeds': 2, 'seeds': 2})
    arm = arm_of(config, small_source)
    # Means .5 and .55; the third diverged in one seed, which counts as .1: .5 and not eligible.
    lr, trials = compare.tune(FakeLedger([0.6, 0.4, 0.5, 0.6, 0.9, -0.9]), 'transfer', arm)
    assert lr == compare.learning_rates(config)[1]
    assert [trial['validation'] for trial in trials] == pytest.approx([0.5, 0.55, 0.5])
    # Not taken although its mean is the best: it diverged once.
    lr, _ = compare.tune(FakeLedger([0.3, 0.3, 0.2, 0.2, 0.9, -0.9]), 'transfer', arm)
    assert lr == compare.learning_rates(config)[0]
    single = small_config(study={'trials': 1})
    assert compare.tune(FakeLedger([]), 'transfer', arm_of(single, small_source)) == (0.001, [])


def test_records_of_another_source_or_config_are_run_again(small_config, small_source, tmp_path):
    from tljax.progress import Progress

    config = small_config()
    spec = [RunSpec(0, 0.1, True)]
    arm = arm_of(config, small_source)
    with Progress(100, 'step', quiet=True) as progress:

        def ran(arm):
            ledger = compare.Ledger(tmp_path / 'runs', progress, lambda step: False)
            ledger.records('transfer', arm, spec)
            return ledger.ran

        assert ran(arm) == 1
        assert ran(arm) == 0
        moved = {path: leaf + 1 for path, leaf in small_source.leaves.items()}
        other = arm_of(config, experiment_lib.Source(moved, small_source.card))
        assert ran(other) == 1
        assert ran(arm_of(small_config(train={'accumulate': 2}), small_source)) == 1
        (record,) = (tmp_path / 'runs').iterdir()
        for content in ('{}', '{"of"', '[1]'):
            record.write_text(content)
            assert ran(arm) == 1
