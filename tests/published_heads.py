"""Heads in the layouts of their published code, written from their papers: names, shapes and forward passes.

They stand here to be imported from: nothing of ours is used in them, so that what agrees agrees by itself.
"""

from __future__ import annotations

import math

import torch
from torch import nn


class AttentionDeepMIL(nn.Module):
    """ABMIL: a layer in front, attention (plain or gated), one sigmoid or several logits."""

    def __init__(self, *, features=800, width=500, hidden=128, outputs=1, gated=False):
        super().__init__()
        self.feature_extractor_part2 = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        if gated:
            self.attention_V = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
            self.attention_U = nn.Sequential(nn.Linear(width, hidden), nn.Sigmoid())
            self.attention_w = nn.Linear(hidden, 1)
        else:
            self.attention = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.classifier = nn.Sequential(nn.Linear(width, outputs), nn.Sigmoid())
        self.gated = gated

    def forward(self, bag):
        """Logits ahead of the sigmoid, (outputs,)."""
        h = self.feature_extractor_part2(bag)
        e = self.attention_w(self.attention_V(h) * self.attention_U(h)) if self.gated else self.attention(h)
        weights = torch.exp(e - e.max()) / torch.exp(e - e.max()).sum()
        return self.classifier[0]((weights * h).sum(dim=0))


class PlainAttentionMIL(nn.Module):
    """Attention MIL of Abdulsadig et al.: attention on the features, then one layer."""

    def __init__(self, *, features=1024, hidden=256, outputs=4):
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.fc1 = nn.Linear(features, outputs)

    def forward(self, bag):
        weights = self.attention(bag).softmax(dim=0)
        return self.fc1(weights.T @ bag)[0]


class _Attention(nn.Module):
    """Scores of tiles, gated or plain, with or without dropout, as CLAM names its layers."""

    def __init__(self, width, hidden, branches, *, gated, dropout):
        super().__init__()
        drop = [nn.Dropout(0.25)] if dropout else []
        self.gated = gated
        if gated:
            self.attention_a = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), *drop)
            self.attention_b = nn.Sequential(nn.Linear(width, hidden), nn.Sigmoid(), *drop)
            self.attention_c = nn.Linear(hidden, branches)
        else:
            self.module = nn.Sequential(
                nn.Linear(width, hidden), nn.Tanh(), *drop, nn.Linear(hidden, branches)
            )

    def forward(self, tiles):
        if self.gated:
            return self.attention_c(self.attention_a(tiles) * self.attention_b(tiles))
        return self.module(tiles)


class PublishedCLAM(nn.Module):
    """CLAM with one branch or one a class, small or big."""

    def __init__(self, *, features=1024, hidden=256, outputs=4, multi=False, gated=True, dropout=True):
        super().__init__()
        drop = [nn.Dropout(0.25)] if dropout else []
        attention = _Attention(512, hidden, outputs if multi else 1, gated=gated, dropout=dropout)
        self.attention_net = nn.Sequential(nn.Linear(features, 512), nn.ReLU(), *drop, attention)
        if multi:
            self.classifiers = nn.ModuleList(nn.Linear(512, 1) for _ in range(outputs))
        else:
            self.classifiers = nn.Linear(512, outputs)
        self.instance_classifiers = nn.ModuleList(nn.Linear(512, 2) for _ in range(outputs))
        self.multi = multi

    def forward(self, bag):
        h = self.attention_net[:-1](bag)
        attention = self.attention_net[-1](h).T.softmax(dim=1)  # branches by tiles
        slides = attention @ h
        if not self.multi:
            return self.classifiers(slides)[0]
        return torch.cat([layer(slide) for layer, slide in zip(self.classifiers, slides, strict=True)])

    def instances(self, bag):
        """Logits of the classifiers of single tiles, (K, C, 2)."""
        h = self.attention_net[:-1](bag)
        return torch.stack([layer(h) for layer in self.instance_classifiers], dim=1)


class LandmarkAttention(nn.Module):
    """Self-attention by landmarks, with zeros in front of the sequence and a convolution of the values."""

    def __init__(self, width=512, heads=8, iterations=6, kernel=33):
        super().__init__()
        self.heads, self.landmarks, self.iterations = heads, width // 2, iterations
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.1))
        self.res_conv = nn.Conv2d(
            heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False
        )

    def forward(self, tokens):
        """Mixed tokens (N, W), and the attention matrix that they were mixed by, mean over heads."""
        n, m = len(tokens), self.landmarks
        pad = (m - n % m) % m
        padded = torch.cat([tokens.new_zeros(pad, tokens.shape[1]), tokens])
        query, key, value = (
            part.reshape(len(padded), self.heads, -1).transpose(0, 1)
            for part in self.to_qkv(padded).chunk(3, dim=-1)
        )
        query = query * query.shape[-1] ** -0.5
        length = math.ceil(n / m)
        query_marks, key_marks = (
            part.reshape(self.heads, m, length, -1).sum(dim=2) / length for part in (query, key)
        )
        first = (query @ key_marks.transpose(1, 2)).softmax(dim=-1)
        middle = (query_marks @ key_marks.transpose(1, 2)).softmax(dim=-1)
        last = (query_marks @ key.transpose(1, 2)).softmax(dim=-1)
        matrix = first @ self._inverse(middle) @ last
        mixed = matrix @ value + self.res_conv(value[None])[0]
        out = self.to_out(mixed.transpose(0, 1).reshape(len(padded), -1))
        return out[-n:], matrix.mean(dim=0)[-n:, -n:]

    def _inverse(self, matrix):
        inverse = matrix.transpose(1, 2) / (matrix.sum(dim=2).max() * matrix.sum(dim=1).max())
        one = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
        for _ in range(self.iterations):
            step = matrix @ inverse
            inverse = 0.25 * inverse @ (13 * one - step @ (15 * one - step @ (7 * one - step)))
        return inverse


