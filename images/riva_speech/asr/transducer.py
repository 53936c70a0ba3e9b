"""Greedy decoding of RNN-T and TDT models.

One graph holds prediction network and joint. For the tokens seen so far it scores a window of
encoder steps at once; the search jumps to the first step there that is not blank, so there is one
run a token and one a window of blanks, for a whole batch of utterances together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.ctc import Reading, TokenDecoder, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from riva_speech.asr.boosting import Booster, Walk
    from riva_speech.asr.options import Boost
    from riva_speech.asr.pipeline import TransducerConfig
    from riva_speech.sessions import Session
    from riva_speech.text.vocabulary import Vocabulary

    Encoded = NDArray[np.float32]
    Integers = NDArray[np.int64]

# Encoder steps that are scored at once. A token comes every three or four steps of speech.
_WINDOW = 8


@dataclass
class SearchState:
    """Where the searches of a batch of utterances stand.

    ``last`` is the last token of each, the blank before the first; ``hidden`` and ``cell`` are the
    states of the prediction network before it, [layers, batch, width]. ``position`` counts encoder
    steps from the first that has not been scored to its end; ``symbols`` the tokens given there.
    ``walks`` are through the graphs of boosted phrases, of those utterances that have any.
    """

    last: Integers
    hidden: NDArray[np.float32]
    cell: NDArray[np.float32]
    position: Integers
    symbols: Integers
    walks: list[Walk | None]

    @classmethod
    def joined(cls, states: Sequence[SearchState]) -> SearchState:
        """Return one state for the utterances of several; those of each stay as they are."""
        return cls(
            last=np.concatenate([state.last for state in states]),
            hidden=np.concatenate([state.hidden for state in states], axis=1),
            cell=np.concatenate([state.cell for state in states], axis=1),
            position=np.concatenate([state.position for state in states]),
            symbols=np.concatenate([state.symbols for state in states]),
            walks=[walk for state in states for walk in state.walks],
        )

    def parts(self) -> list[SearchState]:
        """Return a state for each utterance, which keeps nothing of the others alive."""
        return [
            SearchState(
                self.last[[index]],
                self.hidden[:, [index]],
                self.cell[:, [index]],
                self.position[[index]],
                self.symbols[[index]],
                [self.walks[index]],
            )
            for index in range(len(self.last))
        ]


class GreedySearch:
    """Takes the best token, and for TDT models the best duration, as NeMo's greedy decoding does.

    Safe to share: what belongs to utterances is in a ``SearchState``.
    """

    def __init__(self, decoder_joint: Session, config: TransducerConfig, blank: int) -> None:
        self._session = decoder_joint
        self._config = config
        self._blank = blank
        self._durations = np.array(config.durations or (1,), np.int64)
        # A blank that takes no time would be heard for ever: NeMo gives it one step.
        self._reach = max(1, int(self._durations.max()))

    def start(self, batch: int = 1) -> SearchState:
        """Return the state of utterances of which nothing has been heard."""
        layers, width = self._config.state_shape
        states = np.zeros((2, layers, batch, width), np.float32)
        return SearchState(
            last=np.full(batch, self._blank, np.int64),
            hidden=states[0],
            cell=states[1],
            position=np.zeros(batch, np.int64),
            symbols=np.zeros(batch, np.int64),
            walks=[None] * batch,
        )

    def advance(self, state: SearchState, encoded: Sequence[Encoded]) -> list[Tokens]:
        """Decode the next encoder steps of each utterance, [steps, width], and advance the state.

        The tokens' steps count from the beginning of what is given. A duration may reach past its
        end; the next call begins there.
        """
        lengths = np.array([len(steps) for steps in encoded], np.int64)
        padded = _pad(encoded, int(lengths.max(initial=0)) + _WINDOW)
        found: list[list[NDArray[Any]]] = []
        while (active := np.flatnonzero(state.position < lengths)).size:
            found.append(self._emit(state, active, padded, lengths))
        state.position -= lengths
        who, tokens = _collect(found)
        return [
            Tokens(tokens.ids[mine], tokens.steps[mine], tokens.probabilities[mine])
            for mine in (who == index for index in range(len(encoded)))
        ]

    def _emit(
        self, state: SearchState, active: Integers, padded: Encoded, lengths: Integers
    ) -> list[NDArray[Any]]:
        """Score one window of each active utterance; return who gave which token, where, how sure.

        Whoever gives none moves to the end of its window.
        """
        begins = state.position[active]
        scores, hidden, cell = self._score(state, active, padded)
        tokens = scores[..., : self._blank + 1]
        biased = _biased(tokens, [state.walks[one] for one in active])
        labels, skips = biased.argmax(axis=2), self._skips(scores)
        valid = np.minimum(lengths[active] - begins, _WINDOW)
        stops = self._first_token(labels, skips, valid)
        gives = stops < valid
        rows, at = np.flatnonzero(gives), stops[gives]
        state.position[active] = begins + stops
        state.symbols[active[stops > 0]] = 0
        who = active[gives]
        state.last[who] = labels[rows, at]
        for one in who:
            if walk := state.walks[one]:
                state.walks[one] = walk.onwards(int(state.last[one]))
        state.hidden[:, who], state.cell[:, who] = hidden[:, rows], cell[:, rows]
        where = state.position[who].copy()
        self._move_on(state, who, skips[rows, at])
        return [who, labels[rows, at], where, _posterior(tokens[rows, at], labels[rows, at])]

    def _score(
        self, state: SearchState, active: Integers, padded: Encoded
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph; return scores, [active, window, outputs], and the states that follow."""
        steps = state.position[active, np.newaxis] + np.arange(_WINDOW)
        outputs = self._session.run(
            {
                "encoder_outputs": padded[active[:, np.newaxis], steps].transpose(0, 2, 1),
                "targets": state.last[active, np.newaxis].astype(np.int32),
                "target_length": np.ones(len(active), np.int32),
                "input_states_1": state.hidden[:, active],
                "input_states_2": state.cell[:, active],
            }
        )
        scores: NDArray[np.float32] = outputs["outputs"][:, :, 0]
        return scores, outputs["output_states_1"], outputs["output_states_2"]

    def _skips(self, scores: NDArray[np.float32]) -> Integers:
        """Return how far each step of a window moves on: for TDT the best duration."""
        if not self._config.durations:
            return np.zeros(scores.shape[:2], np.int64)
        return self._durations[scores[..., self._blank + 1 :].argmax(axis=2)]

    def _first_token(self, labels: Integers, skips: Integers, valid: Integers) -> Integers:
        """Return where each window's walk over blanks stops: at a token, or past its end.

        Each step points at the one that follows if it is blank, else at itself. Following the
        pointers of pointers takes as many rounds as the window's length has binary digits.
        """
        here = np.arange(_WINDOW + self._reach)
        pointers = np.tile(here, (len(labels), 1))
        goes_on = (labels == self._blank) & (here[:_WINDOW] < valid[:, np.newaxis])
        pointers[:, :_WINDOW] += np.where(goes_on, np.maximum(skips, 1), 0)
        for _ in range(_WINDOW.bit_length()):
            pointers = np.take_along_axis(pointers, pointers, axis=1)
        stops: Integers = pointers[:, 0]
        return stops

    def _move_on(self, state: SearchState, who: Integers, skips: Integers) -> None:
        """Leave the step of a token where its duration says so, or the step has given enough."""
        state.symbols[who] += 1
        stuck = (skips == 0) & (state.symbols[who] >= self._config.max_symbols)
        moves = np.where(stuck, 1, skips)
        state.position[who] += moves
        state.symbols[who[moves > 0]] = 0


