"""Few-shot game: one example of each class, and then who names the next one?"""

import secrets
from functools import partial
from html import escape
from typing import Any, NamedTuple

import numpy as np
import panel as pn
from jaxtyping import UInt8

from pullback.lab import common
from pullback.lab.background import run_in_background
from pullback.lab.common import failure
from pullback.lab.drawing_pad import DrawingPad, png_data_url
from pullback.lab.room import Room
from pullback.lab.rooms.game import mathematics
from pullback.lab.rooms.game.answer_panel import NAMES, ROUNDS, answer_panel
from pullback.lab.rooms.game.mathematics import CLASSES, Answer, Player, Round
from pullback.lab.run_summaries import RunSummary, read_runs
from pullback.lab.session import Session
from pullback.runs import pretrained

SMALL = "a small model, trained here"
BLANK = np.zeros((28, 28), np.uint8)

LEAD = r"""
Five characters that the network has never seen, **one example of each**. It adapts to the five,
$\phi^* = \mathrm{argmin}_\phi\, L(\phi, \text{support}) + \tfrac{\lambda}{2}\|\phi - \theta\|^2$,
and then names the class of a sixth picture. Draw all six yourself with mouse or finger, or have the
five picked for you; or play ten rounds against it.
"""

NOTES = r"""
$\theta$ is all it brings along: from it a few steps on five pictures are enough to tell five new
classes apart. What it sees is the small picture in the corner: your drawing centred, and brought to
the size and the thickness of stroke of the data it was trained on.
"""

CODE = """
import jax
import pullback as pb

found = pb.load_pretrained("omniglot-5w1s", ways=5)  # or the folder of a run of five ways
glyphs = pb.tasks.load_glyphs()
task = pb.tasks.episodes(glyphs, ways=5, shots=1, queries=1).sample(jax.random.key(1))
phi, report = jax.jit(found.algorithm.adapt)(found.theta, task.support, jax.random.key(0))
probabilities = jax.nn.softmax(found.model.apply(phi, task.query[0]))
"""


class Question(NamedTuple):
    """What a player is asked."""

    player: Player
    support: UInt8[np.ndarray, "classes 28 28"]
    query: UInt8[np.ndarray, "28 28"]


