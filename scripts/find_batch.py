"""How many samples fit into memory at a time, for the settings of a run of train.py; nothing is trained or written.

    python scripts/find_batch.py experiment=fashion_mnist_preact_resnet18
    python scripts/find_batch.py dataset=imagenet model=resnet50 recipe=imagenet mixer=randomix_imagenet trainer.nproc=8

Takes what train.py takes; of a sweep, its first run. Prints the memory of real forward and backward passes on the
device of the run, the line through the last three, and what trainer.micro_batch_size=auto would choose for one process
alone on this machine. Exit codes: 0 done, 2 settings or data, 4 not even the least fits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from randomix.errors import OK, RunError  # noqa: E402

if TYPE_CHECKING:
    from randomix.engine.microbatch import Found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    texts = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(texts):
        print(__doc__, end="")
        return OK
    from randomix.engine import cli
    from randomix.engine.schema import TrainConfig

    overrides = [text for text in texts if text not in ("-m", "--multirun")]
    plan = cli.read_command(CHECKOUT, "train", TrainConfig, overrides, len(overrides) < len(texts))
    if plan.problems:
        return cli.report(plan.problems, "nothing was measured; python train.py --help has options and examples")
    try:
        if plan.num_jobs > 1:
            print(f"the first of {plan.num_jobs} runs: {' '.join(plan.jobs[0])}")
        print(table(measure(composed(plan.jobs[0]))))
    except RunError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return error.exit_code
    return OK


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration of one run."""
    import hydra
    from omegaconf import OmegaConf

    from randomix.engine.validation import normalise

    with hydra.initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"):
        return normalise(OmegaConf.to_container(hydra.compose("train", list(overrides)), resolve=True))


def measure(settings: dict[str, Any]) -> Found:
    """Build what a rank of the run has, and find what fits."""
    import datasets
    import models
    from randomix.engine import distributed, schema
    from randomix.engine.microbatch import find_micro_batch
    from randomix.runs.parts import build_parts, work_of

    config = schema.parse(settings)
    with distributed.init(config.trainer.device) as world:
        data, trainer = build_parts(config, world, datasets.build, models.build)
        return find_micro_batch(work_of(trainer, data, config.trainer.nproc), world, timed=True)


def table(found: Found) -> str:
    """What was measured, as Markdown, and the line below."""
    from randomix.engine.microbatch import SHARE, mib

    device = found.device_type
    unit = "samples a GPU-second" if device == "cuda" else "samples a CPU-second"
    lines = [f"| micro-batch | peak MiB | {unit} |", "|---:|---:|---:|"]
    for point in found.points:
        seconds = point.wall_seconds if device == "cuda" else point.cpu_seconds
        lines.append(f"| {point.size} | {mib(point.peak)} | {point.size / seconds:.1f} |")
    fitted = f"{found.line.fixed / 2**20:,.1f} MiB + {found.line.per_sample / 2**20:,.3f} MiB a sample"
    return "\n".join(
        [*lines, "", f"fitted: {fitted}; free: {mib(found.free)} MiB, of which {SHARE:.0%} are used", found.describe()]
    )


if __name__ == "__main__":
    sys.exit(main())
