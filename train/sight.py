"""What a model that starts from nothing is asked about every place it sees: what is there, and how it moves.

Answers and masks alone teach such a model slowly: a few words, or a few pixels, send gradients through whole
transformers. The head that is asked is left behind when the model is saved.

Shape letters: N cells of a clip (frames or frame pairs t, rows, columns, in raster order), A attributes, P places,
O objects, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from unipixel.clip import ClipLayout
from unipixel.memory.injection import MemoryInjection
from unipixel.model import UniPixel
from unipixel.patches import FRAMES_PER_PAIR
from unipixel.train.datasets.world import Sample
from unipixel.train.datasets.world.vocabulary import COLOURS, SHAPES, TEXTURES
from unipixel.train.losses import IGNORED_LABEL

_WORDS = (SHAPES, COLOURS, TEXTURES)
# Number 0 is the background.
LOOK_SIZES = tuple(len(words) + 1 for words in _WORDS)
# The cell's own column and row, then column and row of the middle, width and height of what is there.
STILL_PLACES = 6
# And how far that has come since it was first seen and since the frame before, and the time.
MOVING_PLACES = 11
# A cell belongs to an object that covers this much of it, and to none where nothing covers anything of it.
_LEAST_COVER = 0.15
_OBJECT_WEIGHT, _PLACE_WEIGHT = 4.0, 4.0
# Parts of a cell and of an object's box along each side.
_CELL_PARTS, _OUTLINE_PARTS = 4, 8
_NUM_WAYS, _NUM_PARTS = 4, _CELL_PARTS**2 + _OUTLINE_PARTS**2
_WAY_WEIGHT, _PART_WEIGHT = 8.0, 3.0


@dataclass(frozen=True)
class Held:
    """What stands behind each of M `<|mem|>` or `<|ref|>`: an object on a pair of frames.

    Attributes:
        covers: (M, N) share of each cell of the clip that belongs to it.
        looks: (M, A) numbers of the words for its looks.
        places: (M, P) as in `Sight`, without the cell's own.
    """

    covers: Tensor
    looks: Tensor
    places: Tensor

    @classmethod
    def nothing(cls, num_cells: int) -> Held:
        """Return what a conversation without a memory holds."""
        return cls(
            torch.empty(0, num_cells), torch.empty(0, len(_WORDS), dtype=torch.long), torch.empty(0, MOVING_PLACES)
        )


@dataclass(frozen=True)
class Sight:
    """What is where in one clip.

    Attributes:
        looks: (N, A) a word's number by attribute, 0 on the background, -1 where it cannot be told.
        places: (N, P) see `STILL_PLACES` and `MOVING_PLACES`; positions in [-1, 1], sizes as shares of the frame,
            NaN where there is no object.
        covers: (G, N) share of each cell that the object of each `<|seg|>` about the clip covers; (0, N) where
            there is none.
        anchored: (G, N) the same on the pair of frames alone on which the object's mask is asked for.
        named: (G, A) the looks of these objects.
        held: What stands behind each `<|mem|>` or `<|ref|>` about the clip, in the order of the text.
        outlines: (N, 84) what is there relative to the cell: the way to its middle, its width and height, as shares
            of the frame; its share of each of 4 x 4 parts of the cell, row by row; its silhouette, its share of
            each of 8 x 8 parts of its own box. NaN where there is no object; (N, 0) where it was not asked for.
        absent: By answer about the clip, in the order of the text, whether it says that there is no such object.
    """

    looks: Tensor
    places: Tensor
    covers: Tensor
    anchored: Tensor
    named: Tensor
    held: Held
    outlines: Tensor
    absent: tuple[bool, ...] = ()


@dataclass(frozen=True)
class ClipSight:
    """What is where in one clip, whatever is asked about it.

    Attributes:
        sight: Without anything that belongs to a text.
        covers: (O, t, rows, columns) share of each cell that belongs to each object.
        places: (O, t, P) of the objects themselves, see `Sight`.
        words: (O, A) numbers of their looks; None where they have no names.
    """

    sight: Sight
    covers: Tensor
    places: Tensor
    words: Tensor | None


def look_at(sample: Sample, layout: ClipLayout, *, has_outlines: bool = False) -> ClipSight:
    """Describe a clip on the grid of the language model's tokens.

    Args:
        sample: The clip, with its scene where it is of the drawn world.
        layout: How the model sees the clip.
        has_outlines: Whether to describe the outline of what is in each cell.
    """
    t, rows, columns = layout.grid_thw[0], *(side // layout.merge_size for side in layout.grid_thw[1:])
    masks = _paired(sample.clip.masks, t)
    words = look_numbers(sample)
    sight = see(masks, words, grid=(rows, columns))
    if has_outlines:
        sight = replace(sight, outlines=_outlines(masks, (rows, columns)))
    covers = nn.functional.adaptive_avg_pool2d(masks, (rows, columns))
    return ClipSight(sight, covers, _places_of(masks), words)


def see_clip(
    clip: ClipSight,
    object_ids: Sequence[int],
    *,
    named: Sequence[tuple[int, int]] = (),
    memories: Sequence[MemoryInjection] = (),
    referred: Sequence[tuple[int, int]] = (),
    absent: Sequence[bool] = (),
) -> Sight:
    """Describe a clip and what a conversation says about it.

    Args:
        clip: What is where.
        object_ids: Ids of its objects, row by row.
        named: Object and frame of each mask in the text, in its order; frames are places, see `ClipLayout.place`.
        memories: What the conversation remembers, in the order of the text.
        referred: Object and frame of each point or box in the text, in its order; not together with memories.
        absent: By answer, in the order of the text, whether it says that there is no such object.

    Raises:
        ValueError: Memories and references are given.
    """
    if memories and referred:
        raise ValueError(f"{len(memories)} memories and {len(referred)} references are given: give one of them")
    sight, words = replace(clip.sight, absent=tuple(absent)), clip.words
    if words is None:
        return sight
    if memories:
        sight = replace(sight, held=_hold(memories, object_ids, words, clip.places))
    if referred:
        sight = replace(sight, held=_refer(referred, object_ids, clip))
    if not named:
        return sight
    chosen = [object_ids.index(object_id) for object_id, _ in named]
    covers = clip.covers[chosen]
    anchored = torch.zeros_like(covers)
    places = torch.arange(len(chosen)), torch.tensor([frame // FRAMES_PER_PAIR for _, frame in named])
    anchored[places] = covers[places]
    return replace(sight, covers=covers.flatten(1), anchored=anchored.flatten(1), named=words[chosen])


def _hold(memories: Sequence[MemoryInjection], object_ids: Sequence[int], words: Tensor, places: Tensor) -> Held:
    """Lay out what stands behind each `<|mem|>`: object by object, one per pair that its mask touches."""
    covers, looks, seen = [], [], []
    for memory in memories:
        for place, object_id in enumerate(memory.object_ids):
            row = object_ids.index(object_id)
            for pair in memory.refer_mask[:, place].flatten(1).any(dim=1).nonzero()[:, 0].tolist():
                cover = torch.zeros(memory.refer_mask[:, place].shape)
                cover[pair] = memory.refer_mask[pair, place].float()
                covers.append(cover.flatten())
                looks.append(words[row])
                seen.append(places[row, pair])
    return Held(torch.stack(covers), torch.stack(looks), torch.stack(seen))


def _refer(referred: Sequence[tuple[int, int]], object_ids: Sequence[int], clip: ClipSight) -> Held:
    """Lay out what stands behind each `<|ref|>`: the object on the pair that holds the prompted frame."""
    rows = [object_ids.index(object_id) for object_id, _ in referred]
    pairs = [frame // FRAMES_PER_PAIR for _, frame in referred]
    covers = torch.zeros(len(rows), *clip.covers.shape[1:])
    covers[torch.arange(len(rows)), pairs] = clip.covers[rows, pairs]
    words = clip.words if clip.words is not None else torch.zeros(len(clip.covers), len(_WORDS), dtype=torch.long)
    return Held(covers.flatten(1), words[rows], clip.places[rows, pairs])


def _places_of(masks: Tensor) -> Tensor:
    """Places (O, t, P) of objects (O, t, H, W) themselves: NaN for a cell's own, and where an object is not seen."""
    courses = torch.from_numpy(_courses(masks.numpy()))
    num_objects, t = courses.shape[:2]
    own = torch.full((num_objects, t, 2), float("nan"))
    return torch.cat([own, courses, _axis(t)[None, :, None].expand(num_objects, t, 1)], dim=-1)


