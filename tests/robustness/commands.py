"""Command lines that cannot be meant, and what their message must say.

Each runs in an empty folder of its own.
"""

SINUSOID = ("train", "--dataset", "sinusoid")
LONG = "x" * 300
DIGITS = "9" * 20
SEEDS = ["whole numbers from 0 to 4294967295"]
FITS = ["parameters", "copies", "free", "--width", "--hidden"]
OUT = ["could not be written to", "Give another"]
TOO_LONG = "File name too long"
FIT = ["fit", "t.csv", "--target", "y", "--group", "id"]


def sinusoid(*words):
    return [*SINUSOID, *words]


COMMANDS = {
    # Names
    "unknown algorithm": (["train", "--algorithm", "imalm"], ["'imalm'", "Did you mean 'imaml'?"]),
    "unknown data set": (["train", "--dataset", "glyph"], ["'glyph'", "Did you mean 'glyphs'?"]),
    "unknown model": (["train", "--model", "conv"], ["'conv'", "Did you mean 'conv4'?"]),
    "unknown solver": (["train", "--solver", "lbgfs"], ["'lbgfs'", "Did you mean 'lbfgs'?"]),
    "unknown linear solver": (["train", "--linear-solver", "gcmres"], ["Did you mean 'gmres'?"]),
    "unknown activation": (["train", "--activation", "sillu"], ["Did you mean 'silu'?"]),
    "unknown normalisation": (["train", "--normalisation", "grp"], ["Did you mean 'group'?"]),
    "unknown policy": (["train", "--on-bad-verdict", "rise"], ["Did you mean 'raise'?"]),
    "unknown strategy": (["train", "--strategy", "vmp"], ["'vmp'", "vmap"]),
    "unknown form": (["train", "--learn-strength", "scaler"], ["Did you mean 'scalar'?"]),
    "unknown split": (["train", "--split-by", "alphabeth"], ["Did you mean 'alphabet'?"]),
    "unknown inner loop": (["compare", "--inner", "sam"], ["Did you mean 'same'?"]),
    "compared twice": (["compare", "--algorithms", "maml,maml"], ["at most once"]),
    "nothing compared": (["compare", "--algorithms", ","], ["The algorithms are none"]),
    "unknown part": (["study", "--part", "memorie"], ["Did you mean 'memory'?"]),
    "part twice": (["study", "--part", "noise", "--part", "noise"], ["once"]),
    "no subject": (["info", "algorithm"], ["'algorithm'", "algorithms"]),
    "no module": (["train", "--model", "nowhere:Net"], ["nowhere"]),
    # Seeds: JAX would take one beyond 32 bits for another.
    "seed of 33 bits": (sinusoid("--seed", "4294967296"), ["seed", "4294967296", *SEEDS]),
    "seed of 20 digits": (sinusoid("--seed", DIGITS), [DIGITS, *SEEDS]),
    "negative seed": (sinusoid("--seed", "-1"), ["-1", *SEEDS]),
    "split seed of 33 bits": (["train", "--split-seed", "4294967296"], ["split_seed", *SEEDS]),
    "compared by a seed of 20 digits": (["compare", "--seed", DIGITS], [DIGITS, *SEEDS]),
    "studied by a seed of 33 bits": (["study", "--seed", "4294967296"], SEEDS),
    "studied by a negative seed": (["study", "--seed", "-1"], SEEDS),
    # Numbers
    "steps of 64 bits": (sinusoid("--steps", DIGITS), ["steps", DIGITS, "whole numbers from 0"]),
    "steps of 32 bits": (sinusoid("--steps", "2147483648"), ["whole numbers from 0 to 2147483647"]),
    "no steps": (sinusoid("--steps", "0"), ["steps in [training] is 0"]),
    "half a step": (sinusoid("--steps", "0.5"), ["--steps", "Invalid value"]),
    "no tasks": (sinusoid("--tasks-per-step", "0"), ["tasks_per_step", "from 1"]),
    "one validation task": (sinusoid("--validation-tasks", "1"), ["whole numbers from 2"]),
    "one test task": (["compare", "--tasks", "1"], ["tasks", "whole numbers from 2"]),
    "one way": (["train", "--ways", "1"], ["ways in [data] is 1", "whole numbers from 2"]),
    "no shots": (["train", "--shots", "0"], ["shots in [data] is 0"]),
    "shots of 64 bits": (["train", "--shots", DIGITS], ["shots", DIGITS]),
    "rate nan": (sinusoid("--learning-rate", "nan"), ["learning_rate", "nan", "above 0"]),
    "rate infinite": (sinusoid("--learning-rate", "inf"), ["learning_rate", "inf"]),
    "rate zero": (sinusoid("--learning-rate", "0"), ["learning_rate", "above 0"]),
    "strength negative": (sinusoid("--strength", "-1"), ["strength", "-1", "from 0"]),
    "no strength": (sinusoid("--strength", "0"), ["imaml needs a proximal term"]),
    "tolerance one": (sinusoid("--linear-rtol", "1"), ["linear_rtol", "number < 1"]),
    "distorted thrice": (["train", "--distortion", "3"], ["distortion", "numbers from 0 to 2"]),
    "hidden zero": (sinusoid("--hidden", "0"), ["hidden", "whole numbers from 1"]),
    "hidden apart": (sinusoid("--hidden", "40;40"), ["whole numbers with commas"]),
    "no minutes": (sinusoid("--minutes", "0"), ["minutes is 0", "above 0"]),
    "minutes nan": (sinusoid("--minutes", "nan"), ["minutes is nan"]),
    "no device": (sinusoid("--devices", "0"), ["0 devices"]),
    "devices of 64 bits": (sinusoid("--devices", DIGITS), [DIGITS, "1 to 256"]),
    "port beyond": (["lab", "--no-browser", "--port", "65536"], ["port is 65536", "65535"]),
    "port negative": (["lab", "--no-browser", "--port", "-1"], ["port is -1"]),
    "no address": (["lab", "--no-browser", "--port", "0", "--host", "a b"], ["'a b'"]),
    # What does not go together
    "ways of curves": (sinusoid("--ways", "5"), ["'sinusoid' has no such setting"]),
    "pictures of curves": (sinusoid("--model", "conv4"), ["conv4", "--model mlp"]),
    "step size of L-BFGS": (["train", "--inner-learning-rate", "1"], ["'projected' has no such"]),
    "width of an MLP": (["train", "--model", "mlp", "--width", "8"], ["Leave width out"]),
    "groups": (["train", "--width", "12"], ["12 channels", "8 equal groups"]),
    "MAML through L-BFGS": (sinusoid("--algorithm", "maml", "--solver", "lbfgs"), ["MAML"]),
    "steps and minutes": (sinusoid("--steps", "5", "--minutes", "1"), ["Both --steps"]),
    "steps and seconds": (["compare", "--steps", "5", "--seconds-each", "1"], ["Both steps"]),
    "resumed elsewhere": (["train", "--resume", "x", "--out", "y"], ["--out was given with"]),
    "a coordinator alone": (sinusoid("--coordinator", "localhost:1"), ["--process-id"]),
    "official glyphs": (
        ["train", "--split-by", "official"],
        ["'glyphs' has no official parts", "a split by alphabet or by character"],
    ),
    # Too large to fit, which is known before anything is made
    "width 100000": (["train", "--width", "100000"], FITS),
    "width beyond all": (["train", "--width", "2147483640"], FITS),
    "hidden 200000": (sinusoid("--hidden", "200000,200000"), FITS),
    "compared at width 100000": (["compare", "--width", "100000"], FITS),
    # Folders to write to
    "out too long": (sinusoid("--out", LONG), [TOO_LONG, *OUT]),
    "out too deep": (sinusoid("--out", "/".join(["x" * 200] * 25)), [TOO_LONG, *OUT]),
    "out in /proc": (sinusoid("--out", "/proc/self/x"), ["'/proc/self/x'", *OUT]),
    "out under a device": (sinusoid("--out", "/dev/null/x"), ["Not a directory", *OUT]),
    "out a device": (sinusoid("--out", "/dev/null"), ["'/dev/null' is a file"]),
    "out taken": (sinusoid("--out", "/"), ["'/' is not empty", "--resume"]),
    "compare out too long": (["compare", "--out", LONG], [TOO_LONG, *OUT]),
    "compare out in /proc": (["compare", "--out", "/proc/self/x"], OUT),
    "compare out taken": (["compare", "--out", "/"], ["holds no comparison"]),
    "study out too long": (["study", "--out", LONG], [TOO_LONG, *OUT]),
    "study out in /proc": (["study", "--out", "/proc/self/x"], OUT),
    "study out under a device": (["study", "--out", "/dev/null/x"], OUT),
    "export too long": (["lab", "--export", LONG], [TOO_LONG, "with --export"]),
    "export under a device": (["lab", "--export", "/dev/null/x"], ["with --export"]),
    # Folders and files to read
    "run missing": (["evaluate", "nowhere"], ["Unknown run or pretrained initialisation"]),
    "run too long": (["evaluate", LONG], [TOO_LONG]),
    "run a device": (["evaluate", "/dev/null"], ["is not a folder"]),
    "info too long": (["info", LONG], [TOO_LONG]),
    "resume too long": (["train", "--resume", LONG], [TOO_LONG]),
    "lab run too long": (["lab", "--no-browser", "--run", LONG], [TOO_LONG]),
    "config missing": (["train", "--config", "nowhere.toml"], ["No such file"]),
    "config too long": (["train", "--config", LONG], [TOO_LONG]),
    "config a folder": (["train", "--config", "."], ["Is a directory"]),
    "compare config missing": (["compare", "--config", "nowhere.toml"], ["No such file"]),
    "table missing": (FIT, ["'t.csv' does not exist"]),
    "table too long": (["fit", LONG, *FIT[2:]], [TOO_LONG]),
    "table a folder": (["fit", ".", *FIT[2:]], ["is no file"]),
    "fit out taken": ([*FIT, "--out", "/"], ["'/' is not empty", "another one with --out"]),
    "fit out under a device": ([*FIT, "--out", "/dev/null/x"], OUT),
    "fitted run missing": (["predict", "nowhere", "t.csv"], ["no fitted table", "no such folder"]),
    "fitted run too long": (["predict", LONG, "t.csv"], [TOO_LONG]),
    "fitted run of pictures": (["predict", ".", "t.csv"], ["fit.json is missing"]),
    "predictions taken": (["predict", "x", "t.csv", "--out", "/"], ["is there already"]),
    "predictions under a device": (["predict", "x", "t", "--out", "/dev/null/x"], ["--out"]),
    "data missing": (["train", "--dataset", "omniglot", "--data-dir", "x"], ["'x' does not exist"]),
    "pictures missing": (
        ["train", "--dataset", "folder", "--data-dir", "x"],
        ["'x' does not exist"],
    ),
    "no pictures": (["train", "--dataset", "folder"], ["no folder of pictures", "--data-dir"]),
    "pictures of no size": (["train", "--dataset", "folder", "--image-size", "0"], ["image_size"]),
    "pictures in color": (["train", "--dataset", "folder", "--channels", "color"], ["'colour'"]),
    "size of drawings": (["train", "--image-size", "8"], ["'glyphs' has no such setting"]),
    "no vectors": (["train", "--dataset", "vectors"], ["has no file", "numpy.savez", "x=x, y=y"]),
    "vectors missing": (
        ["train", "--dataset", "vectors", "--data-dir", "x.npz"],
        ["There is no file 'x.npz'"],
    ),
    "a folder of vectors": (
        ["train", "--dataset", "vectors", "--data-dir", "."],
        ["cannot be read as feature vectors"],
    ),
    "data too long": (["train", "--dataset", "omniglot", "--data-dir", LONG], [TOO_LONG]),
}
