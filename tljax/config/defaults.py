"""Every key of a config with its default, and what values it may have.

Keys are the same in every recipe, so a key that is not here is a mistake, and an error.
"""

import math

from ml_collections import ConfigDict, FieldReference

# How a run is carried out, not what it computes: these may change between a run and its resumption.
NOT_IN_FINGERPRINT = (
    'data.dir',
    'data.in_memory',
    'data.prepared',
    'prefix.dir',
    'prefix.store',
    'source.card',  # what it says of the input is in data.*
    'source.workdir',
    'study.vectorize',
    'train.keep',
    'train.log_every',
    'train.save_every',
)
CHOICES = {
    'data.in_memory': ('auto', 'on', 'off'),
    'data.interpolation': ('auto', 'bilinear', 'bicubic'),
    'data.on_error': ('skip', 'refuse'),
    'optim.name': ('adamw', 'sgd'),
    'optim.schedule': ('constant', 'cosine'),
    'prefix.cache': ('auto', 'on', 'off'),
    'prefix.dtype': ('float32', 'bfloat16', 'float16'),
    'prefix.store': ('auto', 'device', 'memory', 'disk'),
    'study.vectorize': ('auto', 'on', 'off'),
    'task.balance': ('none', 'loss'),
}
LEAST = {
    'data.bits': 8,
    'data.buckets': 0,
    'data.holdout': 0,
    'data.length': 0,
    'data.rate': 0,
    'data.shots': 0,
    'data.split_seed': 0,
    'data.test_share': 1e-30,
    'optim.clip': 0,
    'prefix.views': 0,
    'optim.ema': 0,
    'optim.lr': 1e-30,
    'optim.momentum': 0,
    'optim.warmup_steps': 0,
    'optim.weight_decay': 0,
    'rank.resamples': 0,
    'seed': 0,
    'study.delta': 0,
    'study.eval_points': 2,
    'study.lr_high': 1e-30,
    'study.lr_low': 1e-30,
    'study.seeds': 1,
    'study.trials': 1,
    'study.tuning_seeds': 1,
    'task.label_smoothing': 0,
    'train.accumulate': 1,
    'train.batch_size': 1,
    'train.eval_every': 1,
    'train.keep': 1,
    'train.log_every': 1,
    'train.patience': 0,
    'train.save_every': 1,
    'train.steps': 1,
    'tune.budget': 0,
    'tune.eval_points': 2,
    'tune.lr_high': 0,
    'tune.lr_low': 0,
    'tune.lrs': 1,
    'tune.range_steps': 10,
    'tune.rate': 2,
    'tune.seeds': 1,
}


ABOVE = {
    'data.bits': 17,
    'data.split_seed': 2**31,
    'data.test_share': 1,
    'optim.clip': math.inf,
    'optim.ema': 1,
    'optim.lr': math.inf,
    'optim.momentum': 1,
    'optim.weight_decay': math.inf,
    'seed': 2**31,
    'study.delta': math.inf,
    'study.lr_high': math.inf,
    'task.label_smoothing': 1,
    'tune.lr_high': math.inf,
}