def _axis(count: int) -> Tensor:
    return torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1)


def look_numbers(sample: Sample) -> Tensor | None:
    """Numbers (O, A) of the words for each object's look; None where the sample has no scene."""
    if sample.scene is None:
        return None
    looks = [(obj.shape, obj.colour, obj.texture) for obj in sample.scene.objects]
    return torch.tensor([[row.index(word) + 1 for row, word in zip(_WORDS, look, strict=True)] for look in looks])


def see(masks: Tensor, words: Tensor | None, *, grid: tuple[int, int]) -> Sight:
    """Describe what is where.

    Args:
        masks: (O, t, H, W) visible parts as shares in [0, 1].
        words: (O, A) numbers of their looks; None where they have no names.
        grid: Rows and columns of cells.
    """
    (t, *_), (rows, columns) = masks.shape[1:], grid
    cover = nn.functional.adaptive_avg_pool2d(masks, grid)  # (O, t, rows, columns)
    most, owner = cover.max(dim=0)
    is_object = (most >= _LEAST_COVER)[..., None]
    nothing = torch.empty(t * rows * columns, 0)
    named = words[owner] if words is not None else torch.full((t, rows, columns, len(_WORDS)), -1)
    looks = torch.where(is_object, named, torch.where(most > 0, -1, 0)[..., None])
    places = _places_of(masks)[owner, torch.arange(t)[:, None, None]]
    places = torch.where(is_object, places, float("nan"))
    time, row, column = torch.meshgrid(_axis(t), _axis(rows), _axis(columns), indexing="ij")
    # A cell of the background has a place too.
    places[..., 0], places[..., 1], places[..., -1] = column, row, time
    count = t * rows * columns
    none, no_words = torch.empty(0, count), torch.empty(0, len(_WORDS), dtype=torch.long)
    return Sight(looks.flatten(0, 2), places.flatten(0, 2), none, none, no_words, Held.nothing(count), nothing)


