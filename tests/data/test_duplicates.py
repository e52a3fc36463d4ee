"""Duplicates: the banded search finds exactly what comparing all pairs finds."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdsp_vision.data import duplicates
from tdsp_vision.data.duplicates import connected_groups, find_duplicates

ALL_BITS = 2**256 - 1


def as_text(codes: list[int]) -> list[str]:
    return [f"{code:064x}" for code in codes]


def by_definition(codes: list[int], max_bits: int) -> tuple[list[int], list[int], list[int]]:
    """Cluster (number of its first member), original and bits, from all pairs and in the plainest way."""
    close = [[(one ^ other).bit_count() <= max_bits for other in codes] for one in codes]
    original, bits = [], []
    for index, code in enumerate(codes):
        repeated = [before for before in range(index) if original[before] == before and close[before][index]]
        original.append(min(repeated, default=index))
        bits.append((code ^ codes[original[-1]]).bit_count())
    cluster = list(range(len(codes)))
    for _ in codes:  # the smallest number travels along at most so many links
        cluster = [min(number for number, linked in zip(cluster, row, strict=True) if linked) for row in close]
    return cluster, original, bits


def same_partition(one, other) -> bool:
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


@st.composite
def planted(draw):
    """A threshold, and hashes most of which were made from an earlier one by changing about so many bits."""
    max_bits = draw(st.sampled_from([0, 1, 10, 64]))
    rng = random.Random(draw(st.integers(0, 2**32)))
    codes = [rng.getrandbits(256)]
    for _ in range(draw(st.integers(0, 24))):
        changes = draw(st.sampled_from([0, 1, max(0, max_bits - 1), max_bits, max_bits + 1, 2 * max_bits, 256]))
        code = rng.choice(codes)
        for bit in rng.sample(range(256), min(changes, 128)):
            code ^= 1 << bit
        codes.append(code)
    rng.shuffle(codes)
    return codes, max_bits


@given(planted())
@settings(max_examples=150, deadline=None)
def test_finds_what_comparing_all_pairs_finds(case):
    codes, max_bits = case
    found = find_duplicates(as_text(codes), max_bits)
    cluster, original, bits = by_definition(codes, max_bits)
    assert found.original.tolist() == original
    assert found.bits.tolist() == bits
    assert same_partition(found.cluster.tolist(), cluster)


@given(planted())
@settings(max_examples=60, deadline=None)
def test_every_original_is_kept_and_near_and_in_the_same_cluster(case):
    codes, max_bits = case
    found = find_duplicates(as_text(codes), max_bits)
    assert (found.original <= np.arange(len(codes))).all()
    assert (found.original[found.original] == found.original).all()
    assert (found.bits <= max_bits).all()
    assert (found.cluster[found.original] == found.cluster).all()


@given(planted())
@settings(max_examples=30, deadline=None)
def test_same_hashes_same_answer_whatever_the_case_of_their_digits(case):
    codes, max_bits = case
    once = find_duplicates(as_text(codes), max_bits)
    again = find_duplicates([text.upper() for text in as_text(codes)], max_bits)
    for name in vars(once):
        assert np.array_equal(vars(once)[name], vars(again)[name])


def test_the_bound_is_inclusive_in_every_band():
    """A pair exactly at the threshold, its bits spread so that as many bands as possible differ."""
    for max_bits in (1, 10, 64):
        spread = sum(1 << (bit * 256 // max_bits) for bit in range(max_bits))
        assert find_duplicates(as_text([0, spread]), max_bits).original.tolist() == [0, 0]
        beyond = spread | 1 << 255
        assert beyond.bit_count() == max_bits + 1
        assert find_duplicates(as_text([0, beyond]), max_bits).original.tolist() == [0, 1]


def test_the_earlier_one_is_kept_and_a_chain_is_one_cluster():
    chain = [0b111111, 0b000111, 0b000000]  # 3 bits from link to link, 6 from end to end
    found = find_duplicates(as_text([*chain, ALL_BITS]), 3)
    assert found.original.tolist() == [0, 0, 2, 3]  # the third repeats only the second, which is not kept
    assert found.bits.tolist() == [0, 3, 0, 0]
    assert found.cluster[0] == found.cluster[1] == found.cluster[2] != found.cluster[3]


def test_none_one_and_many_identical():
    assert find_duplicates([], 10).original.tolist() == []
    assert find_duplicates([], 10).cluster.tolist() == []
    one = find_duplicates(as_text([5]), 10)
    assert (one.original.tolist(), one.bits.tolist(), len(one.cluster)) == ([0], [0], 1)
    many = find_duplicates(as_text([7] * 3000), 64)
    assert set(many.original) == {0} and set(many.bits) == {0} and len(set(many.cluster)) == 1


@pytest.mark.parametrize("max_bits", [-1, 65, 256])
def test_a_threshold_out_of_range_is_named(max_bits):
    with pytest.raises(ValueError, match=rf"NEAR_DUPLICATE_BITS is {max_bits}; allowed are 0 .* to 64"):
        find_duplicates(as_text([1, 2]), max_bits)


def test_twenty_thousand_hashes_with_planted_pairs():
    """All pairs would be 200 million rows; only hashes that share a band are compared."""
    rng = random.Random(0)
    codes = [rng.getrandbits(256) for _ in range(19_900)]
    sources = rng.sample(range(len(codes)), 100)
    codes += [codes[source] ^ sum(1 << bit for bit in rng.sample(range(256), 10)) for source in sources]
    found = find_duplicates(as_text(codes), 10)
    assert found.original[:19_900].tolist() == list(range(19_900))
    assert found.original[19_900:].tolist() == sources
    assert set(found.bits[19_900:]) == {10}
    assert len(set(found.cluster)) == 19_900


@given(planted(), st.integers(0, 6), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_crowds_that_are_divided_again_give_the_same_answer(case, free_bits, chunk):
    """Hashes that agree in most of their bits, as those of smooth pictures do, with limits so low that they matter."""
    codes, max_bits = case
    codes = [code & (1 << 40 * free_bits) - 1 for code in codes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "CROWD", 2)
        patch.setattr(duplicates, "CHUNK", chunk)
        found = find_duplicates(as_text(codes), max_bits)
    cluster, original, bits = by_definition(codes, max_bits)
    assert (found.original.tolist(), found.bits.tolist()) == (original, bits)
    assert same_partition(found.cluster, cluster)


def test_thousands_that_are_all_alike_are_not_compared_band_after_band():
    rng = random.Random(0)
    codes = [sum(1 << bit for bit in rng.sample(range(256), 5)) for _ in range(3000)]
    found = find_duplicates(as_text(codes), 10)
    assert set(found.original) == {0} and len(set(found.cluster)) == 1
    assert found.compared < 3000**2 / 2


def test_connected_groups_are_transitive_and_alone_without_pairs():
    groups = connected_groups(6, [(0, 3), (3, 5), (1, 2)])
    assert groups[0] == groups[3] == groups[5]
    assert groups[1] == groups[2]
    assert len(set(groups)) == 3
    assert len(set(connected_groups(4, []))) == 4
    assert connected_groups(0, []).tolist() == []