def _pad(encoded: Sequence[Encoded], steps: int) -> Encoded:
    width = encoded[0].shape[1]
    padded = np.zeros((len(encoded), steps, width), np.float32)
    for row, utterance in zip(padded, encoded, strict=True):
        row[: len(utterance)] = utterance
    return padded


def _biased(tokens: NDArray[np.float32], walks: Sequence[Walk | None]) -> NDArray[np.float32]:
    """Return scores, [active, window, tokens + 1], with what boosted phrases are granted next.

    A blank is granted nothing.
    """
    if not any(walks):
        return tokens
    biased = tokens.copy()
    for row, walk in zip(biased, walks, strict=True):
        if walk:
            row[:, :-1] += walk.biases
    return biased


def _posterior(scores: NDArray[np.float32], labels: Integers) -> NDArray[np.float32]:
    """Return the share of each row's label among all tokens."""
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    chosen: NDArray[np.float32] = exponents[np.arange(len(labels)), labels] / exponents.sum(axis=1)
    return chosen


def _collect(found: Sequence[Sequence[NDArray[Any]]]) -> tuple[NDArray[Any], Tokens]:
    """Join what the runs gave: for each token whose it is, and the tokens."""
    if not found:
        return np.zeros(0, np.int64), Tokens.none()
    who, labels, where, sure = map(np.concatenate, zip(*found, strict=True))
    return who, Tokens(labels, where, sure)


@dataclass(frozen=True)
class TransducerDecoding:
    """Greedy decoding of a transducer: the streams of a batch are searched together."""

    search: GreedySearch
    vocabulary: Vocabulary
    booster: Booster | None = None
    name: str = "nemo"

    def start(self, boosts: tuple[Boost, ...] = ()) -> TokenDecoder:
        """Return the decoder of a new stream."""
        walk = self.booster.walk(boosts) if boosts and self.booster else None
        if walk is None:
            return TokenDecoder(self.vocabulary)
        state = self.search.start()
        state.walks = [walk]
        return TokenDecoder(self.vocabulary, state)

    def read(
        self, carries: Sequence[SearchState | None], steps: Sequence[Encoded]
    ) -> list[Reading]:
        """Find the tokens of several streams; each carries the state of its search."""
        alone = [self.search.start() if carry is None else carry for carry in carries]
        together = SearchState.joined(alone)
        found = self.search.advance(together, steps)
        return [
            Reading(piece, _blanks(tokens, len(piece)), tokens, state)
            for piece, tokens, state in zip(steps, found, together.parts(), strict=True)
        ]


def _blanks(tokens: Tokens, steps: int) -> NDArray[np.bool_]:
    """Tell which of a stream's steps gave no token."""
    blanks = np.ones(steps, np.bool_)
    blanks[tokens.steps] = False
    return blanks
