"""Writes docs/settings.md from the schema of settings: python docs/generate_settings.py."""

from pathlib import Path

from pullback.cli.settings import PANELS, default_text
from pullback.runs.config import SETTINGS, CompareConfig
from pullback.runs.fields import Setting, settings_of

HEAD = (
    "# Settings\n\n"
    "Written by `python docs/generate_settings.py` from the schema in `pullback/runs/config.py`. "
    "A run's `config.toml` holds every setting that the run has a use for, in the sections below; "
    "`pullback train` and `pullback compare` have an option for each. A setting that applies to "
    "nothing in a run is an error, not passed over.\n\n"
    "A run that goes on (`--resume`) may change only what is marked *resumable*.\n"
)


def row(name: str, described: Setting) -> str:
    """A line of the table."""
    flag = (described.flag or name).replace("_", "-")
    text = described.help
    if described.former:
        text += f" Formerly `{described.former}`, which is still read."
    if described.resumable:
        text += " *Resumable.*"
    cells = (
        f"`{name}`",
        f"`--{flag}`",
        described.kind.allowed,
        default_text(name, described) or "–",
        described.applies.text,
        text,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def document() -> str:
    """The whole page."""
    sections = {section: (PANELS[section], settings) for section, settings in SETTINGS.items()}
    sections["compare"] = ("Comparison", settings_of(CompareConfig))
    lines = [HEAD]
    for section, (title, settings) in sections.items():
        lines += [f"## {title}: `[{section}]`", ""]
        lines += ["| setting | option | allowed | default | applies to | what it is |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        lines += [row(name, described) for name, described in settings.items()]
        lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    (Path(__file__).parent / "settings.md").write_text(document(), encoding="utf-8")
