from __future__ import annotations

import pytest

from edgeser.runtime import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.BundleError, ValueError),
        (errors.EngineError, RuntimeError),
        (errors.AsrError, RuntimeError),
        (errors.ParityError, ArithmeticError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_every_error_is_an_edgeser_error_and_the_fitting_builtin(error: type, builtin: type) -> None:
    assert issubclass(error, errors.EdgeSerError)
    assert issubclass(error, builtin)


def test_missing_dependency_names_the_extra() -> None:
    error = errors.MissingDependencyError("vosk", "asr", "recognising words")
    assert str(error) == "vosk is not installed, recognising words needs it: pip install 'edgeser[asr]'"
    assert (error.package, error.extra) == ("vosk", "asr")
