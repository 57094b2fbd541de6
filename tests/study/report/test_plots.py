"""The pictures: what they show, that they can be read, and that they leave no trace."""

import itertools
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from tljax.study.report import plots

PICTURES = (plots.learning_curves, plots.paired_finals)


@pytest.fixture
def figure(monkeypatch):
    """Draws a picture and gives the matplotlib figure instead of bytes."""

    def draw(picture, results):
        with monkeypatch.context() as patch:
            patch.setattr(plots, '_bytes', lambda figure, form: figure)
            return picture(results)

    return draw


def luminance(colour):
    """Relative luminance (WCAG 2.2), 0 black to 1 white."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def grey(colour):
    """Lightness after a print without colour (CIE L*), 0 to 100."""
    return 116 * luminance(colour) ** (1 / 3) - 16


def tick_labels(axis):
    """The labels of the ticks in view; matplotlib keeps a few more that it does not draw."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in ticks if tick.label1.get_text()]


def texts(figure):
    """All text that is drawn and not empty."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    of_ticks = {id(label) for axis in axes for label in axis.get_ticklabels(which='both')}
    of_ticks |= {id(tick.label2) for axis in axes for tick in axis.get_major_ticks()}
    found = [text for text in figure.findobj(matplotlib.text.Text) if id(text) not in of_ticks]
    found = [text for text in found if text.get_text().strip() and text.get_visible()]
    return found + [label for axis in axes for label in tick_labels(axis)]


@pytest.mark.parametrize('picture', PICTURES)
def test_png_and_svg_are_whole_files(picture, made_up):
    png, svg = picture(made_up(), 'png'), picture(made_up(), 'svg')
    assert png.startswith(b'\x89PNG\r\n\x1a\n')
    assert png.endswith(b'IEND\xaeB`\x82')
    width, height = struct.unpack('>II', png[16:24])
    assert width == 7.2 * plots.DOTS_PER_INCH  # sharp on a screen with two pixels a point
    assert 400 < height < width
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith('svg')
    assert len(svg) < 200_000


@pytest.mark.parametrize('picture', PICTURES)
def test_svg_needs_no_fonts_and_fetches_nothing(picture, made_up):
    svg = picture(made_up(), 'svg').decode()
    assert '<text' not in svg
    assert not re.search(r'(?:href|src)="(?!#)', svg)
    assert '<script' not in svg


@pytest.mark.parametrize('picture', PICTURES)
@pytest.mark.parametrize('form', ['svg', 'png'])
def test_same_results_same_bytes_whatever_the_users_style(picture, form, made_up):
    first = picture(made_up(), form)
    with matplotlib.rc_context({'font.size': 30, 'axes.grid': True, 'svg.fonttype': 'none'}):
        before = dict(matplotlib.rcParams)
        assert picture(made_up(), form) == first
        assert dict(matplotlib.rcParams) == before


def test_no_pyplot_and_no_matplotlib_before_a_picture_is_drawn():
    code = (
        'import sys; from tljax.study import report; '
        "assert 'matplotlib' not in sys.modules, 'imported too early'; "
        'from tljax.study.report import plots; '
        "arm = {'finals': [0.5], 'curve': {'x': [0, 32], 'mean': [0, 1]}}; "
        "plots.learning_curves({'arms': {'transfer': arm, 'scratch': arm}, 'metric': "
        "{'name': 'accuracy', 'higher_is_better': True}}); "
        "assert 'matplotlib' in sys.modules; "
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot has global state'"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_curves_are_the_results(figure, made_up):
    results = made_up()
    axes = figure(plots.learning_curves, results).axes[0]
    lines = {line.get_label(): line for line in axes.lines if line.get_label()[0] != '_'}
    assert set(lines) == {'transfer', 'from scratch'}
    for arm, label in plots.LABELS.items():
        curve = results['arms'][arm]['curve']
        assert lines[label].get_xdata().tolist() == curve['x']
        assert lines[label].get_ydata().tolist() == curve['mean']
    assert len(axes.collections) == 2  # a band for each


def test_axis_shows_zero_and_doublings_at_equal_steps(figure, made_up):
    axes = figure(plots.learning_curves, made_up()).axes[0]
    ticks = axes.get_xticks()
    assert ticks.tolist() == [0, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    at = axes.transData.transform([(tick, 0.5) for tick in ticks])[:, 0]
    steps = at[1:] - at[:-1]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert 'target examples seen' in axes.get_xlabel()


def test_metric_axis_names_split_metric_direction_chance_and_ceiling(figure, made_up):
    axes = figure(plots.learning_curves, made_up()).axes[0]
    assert axes.get_ylabel() == 'validation accuracy (higher is better)'
    assert {'chance 0.1', 'ceiling 1'} <= {text.get_text() for text in axes.texts}
    low, high = axes.get_ylim()
    assert low < 0.1
    assert high > 1


def test_metric_without_ceiling_that_falls(figure, made_up):
    results = made_up()
    results['metric'] = {
        'name': 'loss', 'chance': None, 'ceiling': None, 'higher_is_better': False,
    }  # fmt: skip
    axes = figure(plots.learning_curves, results).axes[0]
    assert axes.get_ylabel() == 'validation loss (lower is better)'
    assert not axes.texts
    right = figure(plots.paired_finals, results).axes[1]
    assert 'lead of transfer in loss' in right.get_xlabel()


@pytest.mark.parametrize('verdict', ['helpful', 'harmful', 'equivalent', 'undecided'])
def test_differences_point_to_the_better_arm(verdict, figure, made_up):
    results = made_up(verdict)
    left, right = figure(plots.paired_finals, results).axes
    title = right.get_title(loc='center')
    assert title.index('scratch better') < title.index('transfer better')
    arms = results['arms']
    differences = next(line for line in right.lines if len(line.get_xdata()) == 10).get_xdata()
    expected = [
        (t - s) / 0.9  # the range from chance 0.1 to the ceiling 1
        for t, s in zip(arms['transfer']['finals'], arms['scratch']['finals'], strict=True)
    ]
    assert list(differences) == pytest.approx(expected)
    gap = results['measures']['negative_transfer_gap']
    segment = right.containers[0].lines[2][0].get_segments()[0]
    assert segment[:, 0].tolist() == pytest.approx([-gap['high'], -gap['low']])
    low, high = right.get_xlim()
    assert low == pytest.approx(-high)  # no side looks larger than it is
    assert left.get_ylabel() == 'test accuracy (higher is better)'
    assert 'within 0.01' in right.get_xlabel()


def test_gap_in_the_metrics_own_unit_is_drawn_in_it(figure, made_up):
    results = made_up()
    gap = results['measures']['negative_transfer_gap']
    for key in ('mean', 'low', 'high'):
        gap[key] *= 0.9
    right = figure(plots.paired_finals, results).axes[1]
    differences = next(line for line in right.lines if len(line.get_xdata()) == 10).get_xdata()
    assert sum(differences) / 10 == pytest.approx(0.862 - 0.828)
    assert 'lead of transfer in accuracy' in right.get_xlabel()


def test_arms_can_be_told_apart_in_grey_and_by_style():
    transfer, scratch = (plots.COLOURS[arm] for arm in ('transfer', 'scratch'))
    assert abs(grey(transfer) - grey(scratch)) > 20
    for colour in (transfer, scratch):  # WCAG 2.2, 1.4.11: 3 to 1 for what carries meaning
        assert 1.05 / (luminance(colour) + 0.05) >= 3
    assert 1.05 / (luminance(plots.QUIET) + 0.05) >= 4.5  # 1.4.3, text
    assert plots.LINES['transfer'] != plots.LINES['scratch']
    assert plots.MARKERS['transfer'] != plots.MARKERS['scratch']


@pytest.mark.parametrize('picture', PICTURES)
@pytest.mark.parametrize('seeds', [1, 2, 10, 40])
@pytest.mark.parametrize('last', [200, 6400, 5_000_000])
def test_no_label_is_cut_off_or_covers_another(picture, seeds, last, figure, made_up):
    results = made_up(seeds=seeds)
    for arm in results['arms'].values():
        curve = arm['curve']
        curve['x'] = [0, *(32 * (last / 32) ** (i / 9) for i in range(10))]
    drawn = figure(picture, results)
    drawn.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(drawn)]
    width, height = drawn.bbox.size
    for name, box in boxes:
        assert box.x0 >= -1, name
        assert box.y0 >= -1, name
        assert box.x1 <= width + 1, name
        assert box.y1 <= height + 1, name
    for axes in drawn.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = tick_labels(axis)
            shown = [label.get_window_extent() for label in labels]
            for a, b in itertools.pairwise(shown):
                assert not a.overlaps(b), [label.get_text() for label in labels]


@pytest.mark.parametrize('picture', PICTURES)
def test_one_seed_without_intervals(picture, figure, made_up):
    drawn = figure(picture, made_up(seeds=1))
    assert drawn.axes
    if picture is plots.learning_curves:
        assert not drawn.axes[0].collections  # no band where there is no interval
    picture(made_up(seeds=1), 'png')


def test_what_is_missing_is_left_out(made_up):
    results = made_up()
    for arm in results['arms'].values():
        arm['curve'], arm['final'], arm['finals'] = None, None, []
    results['measures'] = {}
    results['config'] = {}
    for picture in PICTURES:
        assert picture(results, 'svg')


@pytest.mark.filterwarnings('error')
def test_a_name_with_dollar_signs_is_a_name(figure, made_up):
    results = made_up()
    results['metric']['name'] = r'$\frac{a$ & <b> _^'
    for picture in PICTURES:
        picture(results, 'svg')
    axes = figure(plots.learning_curves, results).axes[0]
    assert r'$\frac{a$ & <b> _^' in axes.get_ylabel()
