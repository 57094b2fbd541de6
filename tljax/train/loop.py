"""One run, from its config to a trained model: resumable at every moment."""

import math
from pathlib import Path
from typing import Any

import jax
from absl import logging

from tljax import config as config_lib
from tljax import mesh as mesh_lib
from tljax import trees
from tljax.errors import Interrupted, RunError, UserError
from tljax.progress import Progress
from tljax.train import experiment as experiment_lib
from tljax.train import norms, programs
from tljax.train.checkpoint import Checkpoints
from tljax.train.experiment import Experiment
from tljax.train.feed import Feed, shapes_of
from tljax.train.metrics import MetricWriter
from tljax.train.model_dir import save_model
from tljax.train.patience import Patience
from tljax.train.prefixed import PhaseRunner, Ready
from tljax.train.programs import PhaseProgram, compiled_eval
from tljax.train.signals import stop_requested
from tljax.train.state import TrainState, from_checkpoint, own_buffers, served, to_checkpoint
from tljax.train.stopwatch import Stopwatch
from tljax.train.workdir import check, claim, write_json
from tljax.transfer.regularizers import without_second_head


def train(experiment: Experiment, workdir: Path, *, quiet: bool = False) -> Path:
    """Trains, or goes on training, and leaves the model in `workdir/model`.

    A run that was stopped or killed goes on from its newest whole checkpoint and ends with the
    same parameters, bit for bit.

    Args:
      experiment: what to train.
      workdir: where everything is written; see DESIGN.md.
      quiet: no progress bar.

    Returns:
      The model's directory.

    Raises:
      UserError: the workdir holds a run of another config, or cannot be written.
      RunError: loss or gradient became non-finite, or writing failed.
      Interrupted: SIGTERM or Ctrl-C; the run saved itself first.
    """
    model_dir = workdir / 'model'
    check(workdir, experiment.config, 'train')
    if (model_dir / 'card.json').exists():
        logging.info('%s is trained already.', model_dir)
        return model_dir
    run = Run(experiment, workdir)
    claim(workdir, experiment.config, 'train')
    write_json(workdir / 'splits.json', experiment.data.record(experiment.config.seed))
    saves = experiment.config.train
    with (
        stop_requested() as stop,
        Checkpoints(workdir / 'checkpoints', keep=saves.keep, every=saves.save_every) as ckpts,
    ):
        run.restore(ckpts)
        with (
            MetricWriter(workdir, run.step) as writer,
            Progress(saves.steps, 'step', initial=run.step, quiet=quiet) as progress,
        ):
            run.go(ckpts, writer, progress, stop)
        ckpts.wait()
        run.take_best(ckpts)
    run.save_model(model_dir)
    return model_dir


