"""Triton kernels: products of rows with the weights of their experts. Bias, activation and weight are fused in.

Rows are in the padded order of `layout`. A block of rows has one expert; blocks after the last expert's rows do
nothing. Sums are fp32 and in a fixed order; nothing is added atomically. Sizes of the model are compile-time constants.
Numbers of tokens and rows are not, because they change from batch to batch.

Legend: R rows, K and N width before and after a product, E experts. Upper-case arguments are compile-time constants.
"""

from typing import no_type_check

import triton
from triton import language as tl

INTERPRETED = triton.knobs.runtime.interpret
# The columns of a product are split into parts of this size; each part writes its own partial sum for a row.
PART = 16 if INTERPRETED else 64


# The first tile of each list is for fp32, or for little shared memory.
_ROW_TILES = [(64, 32, 4, 2), (64, 64, 4, 4), (128, 64, 4, 3), (128, 64, 8, 4), (256, 64, 8, 3)]
# If the kernel looks up a row's index before it loads the row, half of the pipeline's stages wait for the index.
_WEIGHT_TILES = [
    (64, 64, 32, 4, 3),
    (64, 64, 64, 4, 7),
    (128, 128, 64, 8, 5),
    (128, 128, 64, 8, 7),
    (128, 256, 64, 8, 5),
]


def _row_tiles() -> list[triton.Config]:
    """Return tiles for products of a block of rows: BLOCK_N columns at a time, in steps of BLOCK_K."""
    if INTERPRETED:
        return [triton.Config({"BLOCK_N": 32, "BLOCK_K": 16})]
    return [triton.Config({"BLOCK_N": n, "BLOCK_K": k}, num_warps=w, num_stages=s) for n, k, w, s in _ROW_TILES]


def _weight_tiles() -> list[triton.Config]:
    """Return tiles for sums over rows. BLOCK_K, the step, divides the size of every block of rows."""
    if INTERPRETED:
        return [triton.Config({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 16})]
    shapes = [({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}, w, s) for m, n, k, w, s in _WEIGHT_TILES]
    return [triton.Config(shape, num_warps=warps, num_stages=stages) for shape, warps, stages in shapes]


