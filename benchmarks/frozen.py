"""A frozen backbone's train step: tljax's split step against freezing with optax.

A network of wide layers of which only the head is trained, adamw, in ways one meets in the wild.
FLOPs are XLA's count of the compiled step; the last column is whether a frozen leaf moved.
"""

import common
import jax
import numpy as np
import optax
from flax import nnx

from tljax import config as config_lib
from tljax import trees
from tljax.models import Model, merge
from tljax.tasks.classification import Classification
from tljax.train import optimizer
from tljax.train import state as state_lib
from tljax.train.state import own_buffers
from tljax.transfer import policies

SMALL = dict(width=512, depth=6, batch=256, steps=5, repeats=5)
FULL = dict(width=1024, depth=8, batch=512, steps=10, repeats=7)
CLIP, STEPS = 1.0, 1000  # STEPS: length of a schedule that is constant here
TASK = Classification(('a', 'b'))


class Wide(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, width: int, depth: int):
        self.backbone = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth)])
        self.head = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, batch, rngs=None):
        x = batch['x']
        for layer in self.backbone:
            x = nnx.relu(layer(x))
        return self.head(x)


def idioms(params, decisions, optim, clipped):
    """Optax transformations of the whole tree, by how they keep the backbone frozen."""
    frozen = trees.map_with_path(lambda path, leaf: decisions[path] is None, params)
    trained = jax.tree.map(lambda leaf: not leaf, frozen)
    adamw = optax.adamw(optim.lr, weight_decay=optim.weight_decay)
    selective = optax.transforms.selective_transform(adamw, freeze_mask=frozen)
    return {
        'everything trained': adamw,
        'masked(adamw)': optax.masked(adamw, trained),
        'chain(adamw, freeze)': optax.chain(adamw, optax.transforms.freeze(frozen)),
        'selective_transform': selective,
        'selective_transform, clip': optax.chain(optax.clip_by_global_norm(CLIP), selective),
        'tljax whole_tree': optimizer.whole_tree(optim, decisions, STEPS),
        'tljax whole_tree, clip': optimizer.whole_tree(clipped, decisions, STEPS),
    }


def with_optax(model, tx, params, norm=False):
    """`step(state, fixed, batch)` over the whole tree, the first state, and nothing fixed."""
    graph = model.graph(train=True)

    def loss_of(params, batch):
        return TASK.loss(merge(graph, params, {}), batch, jax.random.key(0))[0]

    def step(state, fixed, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_of)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        metrics = {'loss': loss, **({'grad_norm': optax.tree.norm(grads)} if norm else {})}
        return (optax.apply_updates(params, updates), opt_state), metrics

    return step, (params, tx.init(params)), None


def with_split(model, decisions, params, optim):
    """The same by tljax's step, which measures the gradient's norm; the backbone is fixed."""
    tx = optimizer.direction(optim, decisions)
    factor = optimizer.schedule(optim, STEPS)
    step = common.split_step(model, TASK, tx, factor, decisions)
    halves = trees.partition(params, {path: d is not None for path, d in decisions.items()})
    return step, state_lib.create(halves[0], {}, tx, optim.lr, jax.random.key(1)), halves[1]


def prepared(ways, batch, params, steps):
    """For each way a function that takes some steps, and its row's further columns."""
    variants, columns = {}, {'MFLOP': {}, 'optimiser kB': {}, 'frozen move': {}}
    before = np.asarray(params['backbone']['0']['kernel'])
    for name, (step, state, fixed) in ways.items():
        program = jax.jit(step, donate_argnums=0).lower(state, fixed, batch).compile()
        flops = (program.cost_analysis() or {}).get('flops')
        columns['MFLOP'][name] = f'{flops / 1e6:,.0f}' if flops else 'unknown'
        opt_state = state[1] if fixed is None else state.opt_state
        columns['optimiser kB'][name] = f'{trees.nbytes(opt_state) / 1e3:,.0f}'

        def some(program=program, state=state, fixed=fixed):
            now = own_buffers(state)
            for _ in range(steps):
                now, _ = program(now, fixed, batch)
            return now

        after = some()[0]['backbone']['0']['kernel'] if fixed is None else before
        columns['frozen move'][name] = 'no' if np.array_equal(after, before) else 'YES'
        variants[name] = some
    return variants, columns


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    model = Model(lambda rngs: Wide(rngs, chosen.width, chosen.depth))
    params = jax.jit(model.init)(jax.random.key(0))['params']
    rng = np.random.default_rng(0)
    x = rng.normal(size=(chosen.batch, chosen.width)).astype(np.float32)
    batch = jax.device_put({'x': x, 'label': rng.integers(0, 2, chosen.batch, dtype=np.int32)})
    rules = [('head/.*', {}), ('.*', None)]
    decisions = policies.decide(policies.Phase(0, STEPS, rules), trees.flatten(params))
    optim = config_lib.default().optim
    optim.update(lr=1e-3, weight_decay=1e-4, schedule='constant')
    clipped = config_lib.default().optim
    clipped.update(optim, clip=CLIP)
    found = idioms(params, decisions, optim, clipped)
    ways = {name: with_optax(model, tx, params) for name, tx in found.items()}
    ways['tljax whole_tree, norm logged'] = with_optax(
        model, found['tljax whole_tree'], params, norm=True
    )
    ways['tljax split step'] = with_split(model, decisions, params, optim)
    ways['tljax split step, clip'] = with_split(model, decisions, params, clipped)
    variants, columns = prepared(ways, batch, params, chosen.steps)
    times = common.measure(variants, chosen.repeats)
    title = f'{chosen.depth} x {chosen.width} frozen, batch {chosen.batch}: a step'
    common.table(title, times, per=chosen.steps, columns=columns)


if __name__ == '__main__':
    main()
