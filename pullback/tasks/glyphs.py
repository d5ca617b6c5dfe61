"""Glyphs: characters of many scripts drawn from the fonts that come with Matplotlib.

A stand-in for Omniglot that needs no download: the same shape of data, twenty drawings of
each character, made from the DejaVu fonts with wobble, slant and changing strokes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from pullback.core.array_cache import fingerprint
from pullback.core.errors import DataError, check_seed
from pullback.tasks.cache import cached
from pullback.tasks.class_set import ClassSet
from pullback.tasks.images import SIDE
from pullback.tasks.writing_systems import SCRIPTS

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

EXAMPLES = 20
_FORMAT = 2

# Characters are drawn by the font at this height, then fitted into a field of _FIELD pixels
# with a margin that leaves room for rotation and wobble.
_FONT_SIZE = 64
_FIELD = 64
_INK = 44
_BLUR = 1.0
_ROTATION = np.deg2rad(12.0)
_SHEAR = 0.2
_STRETCH = 0.18
_SIZE = 0.12
_SHIFT = 0.09
_WOBBLE = 0.085
_KNOTS = 4
_LEVELS = (0.22, 0.5)
_STEEPNESS = 4.0


def load_glyphs(seed: int = 0, cache_dir: Path | str | None = None) -> ClassSet:
    """Hundreds of characters of many scripts, twenty different drawings of each.

    No download: the characters come from the DejaVu fonts inside Matplotlib. Characters
    that look like one already included (Latin A, Greek Α, Cyrillic А) are left out. The
    drawings differ in font face, rotation, slant, size, place, stroke width and wobble.

    Args:
        seed: seed of the drawings; the classes are the same for every seed.
        cache_dir: folder for the finished images; None for the user's cache folder.

    Returns:
        The classes, named script and code point as in ``"Greek/U+03B1"``; ``groups`` are the
        scripts, and there are no official parts.

    Raises:
        InputError: if the seed is no whole number from 0 below 2³².
        DataError: if Matplotlib was installed without its fonts.
    """
    check_seed(seed)
    import matplotlib
    import PIL

    key = fingerprint(_FORMAT, seed, matplotlib.__version__, PIL.__version__)
    return cached(cache_dir, "glyphs", key, lambda: _draw_all(seed))


def _draw_all(seed: int) -> ClassSet:
    fonts = _fonts()
    images, classes, groups = [], [], []
    for script, codes in SCRIPTS.items():
        for code in codes:
            rng = np.random.default_rng((seed, code))
            images.append(_drawings(_faces(fonts, code), rng))
            classes.append(f"{script}/U+{code:04X}")
            groups.append(script)
    return ClassSet.of("glyphs", images, classes, groups)


def _fonts() -> "list[tuple[frozenset[int], FreeTypeFont]]":
    """Each DejaVu face with the code points it covers."""
    import matplotlib
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [
        (
            frozenset(FT2Font(str(file)).get_charmap()),
            # Layout by another engine than the basic one depends on what is installed.
            ImageFont.truetype(str(file), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC),
        )
        for file in sorted(folder.glob("DejaVu*.ttf"))
    ]


def _faces(
    fonts: "list[tuple[frozenset[int], FreeTypeFont]]", code: int
) -> Float32[np.ndarray, "faces field field"]:
    """One character as every face that has it draws it."""
    renders = [_render(font, chr(code)) for covered, font in fonts if code in covered]
    faces = [render for render in renders if render is not None]
    if not faces:
        raise DataError(
            f"No DejaVu font inside Matplotlib draws U+{code:04X}",
            remedy="Install Matplotlib from PyPI, which brings the complete fonts",
        )
    return np.stack(faces)


def _render(font: "FreeTypeFont", character: str) -> Float32[np.ndarray, "field field"] | None:
    """One character as a font draws it, centred and fitted; None if there is no ink."""
    from PIL import Image, ImageDraw, ImageFilter

    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    if right <= left or bottom <= top:
        return None
    sheet = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(sheet).text((2 - left, 2 - top), character, font=font, fill=255)
    box = sheet.getbbox()
    if box is None:
        return None
    ink = sheet.crop(box)
    scale = _INK / max(ink.size)
    width, height = (max(1, round(length * scale)) for length in ink.size)
    field = Image.new("L", (_FIELD, _FIELD))
    field.paste(
        ink.resize((width, height), Image.Resampling.LANCZOS),
        ((_FIELD - width) // 2, (_FIELD - height) // 2),
    )
    blurred = field.filter(ImageFilter.GaussianBlur(_BLUR))
    return np.asarray(blurred, dtype=np.float32) / 255.0


def _drawings(
    faces: Float32[np.ndarray, "faces field field"], rng: np.random.Generator
) -> UInt8[np.ndarray, "examples 28 28"]:
    """Twenty drawings of one character, each with its own face, pose, wobble and stroke."""
    fine = 2 * SIDE
    line = (np.arange(fine, dtype=np.float32) + 0.5) / SIDE - 1.0
    turn = rng.uniform(-_ROTATION, _ROTATION, EXAMPLES)
    shear = rng.uniform(-_SHEAR, _SHEAR, EXAMPLES)
    size = 1.0 + rng.uniform(-_SIZE, _SIZE, EXAMPLES)
    stretch = 1.0 + rng.uniform(-_STRETCH, _STRETCH, EXAMPLES)
    shift = rng.uniform(-_SHIFT, _SHIFT, (2, EXAMPLES, 1, 1))
    wobble = rng.normal(0.0, _WOBBLE, (2, EXAMPLES, _KNOTS, _KNOTS))
    level = rng.uniform(*_LEVELS, (EXAMPLES, 1, 1))
    # Whole rounds through the faces before one comes again.
    rounds = [rng.permutation(len(faces)) for _ in range(-(-EXAMPLES // len(faces)))]
    face = np.concatenate(rounds)[:EXAMPLES, None, None]

    basis = _spline_basis(line)
    bent = np.einsum("ip,ctpq,jq->ctij", basis, wobble.astype(np.float32), basis)
    down, right = np.meshgrid(line, line, indexing="ij")
    y, x = down - shift[0] + bent[0], right - shift[1] + bent[1]
    cos, sin = (f(turn)[:, None, None] for f in (np.cos, np.sin))
    wide = (size * stretch)[:, None, None]
    high = (size / stretch)[:, None, None]
    u = (cos * x + sin * y + shear[:, None, None] * y) / wide
    v = (cos * y - sin * x) / high

    sampled = _sample(faces, face, v, u)
    ink = np.clip((sampled - level) * _STEEPNESS + 0.5, 0.0, 1.0)
    small = ink.reshape(EXAMPLES, SIDE, 2, SIDE, 2).mean(axis=(2, 4))
    return np.rint(small * 255.0).astype(np.uint8)


def _spline_basis(line: np.ndarray) -> Float32[np.ndarray, "fine knots"]:
    """Smooth weights of the wobble's knots along one side of the picture."""
    knots = np.linspace(-1.0, 1.0, _KNOTS)
    width = knots[1] - knots[0]
    weights = np.exp(-0.5 * ((line[:, None] - knots) / (0.6 * width)) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _sample(faces: np.ndarray, face: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Bilinear values of the chosen faces at places given in -1..1 from the middle."""
    last = _FIELD - 1
    row = np.clip((v + 1.0) * (_FIELD / 2) - 0.5, 0.0, last - 1e-3)
    column = np.clip((u + 1.0) * (_FIELD / 2) - 0.5, 0.0, last - 1e-3)
    top, left = row.astype(np.int64), column.astype(np.int64)
    row, column = row - top, column - left
    upper = faces[face, top, left] * (1 - column) + faces[face, top, left + 1] * column
    lower = faces[face, top + 1, left] * (1 - column) + faces[face, top + 1, left + 1] * column
    return upper * (1 - row) + lower * row
