"""Which source of a ranking is the first, of which others, and which are not counted."""

from collections.abc import Mapping
from typing import Any

from tljax.study.recommend import start
from tljax.study.report import ranked_examples
from tljax.study.report.figures import NOT_MEASURED

Results = Mapping[str, Any]


def sentence(results: Results) -> str:
    """What to start from, by which rule, and how sure that is."""
    first = start(results['sources'])
    able = results['eligible']
    rule = f'by {results["by"]} on {ranked_examples.examples(results)}'
    if first['worst'] == 'disqualified':
        return 'Every source is disqualified: see what speaks against each.'
    if first['interval']['mean'] is None:
        return f'No source can be told from another {rule}.'
    if len(results['sources']) == 1:
        return f'{first["name"]} is the only source.'
    if len(able) == 1:
        text = (
            f'Start from {first["name"]}: the only one that can be started from{left_out(results)}'
        )
    else:
        text = f'Start from {first["name"]}: first of {len(able)} {rule}'
        if first['first_share'] is not None:
            text += f', and in {first["first_share"]:.0%} of random halves of them'
        text += left_out(results)
    if results['by'] not in results['comparable']:
        return f'{text}; but {results["by"]} does not compare all of them: see what speaks against.'
    others = [one for one in results['sources'] if one is not first]
    close = [one['name'] for one in others if is_close(one) and not is_above(one)]
    above = [one['name'] for one in others if is_above(one)]
    text += f'. Not told apart from it: {", ".join(close)}.' if close else '.'
    return text + (f' Untrained, yet above it: {", ".join(above)}.' if above else '')


def left_out(results: Results) -> str:
    """Which sources the first place is not shared with, and why.

    >>> one = {'name': 'a', 'worst': 'disqualified', 'findings': [
    ...     {'level': 'disqualified', 'topic': 'leakage'}]}
    >>> left_out({'sources': [one], 'eligible': []})
    ' (left out: a, disqualified for leakage)'
    """
    named = [
        f'{one["name"]}, {why_out(one)}'
        for one in results['sources']
        if one['name'] not in results['eligible']
    ]
    return f' (left out: {"; ".join(named)})' if named else ''


def why_out(one: Mapping[str, Any]) -> str:
    """Why a source is not one to start from, in a word or two."""
    if one['worst'] != 'disqualified':
        return 'untrained'
    topics = dict.fromkeys(f['topic'] for f in one['findings'] if f['level'] == 'disqualified')
    return f'disqualified for {" and ".join(topics)}'


def is_behind(one: Mapping[str, Any]) -> bool:
    """Whether a source has a lag that means something: a disqualified one's score does not."""
    return one['behind'] is not None and one['worst'] != 'disqualified'


def is_close(one: Mapping[str, Any]) -> bool:
    """Whether a source could be started from, or is untrained, and its lag's interval reaches 0."""
    low = one['behind']['low'] if is_behind(one) else None
    return low is not None and low <= 0


def is_above(one: Mapping[str, Any]) -> bool:
    """Whether a source, which then is untrained, is above the one to start from, surely."""
    high = one['behind']['high'] if is_behind(one) else None
    return high is not None and high < 0


def place_of(one: Mapping[str, Any], results: Results) -> str:
    """In how many halves a source is first, or why it is not counted."""
    if one['name'] not in results['eligible']:
        return why_out(one)
    if len(results['eligible']) == 1:
        return 'the only one'
    return NOT_MEASURED if one['first_share'] is None else f'{one["first_share"]:.0%}'
