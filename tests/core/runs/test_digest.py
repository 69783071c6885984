import numpy as np
import torch

from gloria_core.runs.digest import digest_of, digest_of_weights


def test_contents_count_and_the_way_they_lie_does_not() -> None:
    x = torch.arange(12.0).view(3, 4)
    assert digest_of(x) == digest_of(x.clone())
    assert digest_of(x.T) == digest_of(x.T.contiguous())
    assert digest_of(x) != digest_of(x.view(4, 3))
    assert digest_of(x) != digest_of(x.double())
    assert digest_of(x) != digest_of(x + 1e-6)


def test_parts_do_not_run_into_each_other() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of(["a"], "b") != digest_of("a", "b")
    assert digest_of(b"ab") != digest_of("ab")
    assert digest_of(np.zeros(3, np.uint8)) != digest_of(b"\0\0\0")


def test_a_mapping_has_no_order() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_a_scalar_and_an_empty_tensor_have_digests() -> None:
    assert digest_of(torch.tensor(1.0)) != digest_of(torch.tensor(2.0))
    assert digest_of(torch.zeros(0)) != digest_of(torch.zeros(0, 3))


def test_half_precision_weights_of_any_order() -> None:
    a, b = torch.randn(4, 4).bfloat16(), torch.randn(5)
    assert digest_of_weights([("a", a), ("b", b)]) == digest_of_weights([("b", b), ("a", a)])
    assert digest_of_weights([("a", a)]) != digest_of_weights([("c", a)])
    assert digest_of_weights([("a", a)]) != digest_of_weights([("a", a * 2)])


def test_large_weights_are_told_apart_by_pieces() -> None:
    large = torch.randn(1500, 1000)  # 6 MB
    before = digest_of_weights([("w", large)])
    assert before == digest_of_weights([("w", large.clone())])
    assert before != digest_of_weights([("w", large + 1e-3)])
    assert before != digest_of_weights([("w", large.half().float())])
    changed = large.clone()
    changed[-1, -1] += 1  # the last piece reaches the last byte
    assert before != digest_of_weights([("w", changed)])
