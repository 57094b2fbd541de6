"""PyTorch's part of adapting.py: one way in this process, which loads neither jax nor tljax.

`plain` is the loop as users write it: what is frozen has requires_grad off and is in evaluation
mode, so that autograd keeps nothing for it and computes no gradients of it. `by hand` computes the
features of the frozen part beforehand, once, and trains what is behind them on those.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch import nn


def network(folder: Path, job: dict[str, Any]) -> dict[str, nn.Module]:
    """torchvision's ResNet with our weights, in three parts that follow each other."""
    net = getattr(common.torchvision().models, f'resnet{job["depth"]}')(num_classes=job['classes'])
    with np.load(folder / 'torch.npz') as file:
        lost = net.load_state_dict({n: torch.tensor(file[n]) for n in file}, strict=False)
    untold = [name for name in lost.missing_keys if not name.endswith('num_batches_tracked')]
    assert not [*untold, *lost.unexpected_keys], lost
    lower = nn.Sequential(
        net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3
    )
    pool = nn.Sequential(net.avgpool, nn.Flatten())
    return {'lower': lower, 'last': nn.Sequential(net.layer4, pool), 'head': net.fc}


def split(parts: dict[str, nn.Module], adaptation: str) -> tuple[nn.Module, nn.Module]:
    """The frozen part, in evaluation mode and without gradients, and the trained one."""
    first = {'linear probe': 2, 'last stage': 1, 'full': 0}[adaptation]
    modules = list(parts.values())
    frozen, trained = nn.Sequential(*modules[:first]), nn.Sequential(*modules[first:])
    frozen.eval().requires_grad_(False)
    return frozen, trained.train()


def prepared(images: torch.Tensor, job: dict[str, Any]) -> torch.Tensor:
    """From (N, C, H, W) uint8 to what the network reads."""
    mean, std = (torch.tensor(job[key]).reshape(1, -1, 1, 1) for key in ('mean', 'std'))
    x = (images.float() / 255 - mean) / std
    return x.contiguous(memory_format=torch.channels_last) if job['channels_last'] else x


def trained_on(frozen, trained, inputs, labels, order, job, prepare) -> list[float]:
    """Trains; gives the loss of each step."""
    sgd = torch.optim.SGD(trained.parameters(), job['lr'], job['momentum'])
    losses = []
    for step, rows in enumerate(order):
        x, y = prepare(inputs[rows]), labels[rows]
        loss = nn.functional.cross_entropy(trained(frozen(x)), y)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
        common.progress(step + 1, len(order))
    return losses


def features_of(frozen: nn.Module, images: torch.Tensor, job: dict[str, Any]) -> torch.Tensor:
    """Those of all pictures."""
    with torch.no_grad():
        return torch.cat([frozen(prepared(x, job)) for x in images.split(job['batch'])])


def warm_up(frozen, trained, images, labels, job) -> None:
    """One forward and backward pass that changes nothing: libraries set themselves up in it."""
    kept = {name: value.clone() for name, value in trained.state_dict().items()}
    size = job['batch']
    logits = trained(frozen(prepared(images[:size], job)))
    nn.functional.cross_entropy(logits, labels[:size]).backward()
    trained.zero_grad()
    trained.load_state_dict(kept)


def main() -> None:
    folder, adaptation, way = Path(sys.argv[1]), *sys.argv[2:]
    began = time.perf_counter()
    job = json.loads((folder / 'job.json').read_text())
    images = torch.from_numpy(np.load(folder / 'image.npy')).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(np.load(folder / 'label.npy').astype(np.int64))
    order = torch.from_numpy(np.load(folder / f'{adaptation}.npy').astype(np.int64))
    parts = network(folder, job)
    if job['channels_last']:
        parts = {n: part.to(memory_format=torch.channels_last) for n, part in parts.items()}
    frozen, trained = split(parts, adaptation)
    base = common.memory('VmRSS')
    warm_up(frozen, trained, images, labels, job)
    started = time.perf_counter()
    if way == 'by hand':
        inputs = features_of(frozen, images, job)
        features = time.perf_counter() - started
        peak = common.new_peak()
        losses = trained_on(nn.Identity(), trained, inputs, labels, order, job, lambda x: x)
    else:
        features, peak = 0.0, common.new_peak()
        losses = trained_on(frozen, trained, images, labels, order, job, lambda x: prepared(x, job))
    seconds = time.perf_counter() - started
    steps = common.memory('VmHWM')
    result = dict(
        losses=losses,
        seconds=seconds,
        features=features,
        steps=seconds - features,
        before=started - began,
        memory=dict(base=base, steps=steps, peak=max(peak, steps)),
        said=f'torch {torch.__version__}, {torch.get_num_threads()} threads',
    )
    print(json.dumps(result))


if __name__ == '__main__':
    main()
