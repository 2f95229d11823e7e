"""Heads that ask a model which starts from nothing about every place it sees.

Answers and masks alone teach such a model slowly: a few words, or a few pixels, send gradients through whole
transformers. The heads are left behind when the model is saved.

Shape letters: N cells of a clip, A attributes, P places, G masks that a text names, D channels, B samples, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unipixel.model import UniPixel
from unipixel.train.losses import IGNORED_LABEL
from unipixel.train.sight import LOOK_SIZES, NUM_PARTS, NUM_WAYS, Held, Sight

_OBJECT_WEIGHT, _PLACE_WEIGHT = 4.0, 4.0
_WAY_WEIGHT, _PART_WEIGHT = 8.0, 3.0


class SightHead(nn.Module):
    """Reads, from the state of each cell, what is seen there."""

    def __init__(self, width: int, *, num_places: int, hidden: int | None = 128) -> None:
        """Build the head.

        Args:
            width: Channels D of a state.
            num_places: The first so many places of `Sight` are asked for; 0 asks for looks alone.
            hidden: Channels between two layers; None reads the looks with one.
        """
        super().__init__()
        before = [] if hidden is None else [nn.Linear(width, hidden), nn.GELU()]
        last = nn.Linear(width if hidden is None else hidden, sum(LOOK_SIZES))
        self.layers = nn.Sequential(nn.RMSNorm(width, eps=1e-6), *before, last)
        # Attention passes on what can be read off a mean of states, so places must be there to be read off.
        self.places = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, num_places))
        self.num_places = num_places

    def forward(self, states: Tensor, sights: Sequence[Sight | Held]) -> dict[str, Tensor]:
        """Return the loss `sight` with, for the log, `looks` (share of objects' cells named right) and `places`.

        `places` is missing where none are asked for.

        Args:
            states: (N, D) of the cells of all clips, clip by clip, or of what is held.
            sights: One per clip.
        """
        looks = torch.cat([sight.looks for sight in sights]).to(states.device)
        places = torch.cat([sight.places[:, : self.num_places] for sight in sights]).to(states.device)
        logits = self.layers(states).split(LOOK_SIZES, dim=-1)
        # The background covers most of a frame.
        weights = torch.where(looks[:, 0] > 0, _OBJECT_WEIGHT, 1.0) * (looks[:, 0] >= 0)
        is_object = looks[:, 0] > 0
        loss, right = states.new_zeros(()), []
        for column, scores in enumerate(logits):
            wrong = nn.functional.cross_entropy(scores, looks[:, column], reduction="none", ignore_index=-1)
            loss = loss + (wrong * weights).sum() / weights.sum()
            right.append((scores.argmax(dim=-1) == looks[:, column])[is_object].float().mean())
        figures = {"looks": torch.stack(right).mean().nan_to_num().detach()}
        if self.num_places:
            error = (self.places(states) - places)[~places.isnan()].abs().mean()
            figures["places"] = error.detach()
            loss = loss + _PLACE_WEIGHT * error
        return {"sight": loss, **figures}


def tapped_layer(model: UniPixel) -> int:
    """Return the layer of the language model that first reads what is asked of its states.

    Two thirds of the layers find out what is where; those that are left can still look for it.
    """
    return len(model.model.language_model.layers) * 2 // 3


class OutlineHead(nn.Module):
    """Reads, from what a vision transformer made of a cell, the outline of what is seen there.

    Shapes are learned slowly from their names; an outline says more about the same cell. Whether it makes them learned
    sooner has not been shown: after 300 steps with it, shapes were named no better.
    """

    def __init__(self, width: int, *, hidden: int = 192) -> None:
        """Build the head for states of a width D."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.RMSNorm(width, eps=1e-6),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, NUM_WAYS + NUM_PARTS),
        )

    def forward(self, states: Tensor, outlines: Tensor) -> dict[str, Tensor]:
        """Return the loss `outline` and, for the log, the mean errors `way` and `part`.

        Args:
            states: (N, D).
            outlines: (N, 84), see `Sight`.
        """
        is_object = ~outlines.isnan().any(dim=1)
        if not is_object.any():
            return {name: self.layers(states[:1]).sum() * 0 for name in ("outline", "way", "part")}
        wanted = outlines[is_object].to(states.device)
        ways, parts = self.layers(states[is_object]).split([NUM_WAYS, NUM_PARTS], dim=-1)
        way = (ways - wanted[:, :NUM_WAYS]).abs().mean()
        part = nn.functional.binary_cross_entropy_with_logits(parts, wanted[:, NUM_WAYS:])
        return {"outline": _WAY_WEIGHT * way + _PART_WEIGHT * part, "way": way.detach(), "part": part.detach()}


