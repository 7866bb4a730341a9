"""The attention of bf16 on CPUs says what torch's says."""

import torch
import torch.nn.functional as F

from ray_jobs.llemr.attention import batched_products


def test_batched_products_are_the_fused_kernel_within_rounding():
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 40, 16, requires_grad=True) for _ in range(3))
    mask = torch.rand(3, 1, 40, 40) < 0.5
    mask[:, :, range(40), range(40)] = True
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3).transpose(1, 2)
    found, _ = batched_products(None, q, k, v, mask, 0.3)
    assert torch.allclose(found, wanted, atol=1e-5)
    pull = torch.randn_like(wanted)
    for mine, theirs in zip(
        torch.autograd.grad(found, (q, k, v), pull), torch.autograd.grad(wanted, (q, k, v), pull), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)
    rounded, _ = batched_products(None, q, k, v.bfloat16(), mask, 0.3)
    assert rounded.dtype == torch.bfloat16 and torch.allclose(rounded.float(), wanted, atol=0.05)


def test_a_position_that_sees_nothing_gives_no_nan():
    q = torch.randn(1, 1, 4, 8)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    mask[..., 3, :] = False  # padding
    assert batched_products(None, q, q, q.bfloat16(), mask, 1.0)[0].isfinite().all()
