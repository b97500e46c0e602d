"""ECG and other waveforms drawn as on paper: 25 mm/s, 10 mm/mV (PS3.3 C.10.9)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.waveforms import multiplex_array

from studies.archive.codecs import DECODING_ERRORS
from studies.archive.errors import NotRenderable
from studies.archive.lettering import lettered

logger = logging.getLogger("atrium.archive")
MM_PER_SECOND = 25.0
MM_PER_MILLIVOLT = 10.0
LONGEST_SECONDS = 12.0
STRIP_SECONDS = 10.0
MARGIN, ROW, TOP = 10.0, 25.0, 14.0
PIXELS_PER_MM = 5.0
LARGEST_SIDE = 8000
PAPER, FINE, COARSE, INK, WORDS = "#fff8f6", "#f9dcd5", "#eeb3a6", "#10131a", "#3a3f4b"
# Millivolts for a unit of the channel's sensitivity (UCUM).
MILLIVOLTS = {"uV": 0.001, "mV": 1.0, "V": 1000.0}


@dataclass(frozen=True)
class Trace:
    """One channel: samples in the unit, at so many a second."""

    label: str
    unit: str
    samples: np.ndarray
    rate: float

    @property
    def mm_per_unit(self) -> float:
        """Give the paper's gain; what isn't a voltage is stretched to its row."""
        if self.unit in MILLIVOLTS:
            return MM_PER_MILLIVOLT * MILLIVOLTS[self.unit]
        height = float(self.samples.max() - self.samples.min()) if self.samples.size else 0
        return (ROW - 5) / height if height else 1.0


@dataclass(frozen=True)
class Sheet:
    """A drawing in millimetres: lines of traces and words at their places."""

    width: float
    height: float
    traces: list[list[tuple[float, float]]]
    words: list[tuple[float, float, float, str]]


def has_waveforms(dataset: Dataset) -> bool:
    """Say whether there's anything to draw."""
    return bool(dataset.get("WaveformSequence"))


def read_traces(dataset: Dataset) -> list[Trace]:
    """Give the channels of the first multiplex group, the rhythm of most systems. Raises NotRenderable."""
    try:
        group = dataset.WaveformSequence[0]
        values = multiplex_array(dataset, 0, as_raw=False)
        rate = float(group.SamplingFrequency)
        if not rate > 0:
            raise NotRenderable("The waveform has no sampling frequency.")
        traces = []
        for number, channel in enumerate(group.ChannelDefinitionSequence):
            unit = (channel.get("ChannelSensitivityUnitsSequence") or [Dataset()])[0].get("CodeValue", "")
            traces.append(Trace(_label(channel, number), str(unit), values[:, number], rate))
    except DECODING_ERRORS as error:
        raise NotRenderable("The waveform can't be read.") from error
    if not traces or not traces[0].samples.size:
        raise NotRenderable("The waveform is empty.")
    return traces


def _label(channel: Dataset, number: int) -> str:
    source = (channel.get("ChannelSourceSequence") or [Dataset()])[0]
    label = str(source.get("CodeMeaning") or channel.get("ChannelLabel") or number + 1)
    return label.removeprefix("Lead ").removesuffix(" (Einthoven)")


