"""Spam from few labels: transfer beside TF-IDF with logistic regression; a step beside PyTorch's.

Quality: `compare` of configs/text/spam.py, with a source of newsgroups and with MiniLM's weights,
and what a user without tljax would try first: TF-IDF of words and pairs of words with logistic
regression (scikit-learn), on the same labels of each seed and whole texts, its strength of
regularisation chosen on the same validation texts. Area under the ROC curve on the test split.

Speed: full fine-tuning of MiniLM with AdamW, the same texts in the same order, as an arm of
`compare` runs it and as PyTorch's users write it (transformers' BertModel, eager mode). It needs
torch and transformers.

Studies are kept in TLJAX_WORK as they are done, so that a run that was stopped goes on.
"""

import os
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

from tljax import config as config_lib
from tljax.data.text.form import text_of
from tljax.pretrained.inputs import applied
from tljax.study.compare import compare
from tljax.study.runs import Arm, RunSpec
from tljax.study.statistics import interval
from tljax.train import experiment as experiment_lib
from tljax.train import sources

SMALL = dict(seeds=10, minilm_seeds=5, minilm_steps=30, speed_steps=10, speed_repeats=3)
FULL = dict(seeds=10, minilm_seeds=10, minilm_steps=100, speed_steps=50, speed_repeats=5)
RECIPES = {'newsgroups': 'configs/text/spam.py:real', 'MiniLM': 'configs/text/spam.py:minilm'}
WORK = Path(os.environ.get('TLJAX_WORK', 'runs/text'))
STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def config_of(name: str, chosen: Any) -> Any:
    """A recipe with this benchmark's numbers of seeds and steps."""
    config = config_lib.load(RECIPES[name])
    config.study.seeds = chosen.seeds
    if name == 'MiniLM':
        config.train.steps = chosen.minilm_steps
        config.study.seeds = chosen.minilm_seeds
        if chosen.size == 'small':  # most of the time would go into validation and trials
            config.data.holdout = 80
            config.study.update(trials=3, tuning_seeds=1, eval_points=2)
    return applied(sources.with_model(config_lib.resolve(config)))


def texts_of(split: Any) -> list[str]:
    """The whole texts of a split, in its order."""
    texts = [text_of(stored['text']) for stored in split.records.stored('text')]
    return [texts[row] for row in split.rows]


def tfidf(data: Any, seeds: list[int]) -> tuple[list[float], float]:
    """Test AUC of TF-IDF with logistic regression for each seed's labels; seconds a seed."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline

    splits = {name: data.split(name) for name in ('train', 'validation', 'test')}
    texts = {name: texts_of(split) for name, split in splits.items()}
    labels = {name: split.labels() for name, split in splits.items()}

    def fitted(strength: float, rows: np.ndarray) -> Any:
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
        model = make_pipeline(words, LogisticRegression(C=strength, max_iter=1000))
        return model.fit([texts['train'][row] for row in rows], labels['train'][rows])

    def auc(model: Any, name: str) -> float:
        return float(roc_auc_score(labels[name], model.decision_function(texts[name])))

    began, found = time.perf_counter(), []
    for seed in seeds:
        models = [fitted(strength, data.subset(seed)) for strength in STRENGTHS]
        found.append(auc(max(models, key=lambda model: auc(model, 'validation')), 'test'))
    return found, (time.perf_counter() - began) / len(seeds)


def quality(name: str, chosen: Any) -> None:
    """The table of one source: transfer, scratch, TF-IDF."""
    config = config_of(name, chosen)
    content = compare(config, WORK / name, f'benchmarks/text.py, {RECIPES[name]}')
    arms, seeds = content['arms'], content['seeds']
    data = experiment_lib.build(config, None).data
    found = {arm: arms[arm]['finals'] for arm in ('transfer', 'scratch')}
    took = {arm: arms[arm]['seconds']['mean'] for arm in found}
    found['TF-IDF'], took['TF-IDF'] = tfidf(data, seeds)
    print(f'\n{content["title"]}: {content["verdict"]["sentence"]}')
    print(f'{len(seeds)} seeds, {content["data"]["test"]} test texts')
    for row, values in found.items():
        told = interval(values, seed=0)
        beyond = interval(np.subtract(found['transfer'], values), seed=0)
        print(
            f'  {row:9} AUC {told.mean:.3f} [{told.low:.3f}, {told.high:.3f}], transfer better by '
            f'{beyond.mean:+.3f} [{beyond.low:+.3f}, {beyond.high:+.3f}]; '
            f'{common.number(took[row])} s a seed'
        )
    print(f'  the whole study: {common.number(content["seconds_total"])} s', flush=True)


def torch_steps(batches: list[dict[str, np.ndarray]], weights: Path, lr: float) -> Any:
    """One call runs all steps, with dropout, in PyTorch."""
    import torch
    from transformers import AutoModel

    net = AutoModel.from_pretrained(weights)
    head = torch.nn.Linear(net.config.hidden_size, 2)
    leaves = [*net.parameters(), *head.parameters()]
    adam = torch.optim.AdamW(leaves, lr, weight_decay=1e-2)
    given = [
        {name: torch.from_numpy(array.astype(np.int64)) for name, array in batch.items()}
        for batch in batches
    ]

    def run() -> None:
        net.train()
        for batch in given:
            out = net(input_ids=batch['tokens'], attention_mask=batch['mask']).last_hidden_state
            mask = batch['mask'][:, :, None].float()
            pooled = (out * mask).sum(1) / mask.sum(1)
            loss = torch.nn.functional.cross_entropy(head(pooled), batch['label'])
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(leaves, 1.0)
            adam.step()

    return run


def speed(chosen: Any) -> None:
    """Seconds of full fine-tuning, in rounds."""
    from tljax.pretrained.locations import locate

    config = config_of('MiniLM', chosen)
    config.transfer.policy = 'full'
    config.train.steps = chosen.speed_steps
    source = sources.load(config, WORK / 'speed', quiet=True)
    arm = Arm(experiment_lib.build(config, source), 2)
    subset, order = arm.order(0)
    arrays = experiment_lib.build(config, None).data.split('train').arrays()
    rows = [subset[order.batch(step)] for step in range(chosen.speed_steps)]
    batches = [{name: array[row] for name, array in arrays.items()} for row in rows]
    spec = RunSpec(0, 1e-4, True)
    weights = locate(config.source.uri, quiet=True).parent
    theirs = torch_steps(batches, weights, spec.lr)
    times: dict[str, list[float]] = {'PyTorch': [], 'tljax': []}
    for index in range(1 + chosen.speed_repeats):
        began = time.perf_counter()
        theirs()
        seconds = time.perf_counter() - began
        ours = arm.run(spec, lambda steps: None).seconds  # compiling and evaluation not counted
        if index:
            times['PyTorch'].append(seconds)
            times['tljax'].append(ours)
    shape = batches[0]['tokens'].shape
    common.table(f'MiniLM, batches of {shape}: a training step', times, per=chosen.speed_steps)


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    speed(chosen)
    for name in RECIPES:
        quality(name, chosen)


if __name__ == '__main__':
    main()
