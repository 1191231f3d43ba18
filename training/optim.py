"""Muon for the matrices (momentum orthogonalised by Newton-Schulz), AdamW for embeddings, norms and depth queries."""

import torch


def orthogonal(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """A batch of matrices [k, m, n] with all singular values moved towards 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    wide = x.shape[-2] > x.shape[-1]
    x = x.mT if wide else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.mT if wide else x).float()


class Muon:
    """Matrices of one shape are stepped as one batch."""

    def __init__(self, params, momentum: float, decay: float):
        self.momentum, self.decay = momentum, decay
        by_shape = {}
        for p in params:
            by_shape.setdefault(tuple(p.shape), []).append(p)
        self.groups = list(by_shape.values())
        self.state = [torch.zeros(len(g), *g[0].shape) for g in self.groups]

    @torch.no_grad()
    def step(self, lr: float):
        for group, buf in zip(self.groups, self.state):
            grad = torch.stack([p.grad for p in group])
            buf.lerp_(grad, 1 - self.momentum)
            update = orthogonal(grad.lerp(buf, self.momentum))
            update *= max(1.0, buf.shape[-2] / buf.shape[-1]) ** 0.5
            for p, u in zip(group, update):
                p.mul_(1 - lr * self.decay).add_(u, alpha=-lr)


def build(model, recipe):
    """Muon and AdamW over the parameters of a twin."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        matrix = p.dim() == 2 and "embed_tokens" not in name and "_res_proj" not in name
        (matrices if matrix else rest).append(p)
    muon = Muon(matrices, recipe.momentum, recipe.decay)
    adam = torch.optim.AdamW(rest, lr=recipe.adam_lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, foreach=True)
    return muon, adam
