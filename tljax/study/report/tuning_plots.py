"""The pictures of a search: curves of train beside validation, and learning-rate range tests."""

import math
from collections.abc import Mapping
from typing import Any

from tljax.study.report import plots
from tljax.study.report.figures import plain_number

Results = Mapping[str, Any]

TRAIN, VALIDATION = plots.COLOURS['scratch'], plots.COLOURS['transfer']
COLUMNS = 3
MOST_PANELS = 12  # candidates whose curves are drawn, the best first


def curves(results: Results, form: str = 'svg') -> bytes:
    """Train and validation along the steps, one panel a candidate, the best first.

    Args:
      results: see `tljax.study.report.tuning`.
      form: 'svg' or 'png'.

    Returns:
      The file's bytes, the same for the same results.
    """
    order = results['ranking'][:MOST_PANELS]
    rows = -(-len(order) // COLUMNS)
    with plots._style():
        figure = plots._figure(7.2, 0.5 + 1.75 * rows)
        panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel()
        for place, axes in enumerate(panels):
            if place >= len(order):
                axes.set_visible(False)
                continue
            _curve(axes, results, order[place], place + 1)
        metric = results['metric']
        figure.supylabel(f'{metric["name"]} ({plots._direction(metric)})', fontsize=9)
        figure.supxlabel('steps', fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside upper left', ncols=3, handlelength=3.2)
        return plots._bytes(figure, form)


def _curve(axes: Any, results: Results, index: int, place: int) -> None:
    candidate, name = results['candidates'][index], results['metric']['name']
    curve, found = candidate['curve'], candidate['diagnosis']
    for kind, colour, line in (('train', TRAIN, (0, (4, 1.6))), ('validation', VALIDATION, '-')):
        values = plots._floats(curve[kind][name])
        axes.plot(curve['steps'], values, color=colour, linestyle=line, linewidth=1.5, label=kind)
        if kind == 'validation' and found['best_step'] is not None:
            best = values[curve['steps'].index(found['best_step'])]
            axes.plot(
                [found['best_step']], [best], color=colour, linestyle='', marker='o',
                markersize=4.5, label='best validation',
            )  # fmt: skip
    axes.set_title(
        f'{place}. {shortened(candidate["policy"])}\n'
        f'lr {plain_number(candidate["lr"])}, wd {plain_number(candidate["weight_decay"])}: '
        f'{found["word"]}',
        fontsize=7.5,
    )
    axes.tick_params(labelsize=7.5)
    axes.locator_params(axis='x', nbins=4)
    axes.grid(axis='y', color=plots.FAINT, linewidth=0.6)


def ranges(results: Results, form: str = 'svg') -> bytes:
    """The smoothed loss over the learning rate, one panel a policy, its bounds shaded.

    Args:
      results: see `tljax.study.report.tuning`.
      form: 'svg' or 'png'.

    Returns:
      The file's bytes, the same for the same results.
    """
    tests = list(results['ranges'].items())
    rows = max(-(-len(tests) // COLUMNS), 1)
    with plots._style():
        figure = plots._figure(7.2, 0.5 + 1.75 * rows)
        panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for place, axes in enumerate(panels):
            if place >= len(tests):
                axes.set_visible(False)
                continue
            _range(axes, *tests[place])
        figure.supylabel('smoothed loss', fontsize=9)
        figure.supxlabel('learning rate', fontsize=9)
        return plots._bytes(figure, form)


def _range(axes: Any, name: str, test: Mapping[str, Any]) -> None:
    losses = plots._floats(test['losses'])
    if test['low'] is not None:
        axes.axvspan(test['low'], test['high'], facecolor=plots.FAINT, alpha=0.6, linewidth=0)
    axes.plot(test['lrs'], losses, color=VALIDATION, linewidth=1.5)
    axes.set_xscale('log')
    axes.set_xticks([1e-6, 1e-4, 1e-2, 1], ['1e-6', '1e-4', '0.01', '1'])
    axes.set_xticks([], minor=True)
    lowest = min(losses, default=0.0)
    first = max(losses[: -(-len(losses) // 2)], default=1.0)
    rise = max(first - lowest, abs(first) * 0.05, math.ulp(1.0))
    axes.set_ylim(lowest - 0.1 * rise, first + 0.7 * rise)  # what diverges leaves the picture
    axes.set_title(shortened(name), fontsize=7.5)
    axes.tick_params(labelsize=7.5)
    axes.grid(axis='y', color=plots.FAINT, linewidth=0.6)


def shortened(name: str, most: int = 34) -> str:
    """A name that fits over a panel.

    >>> shortened('discriminative(rates=(0.1, 0.3, 1.0))', 20)
    'discriminative(r...'
    """
    return name if len(name) <= most else name[: most - 4] + '...'
