"""``cnn.fit``: training from Python, which can write the folder of a run as ``cnn train`` does."""

from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError
from cnn.training import fit as training

_signature = signature(training.fit)
_RUN = Parameter("run", Parameter.KEYWORD_ONLY, default=None, annotation=str | Path | None)


@wraps(training.fit)
def fit(*arguments: Any, run: str | Path | None = None, **settings: Any) -> list[dict[str, Any]]:
    """Train as :func:`cnn.training.fit.fit` does, and write the folder ``run``."""
    if run is None:
        return training.fit(*arguments, **settings)
    if not isinstance(run, str | Path):
        raise ArgumentError(f'run is {shown(run)}, expected a folder such as "runs/mine"')
    from cnn.runs.fit_in_folder import fit_in_folder  # which takes a moment to import

    bound = _signature.bind(*arguments, **settings)
    bound.apply_defaults()
    return fit_in_folder(Path(run), bound.arguments)


fit.__signature__ = Signature(  # type: ignore[attr-defined]
    [*_signature.parameters.values(), _RUN], return_annotation=_signature.return_annotation
)
fit.__doc__ = (training.fit.__doc__ or "").replace(
    """
    Returns
    -------
""",
    """    run : str or Path
        A folder for the run, which must not exist. It gets the files and the report that ``cnn train``
        writes, and all commands take it. The report is about the images in ``validation``. If training is
        interrupted, the folder has the results so far.

    Returns
    -------
""",
    1,
)
