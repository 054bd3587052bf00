"""Every error that EdgeSER raises on purpose, in one tree."""


class EdgeSerError(Exception):
    """Base of all EdgeSER errors. The message says what came, what was expected and what to do."""


class InputError(EdgeSerError, ValueError):
    """Audio, text, a path or an option that cannot be used."""


class BundleError(EdgeSerError, ValueError):
    """A bundle that is damaged, incomplete, or of another schema."""


class EngineError(EdgeSerError, RuntimeError):
    """An engine that cannot be opened, or failed while it ran."""


class SourceError(EdgeSerError, RuntimeError):
    """An audio device or file that broke while it was read."""


class AsrError(EdgeSerError, RuntimeError):
    """A speech recogniser that cannot be opened, or failed while it ran."""


class ParityError(EdgeSerError, ArithmeticError):
    """Two implementations of one graph disagree by more than the stated tolerance."""


class MissingDependencyError(EdgeSerError, ImportError):
    """A library is not installed; the message names the extra that brings it, none where EdgeSER itself does."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        what = f"edgeser[{extra}]" if extra else library
        super().__init__(f"{library} is not installed, {purpose} needs it: pip install '{what}'")
        self.package = library
        self.extra = extra