@no_type_check
@triton.autotune(_row_tiles(), key=["K", "N", "BLOCK_M", "PRECISION", "EPILOGUE"], cache_results=True)
@triton.jit(do_not_specialize=["num_rows"])
def rows_product(
    a,
    a_strides,
    token,
    b,
    b_strides,
    bias,
    scale,
    pre,
    out,
    partial,
    num_rows,
    block_expert,
    num_experts,
    K: tl.constexpr,
    N: tl.constexpr,
    PART: tl.constexpr,
    PRECISION: tl.constexpr,
    EPILOGUE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute p = A[token[r]] B[e] (A[r] B[e] if `token` is None) for every row r and its expert e, then the EPILOGUE.

    `bias`: out = p + scale bias[e]; scale is 1 and bias is 0 if they are None.
    `gelu`: pre = p + bias[e], stored unless it is None, and out = scale gelu(pre).
    `gelu_gradient`: out = scale p gelu'(pre), and the sum over partial[:, r] is <p, gelu(pre)>.
    """
    block, tile = tl.program_id(0) // tl.cdiv(N, BLOCK_N), tl.program_id(0) % tl.cdiv(N, BLOCK_N)
    expert = tl.load(block_expert + block).to(tl.int64)
    if expert < num_experts:
        first = block.to(tl.int64) * BLOCK_M
        row, n = first + tl.arange(0, BLOCK_M), tile * BLOCK_N + tl.arange(0, BLOCK_N)
        place = row if token is None else tl.load(token + row)
        b_expert = b + expert * b_strides[0] + n[None, :] * b_strides[2]
        a_place = a + place[:, None] * a_strides[0]
        p = _product(a_place, a_strides[1], b_expert, b_strides[1], n < N, K, N, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION)
        # Only the start of the block needs 64 bits; a 64-bit offset per element would take twice the registers.
        target, inside = tl.arange(0, BLOCK_M)[:, None] * N + n[None, :], (n < N)[None, :]
        weight = 1.0 if scale is None else tl.load(scale + row).to(tl.float32)[:, None]
        shift = 0.0 if bias is None else tl.load(bias + expert * N + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
        if EPILOGUE == "bias":
            p += weight * shift
        if EPILOGUE == "gelu":
            p += shift
            if pre is not None:
                tl.store(pre + first * N + target, p, mask=inside)
            p = weight * _gelu(p)[0]
        if EPILOGUE == "gelu_gradient":
            value, slope = _gelu(tl.load(pre + first * N + target, mask=inside, other=0.0).to(tl.float32))
            _store_part(partial + row, tl.sum(p * value, axis=1), tile, num_rows, N, PART, BLOCK_N)
            p *= weight * slope
        tl.store(out + first * N + target, p, mask=inside)


@no_type_check
@triton.jit
def _product(
    a,
    a_stride,
    b,
    b_stride,
    in_n,
    K: tl.constexpr,
    N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return the sum over k in fp32, given pointers to rows (M, 1) and to columns (1, N)."""
    k = tl.arange(0, BLOCK_K)
    a_tile, b_tile = a + k[None, :] * a_stride, b + k[:, None] * b_stride
    # The compiler folds conditions on constants, and often the whole mask.
    in_width = (in_n | (N % BLOCK_N == 0))[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        in_depth = (k < K - start) | (K % BLOCK_K == 0)
        a_values = tl.load(a_tile, mask=in_depth[None, :], other=0.0)
        b_values = tl.load(b_tile, mask=in_depth[:, None] & in_width, other=0.0)
        total = tl.dot(a_values, b_values, total, input_precision=PRECISION)
        a_tile += BLOCK_K * a_stride
        b_tile += BLOCK_K * b_stride
    return total


@no_type_check
@triton.jit
def _gelu(x):
    """Return gelu(x) in the tanh form, and its slope. (1 + tanh u) / 2 is the sigmoid of 2 u."""
    gate = tl.sigmoid(1.5957691216057308 * x * (1 + 0.044715 * x * x))
    slope = gate + x * gate * (1 - gate) * 1.5957691216057308 * (1 + 0.134145 * x * x)
    return x * gate, slope


@no_type_check
@triton.jit
def _store_part(partial, total, tile, num_rows, N: tl.constexpr, PART: tl.constexpr, BLOCK_N: tl.constexpr):
    """Store the sums over a tile's columns. A wide tile has several parts: the others are zero."""
    first = tile.to(tl.int64) * (BLOCK_N // PART)
    tl.store(partial + first * num_rows, total)
    for i in tl.static_range(1, BLOCK_N // PART):
        if first + i < tl.cdiv(N, PART):
            tl.store(partial + (first + i) * num_rows, tl.zeros_like(total))


@no_type_check
@triton.autotune(_weight_tiles(), key=["M", "N", "PRECISION"], cache_results=True)
@triton.jit
def weight_gradient(
    a,
    a_strides,
    a_token,
    b,
    b_strides,
    b_token,
    out,
    out_strides,
    totals,
    ends,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out[e] = A[rows of e]ᵀ B[rows of e], and totals[e] = sum of B[rows of e] unless `totals` is None.

    Row r of A is A[a_token[r]], or A[r] if `a_token` is None; the same holds for B. An expert without rows gets zeros.
    """
    tiles_n: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    tiles: tl.constexpr = (M + BLOCK_M - 1) // BLOCK_M * tiles_n
    expert, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    m = tile // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tile % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    start, end = tl.load(ends + expert - 1, mask=expert > 0, other=0), tl.load(ends + expert)
    in_m, in_n = ((m < M) | (M % BLOCK_M == 0))[:, None], ((n < N) | (N % BLOCK_N == 0))[None, :]
    a_side = (a + m[:, None] * a_strides[1], in_m, a_strides[0], a_token)
    b_side = (b + n[None, :] * b_strides[1], in_n, b_strides[0], b_token)
    # Only the first row of tiles sums B. It has its own loop, so that the loop of the other tiles has no condition.
    if totals is None:
        product = _sum_over_rows(a_side, b_side, start, end, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, False)[0]
    elif tile < tiles_n:
        product, total = _sum_over_rows(a_side, b_side, start, end, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, True)
        tl.store(totals + expert * N + n, total, mask=n < N)
    else:
        product = _sum_over_rows(a_side, b_side, start, end, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, False)[0]
    place = out + expert * out_strides[0] + m[:, None] * out_strides[1] + n[None, :] * out_strides[2]
    tl.store(place, product, mask=in_m & in_n)


@no_type_check
@triton.jit
def _sum_over_rows(
    a_side,
    b_side,
    start,
    end,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    TOTALS: tl.constexpr,
):
    """Return the product over the rows from start to end, and the sum of B over them (zeros without TOTALS).

    A side is a tuple: pointers to its columns, a mask of the columns that exist, the stride of its rows, and the row
    indices, or None if row r is at index r.
    """
    a, in_m, a_stride, a_token = a_side
    b, in_n, b_stride, b_token = b_side
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for first in range(start, end, BLOCK_K):
        row = first + tl.arange(0, BLOCK_K)
        a_place = row if a_token is None else tl.load(a_token + row)
        b_place = row if b_token is None else tl.load(b_token + row)
        a_values = tl.load(a + a_place[None, :] * a_stride, mask=in_m, other=0.0)
        b_values = tl.load(b + b_place[:, None] * b_stride, mask=in_n, other=0.0)
        product = tl.dot(a_values, b_values, product, input_precision=PRECISION)
        if TOTALS:
            total += tl.sum(b_values.to(tl.float32), axis=0)
    return product, total


@no_type_check
@triton.jit
def sum_rows(y, row, bag, out, N: tl.constexpr, BLOCK_N: tl.constexpr):
    """out[t] = sum of y[row[p]] for p from bag[t] to bag[t + 1] - 1, always in this order."""
    token = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for pair in range(tl.load(bag + token), tl.load(bag + token + 1)):
        total += tl.load(y + tl.load(row + pair) * N + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(out + token * N + n, total, mask=n < N)
