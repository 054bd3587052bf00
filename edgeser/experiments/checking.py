"""What is checked of an experiment before anything is trained: names, the figure's axes, every row's model."""

from __future__ import annotations

from numbers import Real
from pathlib import Path

from edgeser.experiments.spec import Experiment
from edgeser.models import InputSpec, family
from edgeser.runtime.errors import InputError
from edgeser.training.building import check_model
from edgeser.training.options import TrainOptions

_STAND_INS = {
    "audio": InputSpec(460, 512, "onnx-encoder"),
    "text": InputSpec(20, 50, "word-vectors"),
    "phonemes": InputSpec(20, 16, "phonemes"),
    "sentence": InputSpec(1, 768, "onnx-encoder"),
}


def check_names(experiment: Experiment) -> None:
    """Refuse rows of one name, and those whose names give one folder, or none.

    Raises:
        InputError: There are such rows.
    """
    names = [row.name for row in experiment.rows]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"row {name!r}: there are {names.count(name)} of that name: rename all but one")
    folders: dict[str, str] = {}
    for row in experiment.trained:
        if not row.slug:
            raise InputError(f"row {row.name!r}: expected a letter or digit in its name, which names a folder")
        if row.slug in folders:
            raise InputError(
                f"row {row.name!r}: takes the folder of {folders[row.slug]!r}, {row.slug}: rename one of them"
            )
        folders[row.slug] = row.name


def check_figure(experiment: Experiment) -> None:
    """Refuse lines whose column is not in the table, or along what a row does not have.

    Raises:
        InputError: So it is.
    """
    figure = experiment.figure
    if figure.kind == "bars":
        return
    if figure.y not in experiment.columns:
        raise InputError(f"figure: y: got {figure.y!r}, expected one of the columns {', '.join(experiment.columns)}")
    for row in experiment.trained:
        missing = [name for name in (figure.x, figure.series) if name and name not in row.at]
        if missing:
            raise InputError(
                f"row {row.name!r}: has no {missing[0]} for the figure: give it in set or recipe, or as "
                f"at = {{ {missing[0]} = 1 }}"
            )
        if not isinstance(row.at[figure.x], Real):
            raise InputError(f"row {row.name!r}: {figure.x}: got {row.at[figure.x]!r}, expected a number for the axis")


def check_models(experiment: Experiment) -> None:
    """Build every row's model, so that no option is found wrong after hours of training.

    Raises:
        InputError: A row's options, recipe or configuration are not usable.
    """
    for row in experiment.trained:
        try:
            options = experiment.options(row, experiment.seeds(row)[0], Path())
            check_model(options, {name: _stand_in(name, options) for name in options.modalities})
        except (InputError, TypeError, ValueError) as error:
            raise InputError(f"row {row.name!r}: {error}") from error


def _stand_in(name: str, options: TrainOptions) -> InputSpec:
    """Return the usual shape of a modality: what its frontend really gives is known when it has been opened."""
    if name == "audio" and options.audio_encoder is None:
        shape = family(options.family).log_mel
        return InputSpec(shape.length, options.bins or shape.bins, "log-mel")
    if name == "text" and options.text_encoder is not None:
        return InputSpec(20, 1024, "onnx-encoder")
    return _STAND_INS[name]
