"""For each operation, the axis of examples in what it gives, if it keeps them apart."""

import math
from collections.abc import Callable, Sequence

from jax.extend import core

from tljax.transfer.prefix.kinds import Kind, Mixed, Rows, Same, shape_of

ELEMENTWISE_NAMES = (
    'abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil '
    'clamp conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 '
    'expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min mul '
    'name ne neg nextafter not or polygamma population_count pow real reduce_precision rem round '
    'rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt '
    'square stop_gradient sub tan tanh xor'
)
ELEMENTWISE = frozenset(ELEMENTWISE_NAMES.split())


def elementwise(eqn: core.JaxprEqn, given: Sequence[Kind]) -> int:
    axes = {kind.axis for kind in given if isinstance(kind, Rows)}
    if len(axes) != 1:
        raise Mixed
    (axis,) = axes
    for kind, atom in zip(given, eqn.invars, strict=True):
        # A scalar may stand among arrays; a constant that differs from row to row may not.
        if isinstance(kind, Same) and shape_of(atom) and axis not in kind.uniform:
            raise Mixed
    return axis


def only(eqn: core.JaxprEqn, given: Sequence[Kind]) -> tuple[int, tuple[int, ...]]:
    """The axis of the first operand, which has the rows, and its shape; the others have none."""
    first, *others = given
    if not isinstance(first, Rows) or any(isinstance(kind, Rows) for kind in others):
        raise Mixed
    return first.axis, shape_of(eqn.invars[0])