def compute(question: Question) -> tuple[Question, Answer]:
    """The player's answer."""
    return question, mathematics.answer(*question)


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.session = session
        self.player: Player | None = None
        self.runs: dict[str, RunSummary] = {}
        self.seed = (secrets.randbits(32), 0)
        self.round: Round | None = None
        self.question: Question | None = None
        self.answer: Answer | None = None
        self.guess: int | None = None
        self.score = [0, 0, 0]
        self.choice = pn.widgets.Select(label="Who plays", options=[SMALL], visible=False)
        fit = {"sizing_mode": "fixed", "height": 34}
        self.pick = pn.widgets.Button(label="Pick five for me", width=150, **fit)
        self.clear = pn.widgets.Button(label="Clear all", width=100, **fit)
        self.play = pn.widgets.Button(label="Ten rounds against it", width=180, **fit)
        self.status, self.answer_text = common.html(), common.html()
        self.pads = [DrawingPad(label=name) for name in NAMES]
        self.query = DrawingPad(label="Which one is this?")
        self.images = [BLANK] * (CLASSES + 1)
        self.buttons = [pn.widgets.Button(label=f"It is {n}", visible=False) for n in NAMES]
        self._load_run = session.updater(mathematics.load_run, self._ready, self._no_player)
        self._load_shipped = session.updater(mathematics.load_shipped, self._ready, self._no_player)
        self._update_answer = session.updater(compute, self._answered, self._no_answer)
        self._update_round = session.updater(mathematics.draw_round, self._drawn, self._no_answer)
        self._watch()
        self.view = pn.Column(
            self.choice,
            self.status,
            pn.FlexBox(self.pick, self.clear, self.play, sizing_mode="stretch_width", margin=0),
            self._layout(),
            sizing_mode="stretch_width",
            margin=0,
        )
        self._begin()

    def _layout(self) -> Any:
        # Five in a row, or three where there is no room for five.
        styles = {"flex": "0 1 calc(20% - 10px)", "min-width": "min(104px, 31%)"}
        support = pn.FlexBox(
            *(
                pn.Column(pad, button, styles=styles, margin=0)
                for pad, button in zip(self.pads, self.buttons, strict=True)
            ),
            gap="10px",
            sizing_mode="stretch_width",
            margin=(4, 10),
        )
        query = pn.Column(self.query, styles={"flex": "0 1 220px"}, width=220, margin=(4, 10))
        styles = {"flex": "1 1 260px", "min-width": "0"}
        answer = pn.Column(self.answer_text, styles=styles, margin=0)
        below = pn.FlexBox(query, answer, gap="20px", sizing_mode="stretch_width", margin=0)
        return pn.Column(support, below, sizing_mode="stretch_width", margin=0)

    def _watch(self) -> None:
        for place, pad in enumerate([*self.pads, self.query]):
            pad.param.watch(partial(self._stroked, place), ["strokes", "cleared"])
        for label, button in enumerate(self.buttons):
            button.on_click(partial(self._guessed, label))
        self.pick.on_click(lambda _: self._pick_examples())
        self.clear.on_click(lambda _: self._clear())
        self.play.on_click(lambda _: self._next_round())
        self.choice.param.watch(lambda event: self._chosen(event.new), "value")

    # Who plays.

    def _begin(self) -> None:
        self._show_status("Looking for who plays …")
        if self.session.run is None:
            self._offer()
        else:
            find_runs = self.session.updater(read_runs, self._found, self._not_found)
            find_runs(self.session.run)

    def _found(self, runs: tuple[RunSummary, ...]) -> None:
        self.runs = {run.name: run for run in mathematics.playable(runs)}
        self._offer()

    def _not_found(self, error: Exception) -> None:
        self._offer()

    def _offer(self) -> None:
        """Runs first, then what comes with the package, and a small model in any case."""
        options = [*self.runs, *(n for n in pretrained.names() if n not in self.runs), SMALL]
        unchanged = self.choice.value == options[0]
        self.choice.param.update(options=options, value=options[0], visible=len(options) > 1)
        if unchanged:
            self._chosen(options[0])

    def _chosen(self, name: str) -> None:
        self.player = None
        if name in self.runs:
            self._show_status(f"Reading {escape(name)} …")
            self._load_run(self.runs[name])
        elif name in pretrained.names():
            self._load_shipped(name)
        else:
            self._train()

    def _train(self) -> None:
        config = mathematics.small_config()
        if self.session.document is None:
            self._show_status("A small model is trained on the live page.")
            return
        self._show_status("A small model waits for its training.")
        run_in_background(
            self.session,
            lambda progress: mathematics.train_small(progress, config),
            on_progress=partial(self._progressed, config.training.steps),
            on_done=self._ready,
            on_error=self._no_player,
        )

    def _progressed(self, steps: int, step: int, seconds: float) -> None:
        what = f"meta-step {step} of {steps}" if step else "compiling"
        self._show_status(f"A small model is being trained on glyphs: {what}, {seconds:.0f} s.")

    def _ready(self, player: Player) -> None:
        self.player = player
        for place, pad in enumerate(self.pads):
            pad.visible = place < player.classes
        self._clear()
        facts = player.facts
        if "accuracy" in facts:
            when = "just now" if facts["fresh"] else "earlier"
            self._show_status(
                f"A small model plays, trained on this machine {when}: {facts['steps']} meta-steps "
                f"and a test in {facts['seconds']:.0f} s; {100 * facts['accuracy']:.0f} ± "
                f"{100 * facts['interval']:.0f} % right on classes it has not seen."
            )
        elif "about" in facts:
            self._show_status(
                f"{escape(player.title)} plays, which comes with pullback. {escape(facts['about'])}"
            )
        else:
            data = player.config.data
            self._show_status(
                f"{escape(player.title)} plays, from meta-step {facts['step']}: "
                f"{player.config.algorithm.name} on {data.dataset}, {data.ways} ways."
            )
        self._pick_examples()

    def _no_player(self, error: Exception) -> None:
        self.status.object = failure("It cannot play.", str(error))

    def _show_status(self, text: str) -> None:
        self.status.object = f'<p class="soft">{text}</p>'

    # Pictures.

    def _set_image(
        self, place: int, image: UInt8[np.ndarray, "28 28"], strokes: Any = None
    ) -> None:
        pad = [*self.pads, self.query][place]
        self.images[place] = image
        picture = png_data_url(image) if image.any() else ""
        if strokes is None:
            pad.param.update(strokes=[], picture=picture)
        else:
            pad.picture = picture

    def _stroked(self, place: int, *events: Any) -> None:
        pad = [*self.pads, self.query][place]
        # Strokes that Python set are none of the visitor's, and leave the picture as it is.
        cleared = any(event.name == "cleared" for event in events)
        if self.round is not None or not (pad.strokes or cleared):
            return
        width = self.player.stroke_width if self.player else 2.5
        image = mathematics.rasterise(pad.strokes, width)
        self._set_image(place, image, pad.strokes)
        self._ask()

    def _clear(self) -> None:
        self._leave_rounds()
        for place in range(CLASSES + 1):
            self._set_image(place, BLANK)
        self._ask()

    def _pick_examples(self) -> None:
        if self.player is not None:
            self._leave_rounds()
            self._draw_round()

    def _leave_rounds(self) -> None:
        self.round, self.guess, self.score = None, None, [0, 0, 0]
        self.in_rounds = False
        self.play.label = "Ten rounds against it"
        for pad in (*self.pads, self.query):
            pad.fixed = False
        for button in self.buttons:
            button.visible = False

    def _draw_round(self) -> None:
        assert self.player is not None
        self.seed = (self.seed[0], self.seed[1] + 1)
        self._update_round(self.player.images, self.player.classes, self.seed)

    def _drawn(self, found: Round) -> None:
        self.answer = self.question = self.guess = None
        for place, image in enumerate(found.support):
            self._set_image(place, image)
        self._set_image(CLASSES, found.query if self.in_rounds else BLANK)
        self.round = found if self.in_rounds else None
        for pad in (*self.pads, self.query):
            pad.fixed = self.in_rounds
        for place, button in enumerate(self.buttons):
            button.visible = self.in_rounds and place < len(found.support)
            button.disabled = False
        self._ask()

    # The game.

    in_rounds = False

    def _next_round(self) -> None:
        if self.player is None:
            return
        if not self.in_rounds or self.score[2] >= ROUNDS:
            self._leave_rounds()
            self.in_rounds = True
        elif self.guess is None:
            return
        self.play.label = "Next round"
        self._draw_round()

    def _guessed(self, label: int, _: Any) -> None:
        if self.round is None or self.guess is not None:
            return
        self.guess = label
        for button in self.buttons:
            button.disabled = True
        self._count()

    def _count(self) -> None:
        """Add a round to the score once both have answered."""
        if self.round is None or self.guess is None or self.answer is None:
            self._show_answer()
            return
        self.score[0] += self.guess == self.round.label
        self.score[1] += int(np.argmax(self.answer.probabilities)) == self.round.label
        self.score[2] += 1
        self.play.label = "Play again" if self.score[2] >= ROUNDS else "Next round"
        self._show_answer()

    def _ask(self) -> None:
        self.answer = self.question = None
        if self.player is not None:
            support = np.stack(self.images[: self.player.classes])
            if support.any(axis=(1, 2)).all() and self.images[CLASSES].any():
                self.question = Question(self.player, support, self.images[CLASSES])
                self._update_answer(self.question)
        self._show_answer()

    def _answered(self, result: tuple[Question, Answer]) -> None:
        question, answer = result
        # The pictures may have changed in the meantime.
        if question is not self.question:
            return
        self.answer = answer
        self._count()

    def _no_answer(self, error: Exception) -> None:
        self.answer_text.object = failure("No answer.", str(error))

    def _show_answer(self) -> None:
        missing = [n for n, image in zip(NAMES, self._support(), strict=False) if not image.any()]
        self.answer_text.object = answer_panel(
            self.answer, self.round, self.guess, self.score, self.in_rounds, missing,
            self.question is not None,
        )  # fmt: skip

    def _support(self) -> list[UInt8[np.ndarray, "28 28"]]:
        return self.images[: self.player.classes if self.player else CLASSES]


ROOM = Room("game", "Few-shot game", LEAD, build, NOTES, CODE, height=560)
