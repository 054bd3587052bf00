"""What a compiler has to say: warnings and errors as it logs them, and a parser's errors with their nodes."""

from __future__ import annotations

from typing import Any

_LONGEST = 300


class Messages:
    """A TensorRT logger's lines.

    Attributes:
        logger: To give to TensorRT; it lives as long as what was made with it.
        warnings: Warnings, each once.
        errors: Errors, each once.
    """

    def __init__(self, trt: Any) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []
        messages, severities = self, trt.ILogger.Severity

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()

            def log(self, severity: Any, message: str) -> None:
                if severity in (severities.INTERNAL_ERROR, severities.ERROR):
                    messages.note(messages.errors, message)
                elif severity == severities.WARNING:
                    messages.note(messages.warnings, message)

        self.logger = Logger()

    def note(self, lines: list[str], message: str) -> None:
        """Keep a message as one line, unless it is known."""
        line = one_line(message)
        if line not in lines:
            lines.append(line)

    def reason(self) -> str:
        """Return the errors as one line."""
        return "; ".join(self.errors) or "it gave no reason"


def parser_errors(parser: Any) -> str:
    """Return all of a parser's errors as one line: node, operator, reason."""
    return "; ".join(_parser_error(parser.get_error(place)) for place in range(parser.num_errors)) or "no reason given"


def _parser_error(error: Any) -> str:
    name, kind = error.node_name(), error.node_operator()
    where = f"node {name or error.node()} ({kind})" if kind else f"node {error.node()}"
    # A description is the condition that did not hold, at times no more than `false`: the code says what kind it is.
    return f"{where}: {error.code().name.lower().replace('_', ' ')}: {one_line(error.desc())}"


def one_line(text: str) -> str:
    """Return a text as one line of reasonable length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