def lay_out(traces: list[Trace], title: list[str]) -> Sheet:
    """Lay twelve leads out in four columns of three with a rhythm strip below, others one below the other."""
    is_standard = len(traces) == 12 and all(t.unit in MILLIVOLTS for t in traces)
    seconds = min(len(traces[0].samples) / traces[0].rate, LONGEST_SECONDS)
    lines: list[list[tuple[float, float]]] = []
    words: list[tuple[float, float, float, str]] = [
        (MARGIN, 6.0 + 4 * n, 3.2, line) for n, line in enumerate(title[:2]) if line
    ]
    places: list[tuple[Trace, int, float, float]] = []
    if is_standard:
        quarter = min(seconds, STRIP_SECONDS) / 4
        for number, trace in enumerate(traces):
            places.append((trace, number % 3, number // 3 * quarter, quarter))
        # Lead II runs below as the rhythm strip.
        places.append((traces[1], 3, 0.0, min(seconds, STRIP_SECONDS)))
        seconds = min(seconds, STRIP_SECONDS)
    else:
        places = [(trace, number, 0.0, seconds) for number, trace in enumerate(traces)]
    rows = max(row for _, row, _, _ in places) + 1
    for trace, row, start, length in places:
        left = MARGIN + start * MM_PER_SECOND
        middle = TOP + ROW * (row + 0.5)
        first = round(start * trace.rate)
        part = np.nan_to_num(trace.samples[first : first + round(length * trace.rate) + 1].astype(np.float64))
        centre = 0.0 if trace.unit in MILLIVOLTS else float(part.mean()) if part.size else 0.0
        x = left + np.arange(len(part)) / trace.rate * MM_PER_SECOND
        y = np.clip(middle - (part - centre) * trace.mm_per_unit, TOP - 2, TOP + ROW * rows + 2)
        lines.append(list(zip(x.tolist(), y.tolist(), strict=True)))
        words.append((left + 1, middle - ROW / 2 + 4, 3.2, trace.label))
    height = TOP + ROW * rows + 8
    voltage = "10 mm/mV" if traces[0].unit in MILLIVOLTS else "not to scale"
    words.append((MARGIN, height - 2.5, 2.8, f"25 mm/s   {voltage}   {traces[0].rate:g} Hz"))
    return Sheet(MARGIN * 2 + seconds * MM_PER_SECOND, height, lines, words)


def to_svg(sheet: Sheet) -> bytes:
    """Give the sheet as SVG in true millimetres."""
    grid = [
        f'<path d="{_grid(sheet, step)}" stroke="{colour}" stroke-width="{width}" fill="none"/>'
        for step, colour, width in ((1, FINE, 0.1), (5, COARSE, 0.2))
    ]
    lines = [
        f'<polyline points="{" ".join(f"{x:.2f},{y:.2f}" for x, y in line)}" stroke="{INK}" stroke-width="0.25" '
        'fill="none" stroke-linejoin="round"/>'
        for line in sheet.traces
    ]
    words = [
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-family="sans-serif" fill="{WORDS}">'
        f"{escape(text)}</text>"
        for x, y, size, text in sheet.words
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{sheet.width:.1f}mm" height="{sheet.height:.1f}mm" '
        f'viewBox="0 0 {sheet.width:.1f} {sheet.height:.1f}"><rect width="100%" height="100%" fill="{PAPER}"/>'
        + "".join([*grid, *lines, *words])
        + "</svg>"
    ).encode()


def _grid(sheet: Sheet, step: int) -> str:
    across = [f"M{x} 0V{sheet.height:.1f}" for x in range(0, int(sheet.width) + 1, step)]
    down = [f"M0 {y}H{sheet.width:.1f}" for y in range(0, int(sheet.height) + 1, step)]
    return "".join([*across, *down])


def to_image(sheet: Sheet) -> Image.Image:
    """Give the sheet as a picture."""
    scale = min(PIXELS_PER_MM, LARGEST_SIDE / max(sheet.width, sheet.height))
    # Drawn at twice the size and reduced, lines are smooth.
    fine = scale * 2
    image = Image.new("RGB", (round(sheet.width * fine), round(sheet.height * fine)), PAPER)
    draw = ImageDraw.Draw(image)
    for step, colour, width in ((1, FINE, 1), (5, COARSE, 2)):
        for x in range(0, int(sheet.width) + 1, step):
            draw.line((x * fine, 0, x * fine, image.height), colour, width)
        for y in range(0, int(sheet.height) + 1, step):
            draw.line((0, y * fine, image.width, y * fine), colour, width)
    for line in sheet.traces:
        if len(line) > 1:
            draw.line([(x * fine, y * fine) for x, y in line], INK, max(round(0.3 * fine), 1), joint="curve")
    for left, base, size, text in sheet.words:
        letters, font = lettered(text, size * fine)
        draw.text((left * fine, base * fine), letters, WORDS, font, anchor="ls")
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
