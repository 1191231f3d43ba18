"""The mix against numbers computed elsewhere, and what the twins share at the start.

    python test_model.py
"""

import torch
from torch import nn

from model import Decoder, Norm, Shape, mix, rope_tables


def query(w, gamma, eps):
    proj, norm = nn.Linear(4, 1, bias=False), Norm(4, eps)
    proj.weight.data = torch.tensor([w])
    norm.weight.data = torch.tensor(gamma)
    return proj, norm


def test_mix():
    sources = [torch.tensor([[v]]) for v in ([1.0, 0.0, -1.0, 2.0], [0.5] * 4, [3.0, -4.0, 0.0, 0.0])]
    out, alpha = mix(sources, *query([0.5, -0.25, 0.0, 1.0], [1.0, 1.0, 2.0, 0.5], 1e-6))
    torch.testing.assert_close(alpha.flatten(), torch.tensor([0.413093, 0.256962, 0.329946]), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.flatten(), torch.tensor([1.531410, -1.191302, -0.284612, 0.954666]), atol=1e-5, rtol=0)
    out, _ = mix(sources, *query([0.0] * 4, [1.0] * 4, 1e-6))
    torch.testing.assert_close(out.flatten(), torch.tensor([1.5, -1.166667, -0.166667, 0.833333]), atol=1e-5, rtol=0)


def test_twins_start_alike():
    plain, attnres = (Decoder(Shape().with_blocks(b)).init(7) for b in (0, 4))
    shared = dict(plain.named_parameters())
    extra = [n for n, p in attnres.named_parameters() if n not in shared or not torch.equal(p, shared[n])]
    assert len(extra) == 2 * (2 * 12 + 1) and all("_res_" in n for n in extra)


def test_blocks():
    """Targets see the finished blocks and the partial; blocks start again from nothing."""
    model, seen, streams = Decoder(Shape().with_blocks(4)).init(7), {}, {}

    def probe(kind, point, value):
        (seen if kind == "alpha" else streams.setdefault(kind, {}))[point] = value

    model.hidden(torch.arange(5)[None], *rope_tables(model.s, 5), probe)
    counts = [len(seen[p]) for p in sorted(seen)]
    assert counts == [2] * 6 + [3] * 6 + [4] * 6 + [5] * 6, counts
    for first in (0, 6, 12, 18):
        torch.testing.assert_close(streams["stream"][first + 1], streams["output"][first])
    torch.testing.assert_close(streams["stream"][6], sum(streams["output"][s] for s in range(6)))


if __name__ == "__main__":
    test_mix(), test_twins_start_alike(), test_blocks()
    print("3 passed, 0 failed")
