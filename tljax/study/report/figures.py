"""Numbers for a reader: as many digits as the interval supports, true minus signs, durations.

A measure M is {'mean', 'low', 'high', 'n', 'note'}; None stands for what could not be measured.
"""

import math
from collections.abc import Mapping
from typing import Any

M = Mapping[str, Any]

NOT_MEASURED = 'not measured'
MINUS = '\u2212'
TIMES = '\u00d7'


def known(measure: M | None) -> bool:
    """Whether there is a number at all."""
    return measure is not None and measure.get('mean') is not None


def has_interval(measure: M | None) -> bool:
    """Whether both ends of the interval are there (one seed has none)."""
    return known(measure) and all((measure or {}).get(k) is not None for k in ('low', 'high'))


def places(*measures: M | None, scale: float = 1.0) -> int:
    """Decimals for the narrowest of the intervals: its half width keeps two significant digits.

    One is enough from 5 on: 0.0085 becomes 0.009, as coarse for its size as 0.012.

    >>> places({'mean': 0.8617, 'low': 0.8502, 'high': 0.8741})
    3
    """
    widths = [
        abs(m['high'] - m['low']) / 2 * scale for m in measures if m is not None and has_interval(m)
    ]
    widths = [width for width in widths if width > 0]
    if widths:
        return min(6, max(0, 1 - math.floor(math.log10(min(widths) * 2))))
    sizes = [abs(m['mean']) * scale for m in measures if m is not None and known(m) and m['mean']]
    return min(6, max(0, 2 - math.floor(math.log10(max(sizes))))) if sizes else 3


def number(value: float | None, decimals: int, signed: bool = False) -> str:
    """A number with that many decimals and a true minus sign.

    >>> number(0.8617, 3), number(2.0, 1, signed=True), number(-0.0001, 2)
    ('0.862', '+2.0', '0.00')
    """
    if value is None:
        return NOT_MEASURED
    text = f'{abs(value):,.{decimals}f}'
    if not any(digit in text for digit in '123456789'):
        return text
    return (MINUS if value < 0 else '+' if signed else '') + text


def plain_number(value: float | None) -> str:
    """A number given by a person or a config, at three significant digits at most.

    >>> plain_number(0.1), plain_number(1.0), plain_number(0.00031623), plain_number(6400)
    ('0.1', '1', '0.000316', '6,400')
    """
    if value is None:
        return NOT_MEASURED
    if value == int(value) and abs(value) < 1e15:
        return number(value, 0)
    return f'{value:.3g}'.replace('-', MINUS)


def estimate(measure: M | None, signed: bool = False, scale: float = 1.0, digits: int = -1) -> str:
    """Mean and 95 % interval, to the digits that the interval supports.

    >>> estimate({'mean': 0.8617, 'low': 0.8502, 'high': 0.8741, 'n': 10, 'note': ''})
    '0.862 [0.850, 0.874]'
    >>> estimate({'mean': 0.8617, 'low': None, 'high': None, 'n': 1, 'note': ''})
    '0.862 (no interval)'
    >>> estimate(None)
    'not measured'
    """
    if measure is None or not known(measure):
        return NOT_MEASURED
    decimals = places(measure, scale=scale) if digits < 0 else digits
    mean = number(measure['mean'] * scale, decimals, signed)
    if not has_interval(measure):
        return f'{mean} (no interval)'
    low, high = (number(measure[key] * scale, decimals) for key in ('low', 'high'))
    return f'{mean} [{low}, {high}]'


def seconds(value: float | None) -> str:
    """A duration.

    >>> seconds(0.0421), seconds(8.14), seconds(83), seconds(4000), seconds(None)
    ('0.042 s', '8.1 s', '1 min 23 s', '1 h 7 min', 'not measured')
    """
    if value is None:
        return NOT_MEASURED
    if value < 1:
        return f'{value:.2g} s'
    if value < 59.95:
        return f'{value:.1f} s'
    if value < 3599.5:
        minutes, rest = divmod(round(value), 60)
        return f'{minutes} min {rest} s' if rest else f'{minutes} min'
    hours, minutes = divmod(round(value / 60), 60)
    return f'{hours:,} h {minutes} min' if minutes else f'{hours:,} h'


def count(amount: int, singular: str, plural: str = '') -> str:
    """An amount and its noun.

    >>> count(1, 'seed'), count(6400, 'example')
    ('1 seed', '6,400 examples')
    """
    return f'{amount:,} {singular if amount == 1 else plural or singular + "s"}'
