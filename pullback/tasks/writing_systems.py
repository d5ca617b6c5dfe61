"""The characters of the glyphs data set, fixed once and for all.

They were chosen from the Unicode blocks of these scripts as far as a DejaVu font draws them:
letters, digits and symbols that are no accented form of another and no solid blot, at most a
hundred of each script, taken in the order below. A character was passed over if it looks like
one already taken in any script: if their renders in DejaVu Sans, fitted to the same size,
slightly blurred and moved by up to a pixel of 24, correlate by 0.915 or more.
The list is written out because such a comparison depends on the version of the font
renderer, and a stored split must find its classes again under every version.
"""

_CODES = {
    "Digits": ("0030-0039"),
    "Latin": (
        "0041-004E 0050-005A 0061-0062 0064-0066 0068 006B 006D-0072 0074 0079 00C6 "
        "00D7-00D8 00DE-00DF 00E6 00F0 00F7 00FE 014A 0152-0153 0181 0184 0186-0188 "
        "018A-018B 018E-018F 0191-0196 019B-019D 01A2-01A4 01A6-01A7 01A9-01AB 01B1-01B4 "
        "01B7-01B8 01BA 01BE 01C1-01C2 01E5 01F6-01F7 021C 0221-0225 0234-0235 0238"
    ),
    "Greek": (
        "0370 0372-0373 0376 037C 0393-0394 039E 03A6 03A8-03A9 03B1-03B2 03B6 03BA "
        "03BC-03BE 03C0 03C2 03C4 03C6-03C9 03CF 03D7-03DA 03DD-03E1 03F6 03FA-03FC"
    ),
    "Cyrillic": (
        "0402 0409-040B 040F 0414 0416 041B 0427 0429-042B 042E-042F 0444 0446 044A 0452 "
        "045B 0463-0464 0466 0468 046A 046C 046E 0470 0478 047A 047C 047E 0480 0482 048A "
        "0490 0494 0498 049B 04A0 04A2 04A4 04A6 04A8 04AA 04AC 04B3-04B6 04B9-04BA 04BC "
        "04BE 04C3 04C5 04C7 04CB 04CD 04F6 04FA 04FC 04FF 0501-0506 0508-0509 050E-050F "
        "0514 0516-0519 0520 0523-0524"
    ),
    "Armenian": (
        "0531-053B 053D-0541 0543 0545-0547 0549-054C 054E 0550 0552 0554 0556 0567-0569 "
        "056B 056D 0571 0573-0574 0576 0579 057B-057C 057F 0583 0586"
    ),
    "Georgian": (
        "10A1-10AC 10AF-10B2 10B4-10B6 10B8 10BC-10BF 10C1-10C5 10D1 10D3-10DC 10DE-10E7 "
        "10EA 10ED 10EF 10F1-10F2 10F4-10F5 10F7-10F9"
    ),
    "Hebrew": ("05D0-05D4 05D6 05D8-05DA 05DC 05DE 05E4-05E9"),
    "Arabic": (
        "0621 0628-062A 062C 062E-0633 0635 0637 0639-063A 0641-0649 0661-0667 0669 066F "
        "0679 0681 0688-0689 068B 068F 0691-0693 0695 069C 069E 06A0 06A2 06A8-06AA "
        "06AD-06AF 06B2 06B4-06B6 06B8-06B9 06BB 06BE 06C6 06C8 06CE 06D0 06F4 06F6"
    ),
    "N'Ko": ("07C2-07C4 07C6-07C7 07C9 07CC-07D2 07D4-07DA 07DC-07DF 07E2-07E5"),
    "Lao": (
        "0E81-0E82 0E84 0E87-0E88 0E8A 0E8D 0E94-0E97 0E99-0E9E 0EA1 0EA3 0EA5 0EA7 "
        "0EAA-0EAB 0EAE-0EB0 0EB2 0EBD 0EC1-0EC4 0ED1-0ED4 0ED6-0ED9"
    ),
    "Canadian syllabics": (
        "1402 1404-1406 140A-140B 1412-1415 1417-1418 141A 141F-1422 1425-1429 142B-142C "
        "142E 1432-1434 1438-1439 1441 1443-1445 1447 144D 144F 1451 1456-145E 1460-1462 "
        "1464-1465 1469 146B-146C 146E-1470 1473-1474 1476-1478 147A-147B 147D-1480 1482 "
        "1485 148A 148C 1490 1492-1496 1498-149A 149C-149D 149F-14A0 14A9 14AC 14AE-14B3 "
        "14B6-14BA 14BC"
    ),
    "Ogham": ("1682-168F 1691-1693 1695-1698 169A"),
    "Tifinagh": (
        "2D30-2D31 2D33-2D34 2D3B-2D44 2D46-2D48 2D4B-2D4C 2D50 2D52-2D53 2D55-2D58 2D5B "
        "2D5E 2D62-2D64"
    ),
    "Coptic": ("03E2 03E6-03E8 03EC"),
    "Old Italic": ("10302-10305 1030A-1030E 10310 10314-10316 10319-1031B 1031D"),
    "Braille": (
        "2803 2805 2807 2809-280F 2811 2813 2815 2817 2819-281F 2821 2823 2825 2827 "
        "2829-282F 2831 2833 2835 2837 2839-283F"
    ),
    "Mathematics": (
        "2201-2202 2205 2208 220A-220B 220D 2210 2212-2217 221A-221B 221D-2221 222E "
        "2234-2235 2237-223A 223C-2240 2242 2245 224B 224D-2254 2257 225A-225B 225D 225F "
        "2261 2263-2267 226A-226B 2276-2277 227A-227F 2282-2283 2286-2287 228B 228F "
        "2291-2293 2297 229A 22A0 22A2-22A3 22A5 22A7-22AB 22B0-22B1 22B4-22B6 22B8-22B9 "
        "22BB-22BC 22BE-22BF 22C4 22C6-22C8"
    ),
}


def _expand(codes: str) -> tuple[int, ...]:
    spans = (span.partition("-") for span in codes.split())
    return tuple(
        code
        for first, _, last in spans
        for code in range(int(first, 16), int(last or first, 16) + 1)
    )


SCRIPTS: dict[str, tuple[int, ...]] = {name: _expand(codes) for name, codes in _CODES.items()}
