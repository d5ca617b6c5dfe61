"""The implementations of each table: what each is called, and how it is started."""

from dataclasses import dataclass, field

AUTHORS = "authors"


@dataclass(frozen=True)
class Row:
    """One implementation.

    Args:
        name: short, unique in its table.
        label: as the table has it.
        module: of this package.
        options: of the setting.
        package: what has to be installed.
        checked: whether its gradient is to equal the others', since its arithmetic is theirs.
        spread: one host device a core, where JAX can.
        peer: whether another library's best is sought among such rows.
    """

    name: str
    label: str
    module: str
    options: dict = field(default_factory=dict)
    package: str = "torch"
    checked: bool = True
    spread: bool = False
    peer: bool = True


PRODUCTS = {"network": "products"}
DEFAULTS = {"solver": "lbfgs", "certify": True, "preconditioned": True, "rtol": 0.05}

IMAML = (
    Row(AUTHORS, "PyTorch, the authors' way", "torch_loop"),
    Row("kept", "PyTorch, the gradient's graph kept", "torch_loop", {"keep": True}),
    Row("torch.func", "torch.func, vmap over tasks", "torch_func"),
    Row("torchopt", "TorchOpt, custom_root", "torchopt_implicit", package="torchopt"),
    Row("jaxopt", "JAXopt, custom_root", "jaxopt_implicit", package="jaxopt"),
    Row(
        "jaxopt, products",
        "JAXopt on pullback's network",
        "jaxopt_implicit",
        PRODUCTS,
        "jaxopt",
        peer=False,
    ),
    Row("optimistix", "Optimistix, ImplicitAdjoint", "optimistix_implicit", package="optimistix"),
    Row(
        "optimistix, products",
        "Optimistix on pullback's network",
        "optimistix_implicit",
        PRODUCTS,
        "optimistix",
        peer=False,
    ),
    Row("pullback", "pullback", "pullback_worker", package="jax", spread=True, peer=False),
    Row(
        "certified",
        "pullback, with its certificate",
        "pullback_worker",
        {"certify": True},
        "jax",
        spread=True,
        peer=False,
    ),
    Row(
        "defaults",
        "pullback's defaults: L-BFGS, preconditioned CG to 5 %, certificate",
        "pullback_worker",
        DEFAULTS,
        "jax",
        checked=False,
        spread=True,
        peer=False,
    ),
)

MAML = (
    Row(AUTHORS, "PyTorch, unrolled", "torch_loop"),
    Row("torch.func", "torch.func, vmap over tasks", "torch_func"),
    Row("higher", "higher", "higher_maml", package="higher"),
    Row("learn2learn", "learn2learn", "learn2learn_maml", package="learn2learn"),
    Row("pullback", "pullback", "pullback_worker", package="jax", spread=True, peer=False),
)

QUICK = ("torch.func", "optimistix, products", "pullback", "higher", "learn2learn")
"""What ``--quick`` runs beside the first rows: what compiles fast."""
