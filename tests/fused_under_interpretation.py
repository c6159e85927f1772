"""Run by test_contrast.py with TRITON_INTERPRET=1: the GPU kernels on CPU tensors, in Python."""

import torch
from test_contrast import problem, reference

from weakseg.contrast import fused, segment_contrast
from weakseg.contrast.problem import Problem


def check(n, s, d, groups, *, dtype=torch.float32, learned=None, concentration=8.0, seed=0):
    own = torch.randint(-1, s, (n,), generator=torch.Generator().manual_seed(seed))
    vectors, keywords = problem(n, s, d, *groups, dtype=dtype, seed=seed, own=own)
    keywords["concentration"] = concentration
    learned = s if learned is None else learned
    call = Problem(
        *vectors,
        keywords["own"],
        keywords["pixel_group"],
        keywords["prototype_group"],
        keywords["relation"],
        concentration,
        learned,
    )
    weight = torch.rand(n, generator=torch.Generator().manual_seed(seed)) / n
    loss = fused.contrast(call)
    by_pixels, by_prototypes = torch.autograd.grad((loss * weight).sum(), vectors)

    exact = [v.detach().double().requires_grad_() for v in vectors]
    known = own >= 0
    true = reference(exact, **keywords | {"own": own.clamp(min=0)})
    # The plain formulation has no word for "no own segment": leave those pixels out here.
    inside = (true * weight * known).sum()
    true_by_pixels, _ = torch.autograd.grad(inside, exact, retain_graph=True)
    half = dtype != torch.float32
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(loss[known].double(), true[known], **tolerance)
    scale = 1 / n
    torch.testing.assert_close(
        by_pixels[known].double() / scale, true_by_pixels[known] / scale, **tolerance
    )

    # All pixels, and the prototypes' gradient, against the form for CPUs.
    tiled_loss = segment_contrast(*exact, **keywords, learned=learned)
    torch.testing.assert_close(loss.double(), tiled_loss, **tolerance)
    _, true_by_prototypes = torch.autograd.grad((tiled_loss * weight).sum(), exact)
    torch.testing.assert_close(by_prototypes.double(), true_by_prototypes, **tolerance)
    assert not by_prototypes[learned:].any()


if __name__ == "__main__":
    check(70, 90, 5, (4, 3))
    check(130, 65, 20, (3, 3), learned=30, seed=1)
    check(64, 64, 16, (1, 1), seed=2)
    check(9, 7, 3, (5, 6), seed=3, concentration=50.0)
    check(3, 200, 4, (2, 40), seed=4, learned=0)
    check(50, 40, 8, (3, 4), seed=5, dtype=torch.float16)  # Triton interprets no bfloat16 product
    check(50, 40, 8, (3, 4), seed=6, dtype=torch.float16, concentration=50.0)
    print("the kernels agree")
