"""Radix selection in Triton: histograms of a key's digits, highest digit first, find a row's cutoff without a sort.

A key has 32 bits and the order of the scores: equal scores have equal keys, and NaN is above all. It has four digits
of 8 bits. A histogram of 256 values is counted by votes among threads, in few registers. A histogram of 2048 values
takes seven times as many instructions. Counts are integers, so the order of additions does not matter.

Legend: R rows, P scores of a row. A program handles a part of a row: `span` scores, in blocks of BLOCK.
"""

from typing import no_type_check

import triton
from triton import language as tl

INTERPRETED = triton.knobs.runtime.interpret


@no_type_check
@triton.jit
def _keys(scores, strides, row, first, pool, BLOCK: tl.constexpr):
    """Return the keys of a block of scores, and a mask of those that exist."""
    place = first + tl.arange(0, BLOCK)
    inside = place < pool
    source = scores + row.to(tl.int64) * strides[0] + place.to(tl.int64) * strides[1]
    bits = tl.load(source, mask=inside, other=0.0).to(tl.float32).to(tl.uint32, bitcast=True)
    # Make -0.0 equal to 0.0. Then flip the sign bit of positive numbers and all bits of negative numbers.
    bits = tl.where(bits == 0x80000000, 0, bits)
    key = tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, 0xFFFFFFFF, key), inside


@no_type_check
@triton.jit
def _choose_digit(counts, prefix, left, row):
    """Extend the prefix by one digit of the wanted key: the left[r]-th largest key that begins with the prefix.

    Return the longer prefix, the rank of the wanted key among the keys that begin with it, and the number of those
    keys.
    """
    digit = tl.arange(0, 256)
    count, wanted = tl.load(counts + row * 256 + digit), tl.load(left + row)
    chosen = tl.sum((tl.cumsum(count, 0, reverse=True) >= wanted).to(tl.int32), 0) - 1
    above = tl.sum(tl.where(digit > chosen, count, 0), 0)
    return tl.load(prefix + row) * 256 + chosen, wanted - above, tl.sum(tl.where(digit == chosen, count, 0), 0)


@no_type_check
@triton.jit
def count_digits(
    scores,
    strides,
    pool,
    span,
    last_counts,
    last_prefix,
    last_left,
    counts,
    prefix,
    left,
    nans,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count how often each value of a digit occurs among the keys that begin with the current prefix.

    The last counts give the prefix. For the first digit `last_counts` is None, the prefix is empty, and NaNs are
    counted too.
    """
    row, part = tl.program_id(0), tl.program_id(1)
    count, missing = tl.zeros((256,), tl.int32), tl.zeros((BLOCK,), tl.int32)
    begin = tl.zeros((1,), tl.uint32)
    if last_counts is not None:
        # Every program computes the prefix, and one of them stores it. This saves one launch per digit.
        longer, wanted, _ = _choose_digit(last_counts, last_prefix, last_left, row)
        begin += longer.to(tl.uint32)
        tl.store(prefix + row, longer, mask=part == 0)
        tl.store(left + row, wanted, mask=part == 0)
    for first in range(part * span, tl.minimum(part * span + span, pool), BLOCK):
        key, inside = _keys(scores, strides, row, first, pool, BLOCK)
        if last_counts is None:
            missing += (inside & (key == 0xFFFFFFFF)).to(tl.int32)
        else:
            inside &= (key >> (SHIFT + 8)) == begin
        count += tl.histogram(((key >> SHIFT) & 255).to(tl.int32), 256, mask=inside)
    tl.atomic_add(counts + row * 256 + tl.arange(0, 256), count, mask=count > 0, sem="relaxed")
    if last_counts is None:
        tl.atomic_add(nans + row, tl.sum(missing, 0), sem="relaxed")


@no_type_check
@triton.jit
def count_ties(
    scores,
    strides,
    pool,
    span,
    last_counts,
    last_prefix,
    last_left,
    budget,
    nans,
    cutoff,
    cutoff_key,
    quota,
    ties,
    parts,
    BLOCK: tl.constexpr,
):
    """Write each row's cutoff, its key, and its quota: the number of scores equal to the cutoff to keep, -1 for all.

    If the quota is not -1, ties[r, part] is the number of such scores in a part. NaN is above every cutoff, but the
    quota does not count it.
    """
    row, part = tl.program_id(0), tl.program_id(1)
    longer, wanted, tied = _choose_digit(last_counts, last_prefix, last_left, row)
    key, room = longer.to(tl.uint32), wanted + tl.load(nans + row)
    room = tl.where(room < tied, room, -1)
    score = tl.where(key >= 0x80000000, key ^ 0x80000000, key ^ 0xFFFFFFFF).to(tl.float32, bitcast=True)
    tl.store(cutoff + row, tl.where(tl.load(budget + row) > 0, score, float("inf")), mask=part == 0)
    tl.store(cutoff_key + row, longer, mask=part == 0)
    tl.store(quota + row, room, mask=part == 0)
    if room >= 0:
        count = tl.zeros((BLOCK,), tl.int32)
        for first in range(part * span, tl.minimum(part * span + span, pool), BLOCK):
            other, inside = _keys(scores, strides, row, first, pool, BLOCK)
            count += (inside & (other == key)).to(tl.int32)
        tl.store(ties + row * parts + part, tl.sum(count, 0))


@no_type_check
@triton.jit
def write_mask(
    scores,
    strides,
    pool,
    span,
    cutoff_key,
    quota,
    ties,
    parts,
    mask,
    mask_strides,
    MAX_PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """mask[r, p] = score p is above the cutoff, or is one of the first ties within the quota."""
    row, part = tl.program_id(0), tl.program_id(1)
    cut, room = tl.load(cutoff_key + row).to(tl.uint32), tl.load(quota + row)
    earlier = tl.arange(0, MAX_PARTS)
    before = tl.sum(tl.load(ties + row * parts + earlier, mask=(earlier < part) & (room >= 0), other=0), 0)
    for first in range(part * span, tl.minimum(part * span + span, pool), BLOCK):
        key, inside = _keys(scores, strides, row, first, pool, BLOCK)
        keep = key >= cut
        if room >= 0:
            tie = (inside & (key == cut)).to(tl.int32)
            keep &= (tie == 0) | (before + tl.cumsum(tie, 0) <= room)
            before += tl.sum(tie, 0)
        place = (first + tl.arange(0, BLOCK)).to(tl.int64)
        target = mask + row.to(tl.int64) * mask_strides[0] + place * mask_strides[1]
        tl.store(target, keep & (key != 0xFFFFFFFF), mask=inside)