class _Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = LandmarkAttention(width)

    def forward(self, tokens):
        return tokens + self.attn(self.norm(tokens))[0]


class _Positions(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.proj1 = nn.Conv2d(width, width, 5, 1, 2, groups=width)
        self.proj2 = nn.Conv2d(width, width, 3, 1, 1, groups=width)


class PublishedTransMIL(nn.Module):
    """TransMIL."""

    def __init__(self, *, features=1024, width=512, outputs=4):
        super().__init__()
        self.pos_layer = _Positions(width)
        self._fc1 = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.layer1, self.layer2 = _Layer(width), _Layer(width)
        self.norm = nn.LayerNorm(width)
        self._fc2 = nn.Linear(width, outputs)

    def forward(self, bag):
        h = self._fc1(bag)
        side = math.ceil(math.sqrt(len(h)))
        h = torch.cat([self.cls_token[0], h, h[: side * side - len(h)]])
        h = self.layer1(h)
        plane = h[1:].T.reshape(1, -1, side, side)
        places = self.pos_layer
        plane = places.proj(plane) + plane + places.proj1(plane) + places.proj2(plane)
        h = torch.cat([h[:1], plane[0].flatten(1).T])
        return self._fc2(self.norm(self.layer2(h))[0])


class _FirstStream(nn.Module):
    def __init__(self, features, outputs):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(features, outputs))

    def forward(self, bag):
        return self.fc(bag)


class _SecondStream(nn.Module):
    def __init__(self, features, outputs, *, passing):
        super().__init__()
        self.q = nn.Sequential(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, 128), nn.Tanh())
        self.v = (
            nn.Sequential(nn.Dropout(0.2), nn.Linear(features, features), nn.ReLU())
            if passing
            else nn.Identity()
        )
        self.fcc = nn.Conv1d(outputs, outputs, kernel_size=features)


class PublishedDSMIL(nn.Module):
    """DSMIL; ``flat`` spells its first stream as a plain sequence."""

    def __init__(self, *, features=512, outputs=4, passing=False, flat=False):
        super().__init__()
        self.i_classifier = (
            nn.Sequential(nn.Identity(), nn.Linear(features, outputs))
            if flat
            else _FirstStream(features, outputs)
        )
        self.b_classifier = _SecondStream(features, outputs, passing=passing)

    def forward(self, bag):
        """Logits of the second stream, and the maxima of the first."""
        scores, second = self.i_classifier(bag), self.b_classifier
        values, queries = second.v(bag), second.q(bag)
        critical = queries[scores.argmax(dim=0)]
        attention = (queries @ critical.T / math.sqrt(queries.shape[1])).softmax(dim=0)
        return second.fcc((attention.T @ values)[None]).reshape(-1), scores.max(dim=0).values


class _Fusion(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.fc = nn.Linear(2 * width, width)
        self.classifier = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, outputs))

    def forward(self, he, ihc):
        mixed = self.fc(torch.cat([he, ihc]))
        return self.classifier(torch.cat([he + ihc, he * ihc, mixed]))


class PublishedWSMCL(nn.Module):
    """WSMCL: a branch for each slide of a case, and their fusion."""

    def __init__(self, *, width=512, outputs=4):
        super().__init__()
        for stain in ("HE", "IHC"):
            setattr(self, f"{stain}_FC", nn.Sequential(nn.Linear(width, width), nn.GELU()))
            setattr(self, f"{stain}_transformer", _Layer(width))
            setattr(self, f"{stain}_classifier", nn.Sequential(nn.Linear(width, outputs)))
        self.MM_classifier = _Fusion(width, outputs)
        self.norm = nn.LayerNorm(width)
        self.logit_scale = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))

    def forward(self, he, ihc):
        """Logits of both, of H&E, of IHC, and the attention that the tiles of H&E received."""
        he_token, he_logits, received = self._branch("HE", he)
        ihc_token, ihc_logits, _ = self._branch("IHC", ihc)
        return self.MM_classifier(he_token, ihc_token), he_logits, ihc_logits, received

    def _branch(self, stain, bag):
        layer = getattr(self, f"{stain}_transformer")
        h = getattr(self, f"{stain}_FC")(bag)
        mixed, matrix = layer.attn(layer.norm(h))
        token = self.norm(h + mixed).mean(dim=0)
        return token, getattr(self, f"{stain}_classifier")(token), matrix.mean(dim=0)


class LightningPredictor(nn.Module):
    """A predictor of fields as Lightning saves it: a network of timm below ``model``."""

    def __init__(self, architecture, *, channels=3, outputs=4, beside=False, **arguments):
        super().__init__()
        import timm

        self.model = timm.create_model(
            architecture,
            pretrained=False,
            in_chans=channels,
            num_classes=0 if beside else outputs,
            **arguments,
        )
        if beside:
            self.classifier = nn.Linear(self.model.num_features, outputs)

    def forward(self, fields):
        found = self.model(fields)
        return self.classifier(found) if hasattr(self, "classifier") else found
