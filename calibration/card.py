"""What a model card says about INT8."""

from __future__ import annotations

from edgeser.calibration.report import CalibrationReport


def int8_section(report: CalibrationReport) -> str:
    """Return a section of Markdown: what the integers cost, measured where."""
    sampling = report.settings["sampling"]
    lines = [
        "## INT8",
        "",
        f"Calibrated on {sampling['utterances']} utterances of {report.settings['corpus']['name']} "
        f"(preset {report.settings['preset']}, ranges by {report.settings['method']['name']}); "
        "the accuracies above are the floating-point model's.",
        "",
        "| compared on | utterances | UA FP32 | UA INT8 | labels agree | Jensen-Shannon distance |",
        "|---|---|---|---|---|---|",
    ]
    for name, compared in report.comparisons.items():
        lines.append(
            f"| {name} | {compared.reference.count} | {compared.reference.ua:.4f} | {compared.quantized.ua:.4f} | "
            f"{compared.agreement:.2%} | {compared.divergence:.4f} |"
        )
    lines += [f"\nOf what the recogniser hears, {name}: {compared.text()}." for name, compared in report.words.items()]
    return "\n".join([*lines, ""])
