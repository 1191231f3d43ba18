"""Full Attention Residuals (arXiv 2603.15031) over a pretrained plain decoder, with the mean replaced by a sum.

Source 0 is the embedding, source i the output of sublayer i - 1 (attention of layer j is sublayer 2j, its MLP 2j + 1).
Target t = 0..L-1 enters sublayer t, target L the output's norm; it sees sources 0..t, n = t + 1 of them:

    s_i = w_t . v_i / sqrt(mean(v_i^2) + eps)      alpha = softmax_i(s)      h_t = n sum_i alpha_i v_i

At w = 0 every n alpha is 1 and h_t the plain residual stream. Only w [L + 1, d] learns. Sums over sources are the whole
cost, so the backward pass is written out: a source's gradient is gathered once, when all its targets have theirs.

N tokens = B x T, L = 60. Sources lie as [L + 1, N, d].
"""

import torch
import torch.nn.functional as F


class Depth:
    def __init__(self, base, query):
        self.base, self.query = base, query
        self.targets = 2 * base.layers_count + 1

    def mix(self, t, v, rms):
        """h_t [N, d], alpha and scores [t + 1, N] of sources v [>t, N, d] with 1 / rms [>t, N]."""
        scores = (v[: t + 1] @ self.query[t]) * rms[: t + 1]
        alpha = scores.softmax(0)
        return (t + 1) * torch.einsum("sn,snd->nd", alpha, v[: t + 1]), alpha, scores

    def forward(self, ids, backward=False):
        """Sources, alphas, the stream before the head; with `backward` the graphs of the sublayers as well."""
        base, (b, size) = self.base, ids.shape
        cos, sin = base.tables(torch.arange(size))
        v = torch.empty(self.targets, b * size, base.d)
        rms = torch.empty(self.targets, b * size)
        alphas, scores, graphs = [], [], []
        for t in range(self.targets):
            v[t] = (base.embedding[ids] if t == 0 else out.detach()).reshape(-1, base.d)
            rms[t] = torch.rsqrt(v[t].square().mean(-1) + base.eps)
            h, alpha, score = self.mix(t, v, rms)
            alphas.append(alpha)
            scores.append(score)
            h = h.view(b, size, -1).requires_grad_(backward)
            if t + 1 < self.targets:
                with torch.set_grad_enabled(backward):
                    out = base.sublayer(t, h, cos, sin)
                graphs.append((h, out) if backward else None)
        return v, rms, alphas, scores, graphs, h

    def nll(self, h, ids):
        """Mean negative log-likelihood of the next tokens."""
        return F.cross_entropy(self.base.logits(h[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    @torch.no_grad()
    def loss(self, ids):
        *_, h = self.forward(ids)
        return self.nll(h, ids).item()

    @torch.no_grad()
    def gradient(self, ids):
        """Loss and its gradient by the queries [L + 1, d]."""
        v, rms, alphas, scores, graphs, h = self.forward(ids, backward=True)
        with torch.enable_grad():
            loss = self.nll(h, ids)
            (g,) = torch.autograd.grad(loss, h)
        d, n = v.shape[-1], v.shape[1]
        grad = torch.zeros_like(self.query)
        by_target = torch.empty(self.targets, n, d)  # dloss / dh_t
        share = torch.zeros(self.targets, self.targets, n)  # (t + 1) alpha of target t, source i
        pull = torch.zeros(self.targets, self.targets, n)  # dloss / ds / rms
        own = torch.zeros(self.targets, n)  # what a source's own norm gives back along itself
        for t in reversed(range(self.targets)):
            by_target[t] = g.reshape(n, d)
            share[t, : t + 1] = (t + 1) * alphas[t]
            along = (t + 1) * torch.einsum("snd,nd->sn", v[: t + 1], by_target[t])
            ds = alphas[t] * (along - (alphas[t] * along).sum(0))
            pull[t, : t + 1] = ds * rms[: t + 1]
            own[: t + 1] -= ds * scores[t] * rms[: t + 1].square() / d
            grad[t] = pull[t, : t + 1].flatten() @ v[: t + 1].flatten(0, 1)
            if t:  # the gradient of source t is complete: pass it through sublayer t - 1
                whole = torch.einsum("tn,tnd->nd", share[t:, t], by_target[t:])
                whole += pull[t:, t].T @ self.query[t:] + own[t][:, None] * v[t]
                h, out = graphs.pop()
                (g,) = torch.autograd.grad(out, h, whole.view(out.shape))
        return loss.item(), grad