def _outlines(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Outlines (N, 84) of what is in each cell of objects' masks (O, t, H, W), see `Sight`."""
    (num_objects, t), (rows, columns) = masks.shape[:2], grid
    most, owner = nn.functional.adaptive_avg_pool2d(masks, grid).max(dim=0)
    time = torch.arange(t)[:, None, None]
    parts = nn.functional.adaptive_avg_pool2d(masks, (rows * _CELL_PARTS, columns * _CELL_PARTS))
    parts = parts.view(num_objects, t, rows, _CELL_PARTS, columns, _CELL_PARTS).transpose(3, 4).flatten(4)
    inside = parts[owner, time, torch.arange(rows)[None, :, None], torch.arange(columns)[None, None]]
    places = _places_of(masks)[owner, time]
    axes = torch.meshgrid(_axis(rows), _axis(columns), indexing="ij")
    cells = torch.stack([axes[1] * (1 - 1 / columns), axes[0] * (1 - 1 / rows)], dim=-1)
    silhouettes = torch.zeros(num_objects, t, _OUTLINE_PARTS**2)
    for row in range(num_objects):
        for pair in range(t):
            ys, xs = masks[row, pair].nonzero(as_tuple=True)
            if len(ys):
                box = masks[row, pair, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
                silhouettes[row, pair] = nn.functional.adaptive_avg_pool2d(box[None], _OUTLINE_PARTS).flatten()
    way = (places[..., 2:4] - cells) / 2
    outlines = torch.cat([way, places[..., 4:6], inside, silhouettes[owner, time]], dim=-1)
    return torch.where((most >= _LEAST_COVER)[..., None], outlines, float("nan")).flatten(0, 2)


def _paired(masks: np.ndarray, num_pairs: int) -> Tensor:
    """Visible parts (O, F, H, W) as shares over pairs of frames, (O, t, H, W).

    Each frame fills a pair alone where there are as many; otherwise two share one, and the last fills up the last.
    """
    count = num_pairs * FRAMES_PER_PAIR
    is_still = masks.shape[1] == num_pairs
    chosen = np.arange(count) // FRAMES_PER_PAIR if is_still else np.minimum(np.arange(count), masks.shape[1] - 1)
    pairs = torch.from_numpy(masks[:, chosen]).float().unflatten(1, (num_pairs, FRAMES_PER_PAIR))
    return pairs.mean(dim=2)


def _courses(masks: np.ndarray) -> np.ndarray:
    """Middle, extent and ways (O, t, 8) of objects (O, t, H, W); NaN where an object is out of sight."""
    num_objects, t, height, width = masks.shape
    courses = np.full((num_objects, t, 8), np.nan, np.float32)
    for row in range(num_objects):
        first = last = None
        for pair in range(t):
            # Pixels of each column and of each row.
            counts = [np.count_nonzero(masks[row, pair], axis=axis) for axis in (0, 1)]
            if not counts[0].any():
                continue
            seen = [np.flatnonzero(own) for own in counts]
            sides = (width, height)
            middle = np.array([
                own @ np.arange(side) / own.sum() * 2 / side - 1 for own, side in zip(counts, sides, strict=True)
            ])  # fmt: skip
            extent = [(own[-1] - own[0]) / side for own, side in zip(seen, sides, strict=True)]
            first = middle if first is None else first
            last = middle if last is None else last
            courses[row, pair] = [*middle, *extent, *(middle - first), *(middle - last)]
            last = middle
    return courses


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
            nn.Linear(hidden, _NUM_WAYS + _NUM_PARTS),
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
        ways, parts = self.layers(states[is_object]).split([_NUM_WAYS, _NUM_PARTS], dim=-1)
        way = (ways - wanted[:, :_NUM_WAYS]).abs().mean()
        part = nn.functional.binary_cross_entropy_with_logits(parts, wanted[:, _NUM_WAYS:])
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
