import pytest
import torch

from layers import FiLM, LateFusion, MiddleFusion, NoFusion, modulate

NUM_CLASSES, NR_FILTERS, NR_BLOCKS = 3, 4, 5


@pytest.mark.parametrize("trailing", [(), (6, 7)])
def test_modulate_takes_one_number_a_channel(trailing):
    x = torch.randn(2, NR_FILTERS, *trailing)
    scale, shift = torch.randn(2, 2, NR_FILTERS).unbind()
    shaped = [condition.view(2, NR_FILTERS, *[1] * len(trailing)) for condition in (scale, shift)]
    for image in range(2):
        for channel in range(NR_FILTERS):
            a, b = scale[image, channel], shift[image, channel]
            value = x[image, channel]
            torch.testing.assert_close(modulate(x.clone(), tuple(shaped))[image, channel], a * value + b)
            torch.testing.assert_close(modulate(x.clone(), (None, shaped[1]))[image, channel], value + b)
    assert torch.equal(modulate(x, (None, None)), x)


def test_no_fusion_says_nothing_to_any_block():
    assert NoFusion(NR_BLOCKS)(torch.tensor([0, 2])) == [(None, None)] * NR_BLOCKS


def test_middle_fusion_tells_every_block_the_same_shift():
    fusion = MiddleFusion(NUM_CLASSES, NR_FILTERS, NR_BLOCKS)
    with torch.no_grad():
        fusion.alpha.fill_(-2)
    labels = torch.tensor([2, 0])
    conditions = fusion(labels)
    assert len(conditions) == NR_BLOCKS
    for scale, shift in conditions:
        assert scale is None
        torch.testing.assert_close(shift, -2 * fusion.embed.weight[[2, 0]])


def test_middle_fusion_trains_alpha_and_the_rows_of_the_classes_it_met():
    fusion = MiddleFusion(NUM_CLASSES, NR_FILTERS, NR_BLOCKS)
    sum(shift.sum() for _, shift in fusion(torch.tensor([2, 0]))).backward()
    assert fusion.alpha.grad != 0
    assert torch.equal((fusion.embed.weight.grad != 0).any(dim=1), torch.tensor([True, False, True]))


def test_film_starts_as_the_identity():
    x = torch.randn(2, NR_FILTERS, 6, 7)
    conditions = FiLM(NUM_CLASSES, NR_FILTERS, NR_BLOCKS)(torch.tensor([2, 0]))
    assert len(conditions) == NR_BLOCKS
    for condition in conditions:
        scale, shift = (part[:, :, None, None] for part in condition)
        assert torch.equal(modulate(x, (scale, shift)), x)


def test_film_has_numbers_of_its_own_for_each_block_and_class():
    film = FiLM(NUM_CLASSES, NR_FILTERS, NR_BLOCKS)
    torch.nn.init.normal_(film.table.weight)
    labels = torch.tensor([2, 0, 1])
    conditions = [torch.stack(condition) for condition in film(labels)]  # NR_BLOCKS of [2, B, F]
    assert all(condition.shape == (2, 3, NR_FILTERS) for condition in conditions)
    numbers = torch.stack(conditions)
    assert numbers.unique().numel() == film.table.weight.numel()
    with torch.no_grad():
        film.table.weight[0] += 1
    changed = torch.stack([torch.stack(condition) for condition in film(labels)]) != numbers
    assert torch.equal(changed.all(dim=3), torch.tensor([False, True, False]).expand(NR_BLOCKS, 2, 3))
    assert not changed[:, :, [0, 2]].any()


@pytest.mark.parametrize("other", [NoFusion(NR_BLOCKS), MiddleFusion(NUM_CLASSES, NR_FILTERS, NR_BLOCKS)])
def test_late_fusion_adds_a_shift_to_its_blocks_alone(other):
    late, labels = LateFusion(NUM_CLASSES, NR_FILTERS, blocks=[1, 4]), torch.tensor([2, 0])
    conditions = other(labels)
    for (_, shift), (_, before) in zip(late(labels, conditions), conditions, strict=True):
        assert shift is None or not (shift - (0 if before is None else before)).any()  # zero until it is trained
    torch.nn.init.normal_(late.table.weight)
    rows = late.table.weight[labels].view(2, 2, NR_FILTERS)
    for block, ((scale, shift), (_, before)) in enumerate(zip(late(labels, conditions), conditions, strict=True)):
        assert scale is None
        if block in late.blocks:
            added = rows[:, late.blocks.index(block)]
            torch.testing.assert_close(shift, added if before is None else before + added)
        else:
            assert shift is before


def test_late_fusion_keeps_the_scales_of_film():
    labels = torch.tensor([2, 0])
    film, late = FiLM(NUM_CLASSES, NR_FILTERS, NR_BLOCKS), LateFusion(NUM_CLASSES, NR_FILTERS, blocks=[0])
    for (scale, _), (before, _) in zip(late(labels, conditions := film(labels)), conditions, strict=True):
        assert scale is before
