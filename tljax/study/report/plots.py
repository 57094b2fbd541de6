"""The pictures of a report, drawn without a display and without pyplot's global state.

The arms differ in colour (a dark blue and an orange that stay apart in grey and for all common
kinds of colour blindness), in line style and in marker.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

from tljax.study.report.figures import has_interval, plain_number
from tljax.study.report.wording import (
    ARMS,
    Results,
    delta,
    error_gaps,
    gap_is_rescaled,
    gap_unit,
    split_names,
)

INK, QUIET, FAINT = '#1d2328', '#5b6670', '#d5dade'
COLOURS = {'transfer': '#0b4f8a', 'scratch': '#d07a12'}
LINES = {'transfer': '-', 'scratch': (0, (4, 1.6))}
MARKERS = {'transfer': 'o', 'scratch': 's'}
LABELS = {'transfer': 'transfer', 'scratch': 'from scratch'}
STYLE: dict[str, Any] = {
    'axes.axisbelow': True,
    'axes.edgecolor': QUIET,
    'axes.labelcolor': INK,
    'axes.linewidth': 0.8,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlelocation': 'left',
    'axes.titlesize': 9.5,
    'axes.unicode_minus': True,
    'font.family': 'DejaVu Sans',  # the one that matplotlib carries
    'font.size': 9,
    'legend.frameon': False,
    'svg.fonttype': 'path',  # looks the same everywhere, whatever fonts there are
    'svg.hashsalt': 'tljax',  # the same results give the same bytes
    'text.color': INK,
    'text.parse_math': False,  # a name with a dollar sign is a name
    'xtick.color': QUIET,
    'xtick.labelcolor': INK,
    'ytick.color': QUIET,
    'ytick.labelcolor': INK,
}
DOTS_PER_INCH = 160
MOST_SEED_ROWS = 24  # more seeds are drawn without a number each


def learning_curves(results: Results, form: str = 'svg') -> bytes:
    """Both arms' metric over target examples seen, with bands of 95 % intervals.

    Args:
      results: `arms.*.curve` holds x (target examples), mean, low, high (the metric's unit).
      form: 'svg' or 'png'.

    Returns:
      The file's bytes, the same for the same results.
    """
    with _style():
        figure = _figure(7.2, 4.0)
        axes = figure.add_subplot()
        for arm in reversed(ARMS):  # transfer is drawn last, on top
            _curve(axes, arm, results['arms'][arm].get('curve') or {})
        _examples_axis(axes, results)
        _metric_axis(axes, results)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1],
            labels[::-1],
            loc='lower left',
            bbox_to_anchor=(-0.01, 1.0),
            ncols=2,
            handlelength=3.2,
            columnspacing=2.4,
        )
        return _bytes(figure, form)


def paired_finals(results: Results, form: str = 'svg') -> bytes:
    """The end, seed by seed: both arms joined by a line, and their differences.

    Args:
      results: `arms.*.finals` holds one number a seed (the metric's unit), `arms.*.final` and
        `measures.negative_transfer_gap` the means with intervals.
      form: 'svg' or 'png'.

    Returns:
      The file's bytes, the same for the same results.
    """
    n = len(results['seeds'])
    with _style():
        figure = _figure(7.2, 2.3 + 0.15 * min(max(n, 5), MOST_SEED_ROWS))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
        _paired_panel(left, results)
        _difference_panel(right, results)
        return _bytes(figure, form)


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Our style on matplotlib's defaults: a matplotlibrc at home must not change a report."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def _bytes(figure: Any, form: str) -> bytes:
    # A date or a version inside would make equal results unequal files.
    metadata = {'svg': {'Date': None, 'Creator': None}, 'png': {'Software': None}}[form]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=DOTS_PER_INCH, metadata=metadata, facecolor='white')
    return buffer.getvalue()


def _floats(values: Any) -> list[float]:
    return [float('nan') if value is None else float(value) for value in values or ()]


def _curve(axes: Any, arm: str, curve: Mapping[str, Any]) -> None:
    x, colour = curve.get('x') or [], COLOURS[arm]
    if not x:
        return
    low, high = _floats(curve.get('low')), _floats(curve.get('high'))
    if len(low) == len(high) == len(x) and any(v == v for v in low):  # nan: no interval
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        for edge in (low, high):
            axes.plot(x, edge, color=colour, linewidth=0.5, alpha=0.7, linestyle=LINES[arm])
    axes.plot(
        x,
        _floats(curve.get('mean')),
        color=colour,
        linestyle=LINES[arm],
        linewidth=1.8,
        marker=MARKERS[arm],
        markersize=3.4,
        label=LABELS[arm],
    )


def _examples_axis(axes: Any, results: Results) -> None:
    """x in doublings from the first update on, and 0 one doubling to the left of it."""
    seen = sorted(
        {v for arm in ARMS for v in (results['arms'][arm].get('curve') or {}).get('x', [])}
    )
    positive = [value for value in seen if value > 0]
    if len(positive) < 2:
        axes.set_xlabel('target examples seen')
        return
    first, last = positive[0], positive[-1]
    axes.set_xscale('symlog', base=2, linthresh=first, linscale=0.5)  # one doubling from 0 to it
    doublings = 0
    while first * 2 ** (doublings + 1) <= last * 1.001:
        doublings += 1
    step = 1 + doublings // 8
    ticks = [first * 2**k for k in range(0, doublings + 1, step)]
    ticks = [0, *ticks] if 0 in seen else ticks
    axes.set_xticks(ticks, [plain_number(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(left=-0.18 * first if 0 in seen else first * 0.9, right=last * 1.08)
    axes.set_xlabel(
        f'target examples seen (each step doubles from {plain_number(first)} on; '
        '0 is before the first update)'
        if 0 in seen
        else 'target examples seen (log scale)'
    )


def _metric_axis(axes: Any, results: Results) -> None:
    """y with chance level and ceiling; the whole range between them where both exist."""
    metric = results['metric']
    name, chance, ceiling = metric['name'], metric.get('chance'), metric.get('ceiling')
    lines = [('chance', chance), ('ceiling', ceiling)]
    for label, value in lines:
        if value is None:
            continue
        axes.axhline(value, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0.5)
        axes.annotate(
            f'{label} {plain_number(value)}',
            (1, value),
            xycoords=('axes fraction', 'data'),
            xytext=(0, 3),
            textcoords='offset points',
            ha='right',
            color=QUIET,
            fontsize=8,
        )
    if chance is not None and ceiling is not None:
        margin = 0.06 * abs(ceiling - chance)
        low, high = axes.get_ylim()
        low, high = min(low, chance, ceiling), max(high, chance, ceiling)
        axes.set_ylim(low - margin / 4, high + margin)
    axes.set_ylabel(f'{split_names(results)[0]} {name} ({_direction(metric)})')
    axes.grid(axis='y', color=FAINT, linewidth=0.6)


def _direction(metric: Mapping[str, Any]) -> str:
    return 'higher is better' if metric['higher_is_better'] else 'lower is better'


def _paired_panel(axes: Any, results: Results) -> None:
    """Scratch on the left, transfer on the right, a line a seed, means with intervals outside."""
    metric = results['metric']
    values = {arm: _floats(results['arms'][arm].get('finals')) for arm in ARMS}
    places = {'scratch': 0.0, 'transfer': 1.0}
    for scratch, transfer in zip(values['scratch'], values['transfer'], strict=True):
        axes.plot([0, 1], [scratch, transfer], color='#9aa4ad', linewidth=0.8, zorder=1)
    for arm, x in places.items():
        style = {'color': COLOURS[arm], 'marker': MARKERS[arm], 'zorder': 2}
        axes.plot([x] * len(values[arm]), values[arm], linestyle='', markersize=4, **style)
        final = results['arms'][arm].get('final')
        if final is None or final.get('mean') is None:
            continue
        outside = x + (0.22 if x else -0.22)
        error = (
            [[final['mean'] - final['low']], [final['high'] - final['mean']]]
            if has_interval(final)
            else None
        )
        axes.errorbar(
            outside, final['mean'], yerr=error, markersize=6.5, linewidth=1.8, capsize=3, **style
        )
    axes.set_xlim(-0.5, 1.5)
    axes.set_xticks(list(places.values()), [LABELS[arm] for arm in places])
    axes.set_ylabel(f'{split_names(results)[1]} {metric["name"]} ({_direction(metric)})')
    axes.set_title('final, and mean with 95 % interval')
    axes.grid(axis='y', color=FAINT, linewidth=0.6)
    axes.margins(y=0.12)


def _difference_panel(axes: Any, results: Results) -> None:
    """One row a seed with transfer minus scratch; the mean with its interval in the last row."""
    own, rescaled = error_gaps(results)
    # The gap counts error; seen from transfer, its sign turns.
    differences = [-gap for gap in (rescaled if gap_is_rescaled(results) else own)]
    n = len(differences)
    rows = list(range(n))
    width = delta(results)
    if width:
        axes.axvspan(-width, width, facecolor=FAINT, alpha=0.6, linewidth=0, zorder=0)
    axes.axvline(0, color=QUIET, linewidth=0.9, zorder=1)
    axes.hlines(rows, 0, differences, color='#9aa4ad', linewidth=0.8, zorder=1)
    axes.plot(differences, rows, linestyle='', marker='D', markersize=3.6, color=QUIET, zorder=2)
    gap = results['measures'].get('negative_transfer_gap')
    if gap is not None and gap.get('mean') is not None:
        # As the sign turns, the ends change place.
        error = (
            [[gap['high'] - gap['mean']], [gap['mean'] - gap['low']]] if has_interval(gap) else None
        )
        axes.errorbar(
            -gap['mean'], n + 0.6, xerr=error, marker='D', markersize=6.5, linewidth=1.8,
            capsize=3, color=INK, zorder=3,
        )  # fmt: skip
    names = {float(row): f'seed {seed}' for row, seed in zip(rows, results['seeds'], strict=False)}
    if n > MOST_SEED_ROWS:
        names = {(n - 1) / 2: f'{n} seeds'}
    axes.set_yticks([*names, n + 0.6], [*names.values(), 'mean [95 %]'])
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    axes.set_ylim(n + 1.2, -0.8)
    reach = max([abs(v) for v in axes.get_xlim()] + [2 * (width or 0)])
    axes.set_xlim(-reach, reach)
    axes.locator_params(axis='x', nbins=5, symmetric=True)
    band = f'\ngrey: counts as equal (within {plain_number(width)})' if width else ''
    axes.set_xlabel(f'lead of transfer in {gap_unit(results)}{band}')
    axes.set_title('scratch better \u2190 | \u2192 transfer better', loc='center', color=QUIET)
    axes.grid(axis='x', color=FAINT, linewidth=0.6)
