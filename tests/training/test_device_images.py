"""Images of parts on the device: the right ones, and the next part's before they are asked for."""

from __future__ import annotations

import pytest
import torch

from colipri.objectives.batch import Batch, CasePart
from colipri.training.device_images import DeviceImages, rows_of

CPU = torch.device("cpu")


def batch_of(cases: int, image_row: list[int] | None = None) -> Batch:
    read = cases if image_row is None else sum(row >= 0 for row in image_row)
    names = [f"c{number}" for number in range(cases)]
    image = torch.arange(read * 8, dtype=torch.int16).reshape(read, 1, 2, 2, 2)
    body = torch.arange(read * 4).reshape(read, 4) % 3 == 0
    has_report = torch.ones(cases, dtype=torch.bool)
    return Batch(names, names, names, names, has_report, [False] * cases, image, body, image_row)


def parts_of(batch: Batch, *rows: tuple[int, ...]) -> list[CasePart]:
    return [CasePart(batch, chosen, (), 0, 0) for chosen in rows]


@pytest.mark.parametrize("ahead", [False, True])
def test_parts_come_as_they_were_loaded_whatever_was_expected(ahead: bool) -> None:
    batch = batch_of(6, [0, -1, 1, 2, -1, 3])
    parts = parts_of(batch, (0, 2), (3, 5), (5, 0))
    images = DeviceImages(CPU, ahead=ahead)
    for expected in (parts, parts[:1], [], parts[::-1]):
        images.expect(expected)
        for part in [*parts, *parts]:
            image, body = images.of(part)
            places = batch.places(part.rows)
            assert torch.equal(image, batch.image[places])
            assert torch.equal(body, batch.body[places])


def test_the_following_part_is_copied_before_the_present_one_is_computed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = parts_of(batch_of(6), (0, 1), (2, 3), (4, 5))
    images, begun = DeviceImages(CPU, ahead=True), []
    copy = images._copy
    monkeypatch.setattr(images, "_copy", lambda part: (begun.append(part.rows), copy(part))[1])
    images.expect(["texts have no images", *parts])
    seen = []
    for part in [*parts, *parts]:  # cached gradients go over all parts twice
        images.of(part)
        seen.append(list(begun))
    assert seen[0] == [(0, 1), (2, 3)]
    assert seen[1][-1] == (4, 5) and seen[2][-1] == (0, 1) and seen[3][-1] == (2, 3)
    assert len(begun) == 7  # each once a pass, and the first of a third pass


def test_one_part_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (part,) = parts_of(batch_of(2), (0, 1))
    images, begun = DeviceImages(CPU, ahead=True), []
    copy = images._copy
    monkeypatch.setattr(images, "_copy", lambda part: (begun.append(part.rows), copy(part))[1])
    images.expect([part])
    images.of(part)
    assert begun == [(0, 1)]


def test_adjoining_rows_are_a_view_and_stay_in_pinned_memory() -> None:
    batch = batch_of(6)
    view, copied = parts_of(batch, (2, 3, 4), (0, 2))
    assert rows_of(view)[0].data_ptr() == batch.image[2].data_ptr()
    assert torch.equal(rows_of(copied)[0], batch.image[[0, 2]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies overlap on CUDA alone")
def test_on_cuda_the_copies_are_those_of_pinned_memory() -> None:
    batch = batch_of(64)
    batch.image, batch.body = batch.image.pin_memory(), batch.body.pin_memory()
    parts = parts_of(batch, *((n, n + 1, n + 2, n + 3) for n in range(0, 64, 4)))
    images = DeviceImages(torch.device("cuda"))
    images.expect(parts)
    for part in [*parts, *parts]:
        image, body = images.of(part)
        assert torch.equal(image.cpu(), batch.image[list(part.rows)])
        assert torch.equal(body.cpu(), batch.body[list(part.rows)])
