"""Transferability scores: LogME against its published algorithm, then every score and its memory.

The published algorithm is written here from the paper: a thin SVD of the features, then for each
class the fixed point. tljax: one Gram matrix in blocks and its eigenvectors for all scores, and the
best alpha / beta of all classes at once. Aims for the full size on 2 cores: LogME under 3 s, all
scores under 10 s, peak memory under three times the features, which are float64 here.
"""

import sys
import threading
import time

import common
import numpy as np
from scipy import linalg  # noqa: F401, so that no round waits for it

from tljax.ranking import SCORES, Features, Targets, score

SMALL = dict(examples=2000, width=256, classes=20, source_classes=100, repeats=3, published=1)
FULL = dict(examples=10_000, width=2048, classes=100, source_classes=1000, repeats=3, published=1)


def published(features_NxD: np.ndarray, targets: Targets) -> float:
    left, values, _ = np.linalg.svd(features_NxD, full_matrices=False)
    count, width = features_NxD.shape
    squares = values**2
    logs = []
    for label in range(targets.classes):
        y = (targets.values == label).astype(np.float64)
        along2 = (left.T @ y) ** 2
        rest = y @ y - along2.sum()
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (squares / (squares + t)).sum()
            weights2 = (squares * along2 / (squares + t) ** 2).sum()
            residual2 = rest + (along2 * (t / (squares + t)) ** 2).sum()
            alpha, beta = gamma / weights2, (count - gamma) / residual2
            if abs(alpha / beta - t) <= 1e-3 * t:
                break
        log = width * np.log(alpha) - np.log(alpha + beta * squares).sum()
        log += count * np.log(beta / (2 * np.pi)) - alpha * weights2 - beta * residual2
        logs.append(log / 2 / count)
    return float(np.mean(logs))


def data(chosen):
    """Features that decay as a network's do, know something of the labels, and are not centred."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, chosen.classes, chosen.examples)
    features_NxD = rng.normal(size=(chosen.examples, chosen.width))
    features_NxD *= np.geomspace(1, 0.01, chosen.width)
    centres_CxD = rng.normal(size=(chosen.classes, chosen.width)) * np.geomspace(
        1, 0.01, chosen.width
    )
    for label in range(chosen.classes):
        features_NxD[labels_N == label] += 0.3 * centres_CxD[label]
    np.maximum(features_NxD, -0.5, out=features_NxD)
    logits_NxS = rng.normal(size=(chosen.examples, chosen.source_classes))
    logits_NxS[np.arange(chosen.examples), labels_N % chosen.source_classes] += 3
    np.exp(logits_NxS, out=logits_NxS)
    logits_NxS /= logits_NxS.sum(1, keepdims=True)
    return features_NxD, Targets('classes', labels_N, chosen.classes), logits_NxS


def everything(features_NxD, targets, probabilities):
    """Every score in turn, sharing what they share: seconds and value of each."""
    features = Features(features_NxD)
    seconds, values = {}, {}
    for name in SCORES:
        began = time.perf_counter()
        values[name] = score(name, features, targets, probabilities)
        seconds[name] = time.perf_counter() - began
    return seconds, values


def peak_of(function) -> tuple[int, int]:
    """Bytes before a call, and the most during it."""
    common.new_peak()
    before = most = common.memory('VmRSS')
    done = threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.01):  # where a process may not reset VmHWM
            most = max(most, common.memory('VmRSS'))

    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    done.set()
    watcher.join()
    return before, most


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    features_NxD, targets, probabilities = data(chosen)
    size = features_NxD.nbytes
    shape = f'{chosen.examples} x {chosen.width}, {chosen.classes} classes'
    # First, while nothing freed earlier can be taken up again unseen.
    before, most = peak_of(lambda: everything(features_NxD, targets, probabilities))
    extra = (most - before) / size
    print(
        f'features {size / 1e6:.0f} MB; all scores held at most {extra:.2f} times as much beside '
        f'them: {1 + extra:.2f} with them'
    )
    runs = {'tljax': lambda: score('logme', features_NxD, targets)}
    if chosen.published:
        runs['SVD, loop over classes'] = lambda: published(features_NxD, targets)
    times = common.measure(runs, chosen.repeats, warmup=0)
    common.table(f'logme, {shape}', times)
    if chosen.published:
        print('values: ' + ', '.join(f'{name} {run():.6f}' for name, run in runs.items()))
    rounds = [everything(features_NxD, targets, probabilities) for _ in range(chosen.repeats)]
    table = {'all': [sum(seconds.values()) for seconds, _ in rounds]}
    table |= {name: [seconds[name] for seconds, _ in rounds] for name in SCORES}
    values = {name: f'{value:.4f}' for name, value in rounds[0][1].items()}
    common.table(f'all scores in this order, {shape}', table, columns={'value': values})


if __name__ == '__main__':
    sys.exit(main())
