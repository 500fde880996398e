"""A benchmark's samples as JSON and as a Markdown table."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.loops import Setting
from bench.measure import Sample, quartiles, ratios
from randomix.engine.optim import resolve_precision
from randomix.records import provenance


@dataclass(frozen=True)
class Table:
    """Samples of every case; ratios are taken against ``reference``, round by round."""

    suite: str
    samples: dict[str, list[Sample]]
    reference: str
    setting: Setting

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment."""
        rows = {}
        for name, samples in self.samples.items():
            rows[name] = {
                clock: {
                    "milliseconds_per_step": [1e3 * q / self.setting.steps for q in quartiles(values)],
                    "time_ratio": list(ratios(self.samples, name, self.reference, clock)),
                }
                for clock in ("cpu", "wall")
                for values in [[getattr(s, clock) for s in samples]]
            }
        precision = resolve_precision(self.setting.precision, self.setting.torch_device).name
        return {
            "suite": self.suite,
            "reference": self.reference,
            "rounds": len(next(iter(self.samples.values()))),
            "setting": asdict(self.setting),
            "rows": rows,
            "provenance": provenance.collect(
                world_size=1, device=self.setting.device, precision=precision, threads=threads, started=time.time()
            ),
        }

    def markdown(self, content: dict[str, Any]) -> str:
        """The table that people read."""
        setting, where = content["setting"], content["provenance"]
        hardware = where["hardware"]
        machine = hardware.get("gpu") if setting["device"] == "cuda" else hardware["cpu"]
        lines = [
            f"# Benchmark: {self.suite}",
            "",
            f"PreAct-ResNet18 width {setting['width']}, batch {setting['batch']} of 3x{setting['size']}x"
            f"{setting['size']}, {setting['device']}, {where['precision']}, compile={setting['compile']}, "
            f"{where['threads']} thread(s), {content['rounds']} interleaved rounds of {setting['steps']} steps; "
            f"{machine}, torch {where['versions']['torch']}.",
            f"Ratio: time / time of *{self.reference}* in the same round. Brackets: quartiles.",
            "",
            "| case | CPU ms/step | CPU ratio | wall ms/step | wall ratio |",
            "|---|---|---|---|---|",
        ]
        for name, row in content["rows"].items():
            cells = [name]
            for clock in ("cpu", "wall"):
                cells.append(_cell(row[clock]["milliseconds_per_step"], 3))
                cells.append(_cell(row[clock]["time_ratio"], 3))
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def _cell(triple: list[float], digits: int) -> str:
    low, middle, high = triple
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
