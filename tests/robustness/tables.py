"""Tables that a program may be handed, and what its message must say.

A row has what stands in ``t.csv``, more words of the command line, and words of the message.
"""

GOOD = "id,x,y\n" + "".join(f"g{i % 7},{i},{2 * i + i % 3}\n" for i in range(21))
MANY = [f"{i}" for i in range(12)]


def changed(old, new, count=-1):
    return GOOD.replace(old, new, count)


def with_column(name, values):
    """The good table with one more column, its values in turn."""
    header, *lines = GOOD.splitlines()
    values = list(values)
    more = [f"{line},{values[i % len(values)]}" for i, line in enumerate(lines)]
    return "\n".join([f"{header},{name}", *more]) + "\n"


TABLES = {
    # The file
    "empty": ("", (), ["'t.csv' is empty"]),
    "blank lines": ("\n\n", (), ["'t.csv' is empty"]),
    "a header alone": ("id,x,y\n", (), ["'t.csv' has no rows"]),
    "semicolons": (changed(",", ";"), (), ["is one column, 'id;x;y'", "--separator ';'"]),
    "tabs": (changed(",", "\t"), (), ["--separator tab"]),
    "bars": (changed(",", "|"), (), ["--separator '|'"]),
    "commas where semicolons are said": (GOOD, ("--separator", ";"), ["--separator ,"]),
    "a separator of two": (GOOD, ("--separator", ";;"), ["--separator is ';;'", "one character"]),
    "decimal commas": (
        GOOD.replace(",", ";").replace(";3;", ";3,5;"),
        ("--separator", ";"),
        ["'x' holds numbers such as", "decimal comma", "--decimal ,"],
    ),
    "decimal points": (
        GOOD.replace(",", ";").replace(";3;", ";3.5;"),
        ("--separator", ";", "--decimal", ","),
        ["decimal point", "--decimal ."],
    ),
    "a decimal that separates": (GOOD, ("--decimal", ","), ["--decimal is ','"]),
    "a short line": (
        changed("g3,10,21", "g3,10"),
        (),
        ["Line 12", "has 2 columns", "first line 3"],
    ),
    "a long line": (changed("g3,10,21", "g3,10,21,5"), (), ["Line 12", "has 4 columns"]),
    "an open quote": (changed("g3,10", '"g3,10'), (), ["is no CSV", "unexpected end"]),
    "Latin-1": (
        changed("g3", "gö").encode("latin-1"),
        (),
        ["is no UTF-8", "Save it as CSV in UTF-8"],
    ),
    "UTF-16": (GOOD.encode("utf-16"), (), ["is no UTF-8"]),
    # Names
    "a name twice": (changed("id,x,y", "id,y,y"), (), ["more than one column 'y'"]),
    "no such target": (changed("y", "weight"), (), ["--target column", "'y'", "id, weight, x"]),
    "no such group": (changed("id", "ids"), (), ["'id'", "Did you mean 'ids'?"]),
    "no such column": (GOOD, ("--columns", "x,z"), ["--columns column", "'z'"]),
    "nothing to drop": (GOOD, ("--drop", "z"), ["--drop column", "'z'"]),
    "no such order": (GOOD, ("--order", "z"), ["--order column", "'z'"]),
    "no such category": (GOOD, ("--categories", "z"), ["--categories column 'z'"]),
    "both columns and drop": (GOOD, ("--columns", "x", "--drop", "x"), ["Both --columns and"]),
    "the target among columns": (GOOD, ("--columns", "x,y"), ["'y' is in --columns"]),
    "the group dropped": (GOOD, ("--drop", "id"), ["'id' is in --drop and is the group"]),
    "a column twice": (GOOD, ("--columns", "x,x"), ["--columns is 'x,x'", "each once"]),
    "no column left": (GOOD, ("--drop", "x"), ["No column is left"]),
    # Values
    "missing values": (
        changed("g3,10,21", "g3,,NA").replace("g4,", ",", 1),
        (),
        ["Of 21 rows", "'y' 1", "'id' 1", "'x' 1", "--missing drop"],
    ),
    "nothing but missing values": (
        with_column("z", [""]),
        ("--missing", "drop"),
        ["Each of the 21 rows", "'z' 21"],
    ),
    "an unknown policy": (GOOD, ("--missing", "skip"), ["'skip'", "drop, error"]),
    "an unknown method": (GOOD, ("--method", "lineer"), ["Did you mean 'linear'?"]),
    "a seed of 33 bits": (GOOD, ("--seed", "4294967296"), ["seed is 4294967296"]),
    "a target of texts": (changed("g3,10,21", "g3,10,high"), (), ["'y' holds numbers and 1 other"]),
    "a target of words": (
        "id,x,y\na,1,low\nb,2,high\n",
        (),
        ["The target 'y' holds texts", "'low'", "one number"],
    ),
    "a target of times": ("id,x,y\na,1,2031-01-01\nb,2,2031-02-01\n", (), ["'y' holds times"]),
    "an infinite target": (changed("g3,10,21", "g3,10,inf"), (), ["'y' has 1 infinite"]),
    "an infinite value": (changed("g3,10,", "g3,-inf,"), (), ["'x' has 1 infinite"]),
    "a target beyond squares": (
        changed("g3,10,21", "g3,10,21e300"),
        (),
        ["y has numbers up to 2.1e+301", "up to 1e+150"],
    ),
    "a value beyond squares": (
        changed("g3,10,", "g3,-1e200,"),
        (),
        ["The column 'x' has numbers up to 1e+200", "larger unit"],
    ),
    "a constant target": ("id,x,y\na,1,3\nb,2,3\n", (), ["'y' is 3 in each of 2 rows"]),
    "numbers and texts": (
        changed("g3,10,", "g3,unknown,"),
        (),
        ["'x' holds numbers and 1 other", "'unknown'"],
    ),
    "thousands": (
        with_column("z", [f'"{i},234.5"' for i in MANY]),
        (),
        ["'0,234.5'", "neither numbers"],
    ),
    "days first": (with_column("z", [f"{i}.12.2031" for i in MANY]), (), ["2031-12-24"]),
    "no day of the year": (
        with_column("z", ["2031-02-30"]),
        (),
        ["'2031-02-30', which is no time"],
    ),
    "texts all different": (
        "id,x,y,note\n" + "".join(f"g{i % 9},{i},{i},note {i}x\n" for i in range(101)),
        (),
        ["'note' has 101 different texts", "--drop note"],
    ),
    "an order of texts": (
        with_column("z", ["a", "b"]),
        ("--order", "z"),
        ["--order 'z' holds texts"],
    ),
    "no Parquet": (GOOD, ("t.parquet",), ["'t.parquet' is no Parquet"]),
}
