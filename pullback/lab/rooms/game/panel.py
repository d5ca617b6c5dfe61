"""What the few-shot game says beside the query: the answer, the round, the score."""

import numpy as np

from pullback.lab import theme
from pullback.lab.rooms.game.mathematics import Answer, Round

NAMES = "ABCDE"
ROUNDS = 10


def panel(
    answer: Answer | None,
    now: Round | None,
    guess: int | None,
    score: list[int],
    in_rounds: bool,
    missing: list[str],
    thinking: bool,
) -> str:
    """What stands beside the query, as HTML: the answer, and who leads.

    Args:
        answer: of the machine; None until it has one.
        now: the round, while there is one.
        guess: of the person, in a round.
        score: right answers of the person and of the machine, and rounds played.
        in_rounds: whether rounds are being played.
        missing: the classes without a picture.
        thinking: whether the machine is at work.

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
        parts.append(_bars(answer, now))
        if now is not None and guess is not None:
            parts.append(_verdict(now.label, guess, int(np.argmax(answer.probabilities))))
            if score[2] >= ROUNDS:
                parts.append(f"<p><b>{_ending(score)}</b></p>")
    elif thinking:
        parts.append("<p>Thinking … the first answer takes longer, to compile.</p>")
    elif missing:
        parts.append(f"<p>Still to draw: {', '.join(missing)}; then the one to be named.</p>")
    else:
        parts.append("<p>Now draw one of the five again, in the square on its own.</p>")
    return "".join(parts)


def _bars(answer: Answer, now: Round | None) -> str:
    known = np.isfinite(answer.residual)
    residual = f"{answer.residual:.1e}" if known else "unknown"
    rows = []
    for place, share in enumerate(answer.probabilities):
        right = now is not None and place == now.label
        colour = theme.BLUE if share == answer.probabilities.max() else theme.GREY
        bar = (
            f'<div style="background:{colour};height:0.8rem;border-radius:2px;'
            f'width:{max(0.5, 100 * share):.1f}%"></div>'
        )
        mark = ' <span class="good">✓</span>' if right else ""
        rows.append(
            f"<tr><th>{NAMES[place]}{mark}</th><td style='width:70%'>{bar}</td>"
            f"<td>{100 * share:.0f} %</td></tr>"
        )
    return (
        f"<table><caption>The machine says</caption><tbody>{''.join(rows)}</tbody></table>"
        f'<p class="soft" style="margin-top:0.5rem">Adapted and answered in '
        f"{1000 * answer.seconds:.0f} ms; relative residual {residual}.</p>"
    )


def _verdict(label: int, guess: int, machine: int) -> str:
    def who(name: str, said: int) -> str:
        tone, word = ("good", "right") if said == label else ("bad", "wrong")
        return f'{name} said {NAMES[said]}, <span class="{tone}">{word}</span>'

    return f"<p>{who('You', guess)}; {who('the machine', machine)}.</p>"


def _ending(score: list[int]) -> str:
    if score[0] == score[1]:
        return "A draw."
    return "You win." if score[0] > score[1] else "The machine wins."
