# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call, misc"
"""Triton kernels of the contrast; what they compute and in which order is told in `fused`.

Pixels and prototypes come sorted by group. Arguments of all kernels, as in `fused._Sorted`:
`pixels` (count, dims), `prototypes` (prototype_count, dims), `pixel_group`, `prototype_group`,
`table` (., groups), `excluded`; `scale` is the concentration in powers of two.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(start, at, inside, dims, DIMS: tl.constexpr):
    """Rows `at` of a (., dims) matrix, zero outside."""
    d = tl.arange(0, DIMS)
    place = start + at.to(tl.int64)[:, None] * dims + d[None, :]
    return tl.load(place, mask=inside[:, None] & (d < dims)[None, :], other=0.0)


@triton.jit
def _compare(rows, row_ok, columns, column_ok, group, excluded, prototype_group, table, groups):
    """Which of a tile are compared, and which of these are positive."""
    other = tl.load(prototype_group + columns, mask=column_ok, other=0)
    place = table + group[:, None].to(tl.int64) * groups + other[None, :]
    relation = tl.load(place, mask=row_ok[:, None] & column_ok[None, :], other=0)
    compared = (relation != 0) & (columns[None, :] != excluded[:, None])
    return compared, compared & (relation > 0)


@triton.jit
def forward_kernel(
    pixels,
    prototypes,
    pixel_group,
    prototype_group,
    table,
    excluded,
    beside,
    column_range,
    total_out,
    positive_out,
    count,
    dims,
    groups,
    scale,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DIMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Log-sum-exps, base two, over all that is compared and over the positives."""
    tile = tl.program_id(0)
    rows = tile * ROWS + tl.arange(0, ROWS)
    row_ok = rows < count
    v = load_rows(pixels, rows, row_ok, dims, DIMS)
    group = tl.load(pixel_group + rows, mask=row_ok, other=0)
    out = tl.load(excluded + rows, mask=row_ok, other=-1)
    top = tl.load(beside + rows, mask=row_ok, other=0.0)
    positive_top = top
    total = tl.where(top > -1e29, 1.0, 0.0)
    positive = total
    low = tl.load(column_range + 2 * tile)
    high = tl.load(column_range + 2 * tile + 1)
    for start in range(low, high, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        column_ok = columns < high
        u = load_rows(prototypes, columns, column_ok, dims, DIMS)
        similarity = tl.dot(v, tl.trans(u), input_precision=PRECISION) * scale
        compared, is_positive = _compare(
            rows, row_ok, columns, column_ok, group, out, prototype_group, table, groups
        )
        new_top = tl.maximum(top, tl.max(tl.where(compared, similarity, -1e30), 1))
        e = tl.where(compared, tl.exp2(similarity - new_top[:, None]), 0.0)
        total = total * tl.exp2(top - new_top) + tl.sum(e, 1)
        top = new_top
        new_top = tl.maximum(positive_top, tl.max(tl.where(is_positive, similarity, -1e30), 1))
        e = tl.where(is_positive, tl.exp2(similarity - new_top[:, None]), 0.0)
        positive = positive * tl.exp2(positive_top - new_top) + tl.sum(e, 1)
        positive_top = new_top
    # A pixel that is compared with nothing: no loss.
    none = total == 0.0
    total = tl.where(none, 0.0, top + tl.log2(tl.where(none, 1.0, total)))
    none = positive == 0.0
    positive = tl.where(none, total, positive_top + tl.log2(tl.where(none, 1.0, positive)))
    tl.store(total_out + rows, total, mask=row_ok)
    tl.store(positive_out + rows, positive, mask=row_ok)


@triton.jit
def _slope(similarity, compared, is_positive, total, positive, weight):
    """Gradient of the weighted loss by the exponents of a tile."""
    slope = tl.where(compared, tl.exp2(similarity - total[:, None]), 0.0)
    slope -= tl.where(is_positive, tl.exp2(similarity - positive[:, None]), 0.0)
    return slope * weight[:, None]


@triton.jit
def pixels_kernel(
    pixels,
    prototypes,
    pixel_group,
    prototype_group,
    table,
    excluded,
    total_in,
    positive_in,
    weight_in,
    column_range,
    by_pixels,
    count,
    dims,
    groups,
    scale,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DIMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of the weighted loss by the pixels of one tile."""
    tile = tl.program_id(0)
    rows = tile * ROWS + tl.arange(0, ROWS)
    row_ok = rows < count
    v = load_rows(pixels, rows, row_ok, dims, DIMS)
    group = tl.load(pixel_group + rows, mask=row_ok, other=0)
    out = tl.load(excluded + rows, mask=row_ok, other=-1)
    total = tl.load(total_in + rows, mask=row_ok, other=0.0)
    positive = tl.load(positive_in + rows, mask=row_ok, other=0.0)
    weight = tl.load(weight_in + rows, mask=row_ok, other=0.0)
    gradient = tl.zeros((ROWS, DIMS), dtype=tl.float32)
    low = tl.load(column_range + 2 * tile)
    high = tl.load(column_range + 2 * tile + 1)
    for start in range(low, high, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        column_ok = columns < high
        u = load_rows(prototypes, columns, column_ok, dims, DIMS)
        similarity = tl.dot(v, tl.trans(u), input_precision=PRECISION) * scale
        compared, is_positive = _compare(
            rows, row_ok, columns, column_ok, group, out, prototype_group, table, groups
        )
        slope = _slope(similarity, compared, is_positive, total, positive, weight)
        gradient += tl.dot(slope.to(u.dtype), u, input_precision=PRECISION)
    d = tl.arange(0, DIMS)
    place = by_pixels + rows.to(tl.int64)[:, None] * dims + d[None, :]
    tl.store(place, gradient, mask=row_ok[:, None] & (d < dims)[None, :])


@triton.jit
def prototypes_kernel(
    pixels,
    prototypes,
    pixel_group,
    prototype_group,
    table,
    excluded,
    total_in,
    positive_in,
    weight_in,
    row_range,
    by_part,
    count,
    dims,
    groups,
    scale,
    prototype_count,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DIMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Prototypes of one tile against one stretch of the pixels they are compared with."""
    tile = tl.program_id(0)
    part = tl.program_id(1)
    columns = tile * COLUMNS + tl.arange(0, COLUMNS)
    column_ok = columns < prototype_count
    low = tl.load(row_range + 2 * tile)
    high = tl.load(row_range + 2 * tile + 1)
    tiles = tl.cdiv(tl.cdiv(high - low, ROWS), tl.num_programs(1))
    begin = low + part * tiles * ROWS
    end = tl.minimum(begin + tiles * ROWS, high)
    u = load_rows(prototypes, columns, column_ok, dims, DIMS)
    gradient = tl.zeros((COLUMNS, DIMS), dtype=tl.float32)
    for start in range(begin, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        row_ok = rows < end
        v = load_rows(pixels, rows, row_ok, dims, DIMS)
        group = tl.load(pixel_group + rows, mask=row_ok, other=0)
        out = tl.load(excluded + rows, mask=row_ok, other=-1)
        total = tl.load(total_in + rows, mask=row_ok, other=0.0)
        positive = tl.load(positive_in + rows, mask=row_ok, other=0.0)
        weight = tl.load(weight_in + rows, mask=row_ok, other=0.0)
        similarity = tl.dot(v, tl.trans(u), input_precision=PRECISION) * scale
        compared, is_positive = _compare(
            rows, row_ok, columns, column_ok, group, out, prototype_group, table, groups
        )
        slope = _slope(similarity, compared, is_positive, total, positive, weight)
        gradient += tl.dot(tl.trans(slope.to(v.dtype)), v, input_precision=PRECISION)
    d = tl.arange(0, DIMS)
    padded = tl.num_programs(0) * COLUMNS
    place = by_part + (part * padded + columns).to(tl.int64)[:, None] * dims + d[None, :]
    tl.store(place, gradient, mask=(columns < padded)[:, None] & (d < dims)[None, :])