class Run:
    """The state of one training run on its devices."""

    def __init__(self, experiment: Experiment, workdir: Path):
        self.experiment, self.workdir = experiment, workdir
        self.config = experiment.config
        self.mesh = mesh_lib.data_mesh()
        mesh_lib.check_batch_size(self.mesh, self.config.train.batch_size)
        data, seed = experiment.data, self.config.seed
        train, validation = data.split('train'), data.split('validation')
        subset, self.order = experiment.order(seed)
        self.data_identity = self.order.fingerprint() + experiment.data_identity(seed)
        self.feed = Feed(train, self.mesh, subset, experiment.views)
        self.validation = Feed(validation, self.mesh)
        self.evaluate = compiled_eval(experiment)
        self.step, self.seconds = 0, 0.0
        self.patience = Patience(self.config.train.patience, experiment.phases[-1].first)
        self.best_step: int | None = None
        self._enter(experiment.phases[0])
        init_key, train_key = experiment_lib.run_keys(seed)
        variables = jax.jit(experiment.init)(init_key, experiment.loaded)
        variables = mesh_lib.put_replicated(self.mesh, variables)
        if norms.wanted(experiment):
            estimate = norms.compiled_estimate(experiment)
            variables = norms.adapted(estimate, variables, self.feed, self.order)
        _, self.frozen = self.program.split(variables['params'])
        state = self.program.start(variables, self.config.optim.lr, train_key)
        self.state: TrainState = mesh_lib.put_replicated(self.mesh, own_buffers(state))

    def _enter(self, phase: Any) -> None:
        self.program: PhaseProgram = programs.program(self.experiment, phase)
        self.runner = PhaseRunner(self.experiment, self.program, self.evaluate)
        self.ready: Ready | None = None

    def params(self) -> trees.Tree:
        return trees.combine(self.state.trainable, self.frozen)

    def variables(self) -> experiment_lib.Variables:
        """What is evaluated and saved: moving averages where they are kept."""
        trainable, batch_stats = served(self.state)
        return {'params': trees.combine(trainable, self.frozen), 'batch_stats': batch_stats}

    def switch(self, phase: Any) -> None:
        """Goes over to another phase: splits again, keeps what optimiser state still applies."""
        params = self.params()
        self._enter(phase)
        state = self.program.enter(self.state, params)
        _, frozen = self.program.split(params)
        state = own_buffers(state)  # the recombined parameters stay with the frozen half too
        self.state, self.frozen = mesh_lib.put_replicated(self.mesh, (state, frozen))

    def restore(self, checkpoints: Checkpoints) -> None:
        """Takes up the newest whole checkpoint, if there is one."""
        found = checkpoints.restore(self._abstract_at)
        if found is None:
            return
        self.step, tree, meta = found
        self.seconds = meta['seconds']
        self.patience.load(meta.get('evaluations'))
        if meta['data']['identity'] != self.data_identity:
            raise UserError(
                f'the data is not what it was when {self.workdir} was saved: its version, '
                'its examples or their order changed. Start again in a new workdir.'
            )
        self._take(self.step, tree)
        logging.info('Going on from step %d of %s.', self.step, self.workdir)

    def _take(self, step: int, tree: Any) -> None:
        """Takes up the state that a checkpoint of that step holds."""
        phase = self.experiment.phase_at(step)
        if phase != self.program.phase:
            self._enter(phase)
        trainable, self.frozen = self.program.split(tree['params'])
        like = self.program.tx.init(trainable)
        self.state = from_checkpoint(self.state, tree, trainable, like)

    def take_best(self, checkpoints: Checkpoints) -> None:
        """Goes back to the best evaluation, where `train.patience` asks for it."""
        if not self.patience.limit:
            return
        found = checkpoints.restore(self._abstract_at, best=True)
        if found is None:
            return
        self.best_step, tree, _ = found
        self._take(self.best_step, tree)
        logging.info('Trained %d steps; the model is that of step %d.', self.step, self.best_step)

    def _abstract_at(self, step: int) -> dict[str, Any]:
        """What a checkpoint of that step holds, as shapes with shardings."""
        program = programs.program(self.experiment, self.experiment.phase_at(step))
        shapes = self.experiment.model.shapes()

        def start(variables):
            state = program.start(variables, 0.0, jax.random.key(0))
            return to_checkpoint(state, variables['params'])

        tree = jax.eval_shape(start, shapes)
        sharding = mesh_lib.replicated(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    def go(self, checkpoints: Checkpoints, writer: MetricWriter, progress: Progress, stop) -> None:
        """The training loop; at each step, in this order: phase, evaluation, save, stop, update."""
        train, watch = self.config.train, Stopwatch(self.seconds)
        while True:
            phase = self.experiment.phase_at(self.step)
            if phase != self.program.phase:
                self.switch(phase)
            if self.ready is None:
                with watch.paused(self.state):
                    self.ready = ready = self.prepared()
                watch.add(ready.feed.seconds)
                batches = ready.feed.batches(self.order, self.step, train.steps)
                warm: set[Any] = set()
            last, metric = self.step == train.steps, None
            if last or self.step % train.eval_every == 0:
                with watch.paused(self.state):
                    metric = self.report(checkpoints, writer, progress)
                # Only what is better than all before is a best checkpoint: then it doesn't depend
                # on how often the run saves.
                if train.patience:
                    metric = metric if self.patience.see(self.step, metric) else None
                    last = last or self.patience.exhausted
            stopping = not last and stop(self.step)
            best = bool(train.patience) and metric is not None
            if last or stopping or best or (self.step and self.step % train.save_every == 0):
                self.seconds = watch.read(self.state)
                self.save(checkpoints, metric)
            if last:
                return
            if stopping:
                checkpoints.wait()
                raise Interrupted(
                    f'stopped at step {self.step} of {train.steps} and saved in '
                    f'{checkpoints.directory}; the same command goes on from there.'
                )
            data, indices = next(batches)
            if shapes_of(data) not in warm:
                with watch.paused(self.state):  # compilation is no training
                    ready.step(own_buffers(self.state), ready.fixed, data, indices)
                warm.add(shapes_of(data))
            self.state, metrics = ready.step(self.state, ready.fixed, data, indices)
            self.step += 1
            if self.step % train.log_every == 0:
                self.check_finite(checkpoints)
                writer.write(self.step - 1, {f'train/{k}': v for k, v in metrics.items()})
            progress.update(1)

    def prepared(self) -> Ready:
        """The phase's step and batches, or what is left of them behind a frozen prefix."""
        decision = self.runner.decide(len(self.feed.subset))
        words = 'computed once' if decision.worth else 'not kept'
        logging.info('Frozen prefix: %s; %s.', words, decision.reason)
        stats = self.state.batch_stats
        return self.runner.ready(self.frozen, stats, self.feed, self.validation)

    def report(self, checkpoints: Checkpoints, writer: MetricWriter, progress: Progress) -> float:
        """Evaluates on validation; returns the headline metric, turned so that higher is better."""
        assert self.ready is not None
        evaluate, validation = self.ready.evaluate, self.ready.validation
        variables = self.variables()
        sums = validation.evaluate(evaluate, variables['params'], variables['batch_stats'])
        task = self.experiment.task
        values = task.metrics(sums)
        if not all(map(math.isfinite, values.values())):
            raise RunError(self.diverged(self.step, checkpoints))
        writer.write(self.step, {f'validation/{name}': value for name, value in values.items()})
        progress.note(f'{task.metric} {values[task.metric]:.3f}')
        return values[task.metric] if task.higher_is_better else -values[task.metric]

    def save(self, checkpoints: Checkpoints, metric: float | None) -> None:
        self.check_finite(checkpoints)
        meta = {
            'config': config_lib.plain(self.config),
            'fingerprint': config_lib.fingerprint(self.config),
            'data': {'next_step': self.step, 'identity': self.data_identity},
            'seconds': self.seconds,
            'evaluations': self.patience.to_json(),
        }
        tree = to_checkpoint(self.state, self.params())
        checkpoints.save(self.step, tree, meta, metric, force=True)

    def check_finite(self, checkpoints: Checkpoints) -> None:
        """Stops a run that went wrong.

        Raises:
          RunError: names the step, the learning rate and the last good checkpoint.
        """
        bad = int(self.state.bad_step)
        if bad < 0:
            return
        raise RunError(self.diverged(bad, checkpoints))

    def diverged(self, step: int, checkpoints: Checkpoints) -> str:
        """The message for a loss or gradient that became non-finite."""
        checkpoints.wait()
        good = checkpoints.latest_step()
        where = 'there is none yet' if good is None else checkpoints.directory / str(good)
        return (
            f'loss or gradient became non-finite at step {step}, with config.optim.lr = '
            f'{self.config.optim.lr:g}. Last good checkpoint: {where}. Try a lower optim.lr, '
            'optim.warmup_steps or optim.clip, in a new workdir.'
        )

    def save_model(self, directory: Path) -> None:
        experiment = self.experiment
        card = {
            'title': self.config.title,
            'fingerprint': config_lib.fingerprint(self.config),
            'config': config_lib.plain(self.config),
            'model': config_lib.plain(self.config.model),
            'data': experiment.data.full_name,
            'synthetic': experiment.data.synthetic,
            'label_names': list(experiment.data.label_names),
            'outputs': experiment.task.outputs,
            'example': {k: list(x.shape) for k, x in experiment.data.example.items()},
            'task': config_lib.plain(self.config.task),
            'steps': self.step,
            'examples': self.step * self.config.train.batch_size,
            'seconds': self.seconds,
            **({} if self.best_step is None else {'best_step': self.best_step}),
            'source': experiment.card,
            'policy': experiment.policy,
        }
        manifest = experiment.manifest.to_json() if experiment.manifest else None
        made = getattr(experiment.data.form, 'tokenizer', None)
        files = {'tokenizer.json': made.text} if made else {}
        save_model(directory, without_second_head(self.variables()), card, manifest, files)