class LookReader(nn.Module):
    """Reads from a state the look of the object that it means."""

    def __init__(self, width: int) -> None:
        """Build the head for states of a width D."""
        super().__init__()
        self.layers = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, sum(LOOK_SIZES)))

    def forward(self, states: Tensor, named: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy and the share of attributes read right.

        Args:
            states: (G, D).
            named: (G, A) numbers of words; -1 is not asked for.
        """
        parts = self.layers(states).split(LOOK_SIZES, dim=-1)
        wrong = [
            nn.functional.cross_entropy(scores, column, reduction="none", ignore_index=-1)
            for scores, column in zip(parts, named.T, strict=True)
        ]
        right = [scores.argmax(dim=-1) == column for scores, column in zip(parts, named.T, strict=True)]
        is_asked = named.T >= 0
        count = is_asked.sum().clamp(min=1)
        return torch.stack(wrong).sum() / count, (torch.stack(right) & is_asked).sum().detach() / count


class PointingHead(nn.Module):
    """Asks the state that a mask comes from what it means: the look of the object, and the cells where it is.

    The look alone teaches a model to listen to the question, the cells to look for what it heard. Without the
    first, neither is learned: there is nothing to look for as long as nothing was heard.
    """

    def __init__(self, width: int, *, hidden: int = 64) -> None:
        """Build the head for states of a width D."""
        super().__init__()
        self.asks = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, hidden))
        self.cells = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, hidden))
        self.looks = LookReader(width)

    def forward(self, states: Sequence[Tensor], cells: Sequence[Tensor], sights: Sequence[Sight]) -> dict[str, Tensor]:
        """Return the mean cross-entropies over all masks: `pointing` of cells, `naming` of looks.

        Args:
            states: Per clip (G, D) states that its masks come from.
            cells: Per clip (N, D) states of its visual tokens.
            sights: One per clip.
        """
        losses = [cells[0].new_zeros(0)]
        for asked, seen, sight in zip(states, cells, sights, strict=True):
            covers = sight.covers.to(seen.device)
            if not len(covers):
                continue
            scores = self.asks(asked) @ self.cells(seen).T
            shares = covers / covers.sum(dim=1, keepdim=True).clamp(min=1e-6)
            losses.append(nn.functional.cross_entropy(scores, shares, reduction="none"))
        pointing = torch.cat(losses)
        named = torch.cat([sight.named for sight in sights]).to(pointing.device)
        naming, _ = self.looks(torch.cat(list(states)), named)
        return {"pointing": pointing.mean() if len(pointing) else pointing.sum(), "naming": naming}


def asked_states(
    labels: Tensor, is_named: Tensor, absent: Sequence[Sequence[bool]]
) -> tuple[Tensor, list[list[list[int]]]]:
    """Find the states that have to look for objects: those that masks come from, and where their answers begin.

    Whether there is such an object at all is decided with the first word of an answer.

    Args:
        labels: (B, L) tokens that are learned, `IGNORED_LABEL` elsewhere.
        is_named: (B, L) bool, the states that masks come from.
        absent: Per sample, by answer, whether it says that there is no such object.

    Returns:
        (B, L) bool, all these states; per sample and state, in their order, the numbers of the masks that it means,
        none where there is no such object.
    """
    is_learned = labels != IGNORED_LABEL
    begins = torch.zeros_like(is_learned)
    begins[:, :-1] = is_learned[:, 1:] & ~is_learned[:, :-1]
    asking, meant = is_named.clone(), []
    for row, named in enumerate(is_named):
        places = named.nonzero()[:, 0].tolist()
        first = begins[row].nonzero()[:, 0].tolist()
        own: dict[int, list[int]] = {
            begin: [] for begin, is_absent in zip(first, absent[row], strict=False) if is_absent
        }
        for number, place in enumerate(places):
            own.setdefault(max(begin for begin in first if begin <= place), []).append(number)
        own |= {place: [number] for number, place in enumerate(places)}
        asking[row, list(own)] = True
        meant.append([own[place] for place in sorted(own)])
    return asking, meant


def attention_loss(
    queries: Tensor,
    keys: Tensor,
    *,
    asking: Tensor,
    cells: Tensor,
    covers: Sequence[Tensor],
    meant: Sequence[Sequence[Sequence[int]]] | None = None,
) -> Tensor:
    """Ask some heads of a layer to attend, from the states that mean an object, to the cells where it is.

    A state that means none is asked to attend to the token after the clip: what is not found has a place too, so that
    an answer can be told from it.

    Args:
        queries: (B, H, L, d) after their rotation.
        keys: (B, H, L, d) after their rotation.
        asking: (B, L) bool, the states that mean objects.
        cells: (B, L) bool, the visual tokens.
        covers: Per sample (G, N) shares of its N visual tokens that belong to each of its G objects.
        meant: Per sample and asking state the rows of `covers` that it means; None where it is one each, in order.

    Returns:
        The mean cross-entropy over states and heads.
    """
    losses = [queries.new_zeros(0)]
    for row, cover in enumerate(covers):
        numbers = [[number] for number in range(len(cover))] if meant is None else meant[row]
        if not numbers:
            continue
        own = cover.to(queries.device)
        shares = torch.stack([own[chosen].sum(dim=0) for chosen in numbers])
        asked, places = asking[row].nonzero()[:, 0], cells[row].nonzero()[:, 0]
        scores = queries[row][:, asked] @ keys[row].transpose(-1, -2) * queries.shape[-1] ** -0.5  # (H, G, L)
        later = torch.arange(keys.shape[2], device=keys.device) > asked[:, None]
        logs = scores.masked_fill(later, float("-inf")).log_softmax(dim=-1)
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)
        found = -(shares * logs[..., places]).sum(dim=-1)
        is_nothing = torch.tensor([not chosen for chosen in numbers], device=found.device)
        losses.append(torch.where(is_nothing, -logs[..., places[-1] + 1], found).flatten())
    together = torch.cat(losses)
    return together.mean() if len(together) else together.sum()