def default() -> ConfigDict:
    """Every key that tljax reads, with its default; a recipe changes what differs.

    >>> default().optim.schedule
    'cosine'
    """
    config = ConfigDict(
        dict(
            title='',  # what the report calls this; '' is the config's file name
            seed=0,  # of everything random: subset, initialisation, order, dropout
            task=dict(
                name='classification',
                label_smoothing=0.0,
                metric='accuracy',  # the headline: accuracy, macro_f1, auc, ...
                balance='none',  # 'loss' lets every class weigh alike, however rare it is
            ),
            # And the arguments of that model; 'source' is the one that the source has.
            model=dict(name=''),
            source=dict(
                # '' is from scratch; a path; config:FILE:ARG, trained first if needed;
                # package:NAME; hf://ORG/NAME[@REVISION]; url:https://...#sha256=HEX
                uri='',
                card='',  # of `launch.py sources`, or a .toml file; '' finds it by the uri
                peft='',  # a file of `export --format=peft`, put over the source
                workdir='',  # where a config: source is kept; '' is WORKDIR/source
            ),
            data=dict(
                name='',
                # Where prepared sets lie, '' being TFDS's own default; but of the user's own data
                # ('folder') the folder itself.
                dir='',
                prepared='',  # where the user's own data is prepared; '' is a cache folder
                test_share=0.2,  # of the user's rows for test, where they have no test split
                split_seed=0,  # of that draw, which every run shares
                # No group is in two splits: a column, or of a folder an expression that is searched
                # for in paths below the class, such as '(patient[0-9]+)'.
                group='',
                # Columns of a 'table', names of arrays, or features of a tfds: set that has other
                # names; '#0' is the first column of a file without header.
                text='',
                text_b='',  # a second text of each row
                image='',  # paths of image files
                audio='',  # paths of sound files
                label='',
                split='',  # tells train, validation or test
                encoding='',  # '' finds it
                delimiter='',  # '' finds it
                rate=0,  # samples a second that sounds are brought to; 0 is as they are
                on_error='skip',  # 'skip' leaves bad rows out and lists them, 'refuse' stops
                bits=16,  # that 16-bit images of the user's really use
                train='train',
                validation='',  # a TFDS split; '' draws `holdout` examples from train
                test='test',
                holdout=0.2,  # share (below 1) or number of train examples for validation
                shots=0,  # labels a class; 0 is all
                classes=(),  # keep these only, relabelled in this order; () is all
                # Left at these defaults, the next six are what the source's card says.
                image_size=0,  # 0 is as stored
                resize=0,  # shorter side, before the middle is taken; 0 or -1 stretches instead
                interpolation='auto',
                channels=0,
                mean=(),
                std=(),
                augment=(),  # random changes of training pictures: 'flip', 'crop'
                # Of texts: 'bpe(N)', trained on them; a tokenizer's file or folder; or
                # 'config:FILE:ARG', that of another recipe. '' is the source's, or bpe(4096).
                tokenizer='',
                length=0,  # tokens an example; 0 is the source's, or 128
                # Lengths that batches of texts are cut to, data.length and its halves, so many at
                # most; examples of about one length come together then. 0 is data.length alone,
                # and so is what a kept prefix or mapped runs read.
                buckets=0,
                in_memory='auto',
            ),
            transfer=dict(
                policy=FieldReference('full', field_type=object),  # a name, or a list of phases
                # (expression over module paths, method) pairs, such as ('.*/query', 'lora(rank=4)')
                inject=(),
                reset=(),  # expressions: target leaves left at their initialisation
                rename=(),  # (expression, replacement) pairs on source paths
                resize=(),  # (expression, 'position' or 'channels') pairs on target paths
                unused=(),  # expressions: source leaves that nothing needs to read
                regularize=(),  # such as 'l2_sp(alpha=0.1)'; see tljax.transfer.regularizers
                # Whether batch statistics are estimated on the training subset before the first
                # update; otherwise they begin as the source's.
                adapt_norm=False,
            ),
            optim=dict(
                name='adamw',
                lr=1e-3,
                schedule='cosine',
                warmup_steps=0,
                restart=True,  # the schedule in each phase of a policy; False runs over all of them
                weight_decay=0.0,  # of matrices and convolution kernels
                momentum=0.9,  # of sgd
                clip=0.0,  # largest global gradient norm; 0 is no clipping
                ema=0.0,  # decay of moving averages, which are evaluated and saved; 0 is none
            ),
            prefix=dict(  # what doesn't depend on trained leaves, computed once an example
                cache='auto',  # where it pays; 'on' wherever there is any; 'off'
                dtype='float32',  # in which floating-point features are kept
                views=0,  # of each augmented example, kept; 0 augments anew and keeps none
                store='auto',  # 'device', 'memory' or 'disk'; 'auto' is by size
                dir='',  # kept here between runs; '' keeps nothing
            ),
            train=dict(
                steps=1000,
                batch_size=32,
                accumulate=1,  # micro-batches a step
                eval_every=100,
                # Evaluations in a row without improvement after which training stops and the best
                # is restored; 0 trains to the end and takes what is there.
                patience=0,
                save_every=500,
                log_every=20,
                keep=2,  # newest checkpoints kept, beside the best
            ),
            study=dict(
                seeds=10,
                trials=5,  # learning rates tried for each arm, spaced evenly in log
                tuning_seeds=2,  # runs a trial, on seeds of their own
                lr_low=3e-4,
                lr_high=3e-2,
                eval_points=24,  # evaluations along a learning curve, denser at its start
                delta=0.01,  # a difference at the end, in the metric's unit, that counts as none
                vectorize='auto',
            ),
            rank=dict(  # what `launch.py rank` puts in order
                # As source.uri takes them, or 'random:MODEL(argument=value)' for an untrained one.
                sources=(),
                by='',  # the score whose order is the recommendation; '': study/rank.py's DECIDING
                scores=(),  # others that are shown; () is all
                resamples=50,  # halves of the examples, for the intervals
                untrained=True,  # whether each model is also scored before any training
            ),
            tune=dict(  # what `launch.py tune` searches: policies x learning rates x weight decays
                policies=('linear_probe', 'head_then_full', 'full'),
                lrs=3,  # learning rates a policy, spaced evenly in log; 1 is optim.lr alone
                # Bounds of the learning rates; 0 is found by a range test of each policy.
                lr_low=0.0,
                lr_high=0.0,
                range_steps=100,  # of such a range test
                weight_decays=(0.0, 0.01),
                rate=3,  # one candidate in so many goes on to the next round, for so many times
                seeds=1,  # runs a candidate in each round
                budget=0,  # steps of all runs together; 0 is as many as all candidates take
                eval_points=12,  # evaluations along a run
            ),
        )
    )
    return config.lock()
