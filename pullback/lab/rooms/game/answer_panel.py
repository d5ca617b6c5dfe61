"""The text beside the query of the few-shot game: the answer, the round, the score."""

import numpy as np

from pullback.lab import common
from pullback.lab.rooms.game.mathematics import Answer, Round

NAMES = "ABCDE"
ROUNDS = 10


def answer_panel(
    answer: Answer | None,
    current: Round | None,
    guess: int | None,
    score: list[int],
    in_rounds: bool,
    missing: list[str],
    computing: bool,
) -> str:
    """The text beside the query, as HTML.

    Args:
        answer: of the machine; None until it has one.
        current: the round, while one is played.
        guess: of the visitor, in a round.
        score: right answers of the visitor and of the machine, and rounds played.
        in_rounds: whether ten rounds are being played.
        missing: the classes without a picture.
        computing: whether the machine is computing its answer.

    Returns:
        The HTML.
    """
    parts = []
    if in_rounds:
        number = min(ROUNDS, score[2] + (guess is None or answer is None))
        parts.append(
            f"<p>Round {number} of {ROUNDS}. You <b>{score[0]}</b>, machine <b>{score[1]}</b>.</p>"
        )
    if in_rounds and guess is None:
        parts.append("<p>Which of the five is it? The machine has its answer sealed.</p>")
    elif answer is not None:
        parts.append(_bars(answer, current))
        if current is not None and guess is not None:
            parts.append(_result(current.label, guess, int(np.argmax(answer.probabilities))))
            if score[2] >= ROUNDS:
                parts.append(f"<p><b>{_ending(score)}</b></p>")
    elif computing:
        parts.append("<p>Thinking … the first answer takes longer, to compile.</p>")
    elif missing:
        parts.append(f"<p>Still to draw: {', '.join(missing)}; then the one to be named.</p>")
    else:
        parts.append("<p>Now draw one of the five again, in the square on its own.</p>")
    return "".join(parts)


def _bars(answer: Answer, current: Round | None) -> str:
    rows = []
    for place, share in enumerate(answer.probabilities):
        right = current is not None and place == current.label
        colour = common.BLUE if share == answer.probabilities.max() else common.GREY
        bar = (
            f'<div style="background:{colour};height:0.8rem;border-radius:2px;'
            f'width:{max(0.5, 100 * share):.1f}%"></div>'
        )
        mark = ' <span class="good">✓</span>' if right else ""
        rows.append(
            f"<tr><th>{NAMES[place]}{mark}</th><td style='width:70%'>{bar}</td>"
            f"<td>{100 * share:.0f} %</td></tr>"
        )
    residual = common.number(answer.residual, ".1e", "unknown")
    return (
        f"<table><caption>The machine says</caption><tbody>{''.join(rows)}</tbody></table>"
        f'<p class="soft" style="margin-top:0.5rem">Adapted and answered in '
        f"{1000 * answer.seconds:.0f} ms; relative residual {residual}.</p>"
    )


def _result(label: int, guess: int, machine: int) -> str:
    def judged(name: str, said: int) -> str:
        tone, word = ("good", "right") if said == label else ("bad", "wrong")
        return f'{name} said {NAMES[said]}, <span class="{tone}">{word}</span>'

    return f"<p>{judged('You', guess)}; {judged('the machine', machine)}.</p>"


def _ending(score: list[int]) -> str:
    if score[0] == score[1]:
        return "A draw."
    return "You win." if score[0] > score[1] else "The machine wins."