def broadcast(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    return [eqn.params['broadcast_dimensions'][axis]]


def reshape(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, shape = only(eqn, given)
    if eqn.params.get('dimensions') is not None:
        raise Mixed
    before, after = math.prod(shape[:axis]), shape_of(eqn.outvars[0])
    for place, length in enumerate(after):
        if math.prod(after[:place]) == before and length == shape[axis]:
            return [place]
    raise Mixed


def transpose(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    return [tuple(eqn.params['permutation']).index(axis)]


def squeeze(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    return [left_of(axis, eqn.params['dimensions'])]


def left_of(axis: int, removed: Sequence[int]) -> int:
    """Where an axis is when others are removed."""
    if axis in removed:
        raise Mixed
    return axis - sum(other < axis for other in removed)


def reduction(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    return [left_of(axis, eqn.params['axes'])]


def cumulative(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    if eqn.params['axis'] == axis:
        raise Mixed
    return [axis]


def dot_general(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    (contracted, batches) = eqn.params['dimension_numbers']
    places = []
    for side, kind in enumerate(given):
        if not isinstance(kind, Rows):
            continue
        if kind.axis in contracted[side]:
            raise Mixed
        if kind.axis in batches[side]:
            number = list(batches[side]).index(kind.axis)
            other = given[1 - side]
            partner = batches[1 - side][number]
            if isinstance(other, Same) and partner not in other.uniform:
                raise Mixed
            if isinstance(other, Rows) and other.axis != partner:
                raise Mixed
            places.append(number)
        else:
            taken = (*contracted[side], *batches[side])
            place = len(batches[0]) + left_of(kind.axis, taken)
            if side == 1:
                left = len(shape_of(eqn.invars[0])) - len(contracted[0]) - len(batches[0])
                place += left
            places.append(place)
    if len(set(places)) != 1:
        raise Mixed
    return places[:1]


def convolution(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    numbers = eqn.params['dimension_numbers']
    if axis != numbers.lhs_spec[0] or eqn.params['batch_group_count'] != 1:
        raise Mixed
    return [numbers.out_spec[0]]


def window(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    params = eqn.params
    lengths = [
        params[key][axis]
        for key in ('window_dimensions', 'window_strides', 'base_dilation', 'window_dilation')
        if key in params
    ]
    if set(lengths) != {1} or tuple(params['padding'][axis]) != (0, 0):
        raise Mixed
    return [axis]


def concatenate(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis = elementwise(eqn, given)
    if eqn.params['dimension'] == axis:
        raise Mixed
    return [axis]


def pad(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    if tuple(eqn.params['padding_config'][axis]) != (0, 0, 0):
        raise Mixed
    return [axis]


def cut_out(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    """A slice."""
    axis, shape = only(eqn, given)
    strides = eqn.params['strides'] or (1,) * len(shape)
    whole = eqn.params['start_indices'][axis] == 0 and strides[axis] == 1
    if not whole or eqn.params['limit_indices'][axis] != shape[axis]:
        raise Mixed
    return [axis]


def dynamic_slice(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, shape = only(eqn, given)
    if eqn.params['slice_sizes'][axis] != shape[axis]:
        raise Mixed
    return [axis]


def split(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    if eqn.params['axis'] == axis:
        raise Mixed
    return [axis] * len(eqn.outvars)


def unstack(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    return [left_of(axis, (eqn.params['axis'],))] * len(eqn.outvars)


def stack(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis = elementwise(eqn, given)
    return [axis + (eqn.params['axis'] <= axis)]


def reverse(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, _ = only(eqn, given)
    if axis in eqn.params['dimensions']:
        raise Mixed
    return [axis]


def sort(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis = elementwise(eqn, given)
    if eqn.params['dimension'] == axis:
        raise Mixed
    return [axis] * len(eqn.outvars)


def top_k(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    axis, shape = only(eqn, given)
    if eqn.params.get('axis', len(shape) - 1) % len(shape) == axis:
        raise Mixed
    return [axis] * len(eqn.outvars)


def gather(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    """Rows of indices into a table, or rows that are indexed at the same places each."""
    table, indices = given
    numbers, shape = eqn.params['dimension_numbers'], shape_of(eqn.invars[0])
    offsets = list(numbers.offset_dims)
    if isinstance(indices, Rows):
        if isinstance(table, Rows):
            # Paired along a batching axis, as in take_along_axis.
            pairs = zip(
                numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
            )
            if (table.axis, indices.axis) not in set(pairs):
                raise Mixed
        elif indices.axis in numbers.start_indices_batching_dims:
            raise Mixed
        ndim = len(shape_of(eqn.outvars[0]))
        free = [axis for axis in range(ndim) if axis not in offsets]
        if indices.axis >= len(free):
            raise Mixed
        return [free[indices.axis]]
    assert isinstance(table, Rows)
    hidden = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    whole = eqn.params['slice_sizes'][table.axis] == shape[table.axis]
    if table.axis in hidden or table.axis in numbers.start_index_map or not whole:
        raise Mixed
    return [offsets[left_of(table.axis, hidden)]]


def random_of_keys(eqn: core.JaxprEqn, given: Sequence[Kind]) -> list[int]:
    """Each example's numbers, from a random key of its own."""
    if eqn.primitive.name == 'random_fold_in':
        return [elementwise(eqn, given)]
    axis, _ = only(eqn, given)
    return [axis] * len(eqn.outvars)


Rule = Callable[[core.JaxprEqn, Sequence[Kind]], list[int]]
RULES: dict[str, Rule] = {
    'broadcast_in_dim': broadcast,
    'concatenate': concatenate,
    'conv_general_dilated': convolution,
    'dot_general': dot_general,
    'dynamic_slice': dynamic_slice,
    'gather': gather,
    'pad': pad,
    'reshape': reshape,
    'rev': reverse,
    'slice': cut_out,
    'sort': sort,
    'split': split,
    'squeeze': squeeze,
    'stack': stack,
    'top_k': top_k,
    'transpose': transpose,
    'unstack': unstack,
    **dict.fromkeys(
        ('random_bits', 'random_fold_in', 'random_unwrap', 'random_wrap', 'random_split'),
        random_of_keys,
    ),
    **{f'reduce_{kind}': reduction for kind in ('sum', 'max', 'min', 'prod', 'and', 'or', 'xor')},
    **dict.fromkeys(('argmax', 'argmin'), reduction),
    **{f'cum{kind}': cumulative for kind in ('sum', 'prod', 'max', 'min', 'logsumexp')},
    **{f'reduce_window{kind}': window for kind in ('', '_sum', '_max', '_min')},
}
