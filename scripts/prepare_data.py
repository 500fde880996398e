"""Download, check and unpack data sets: python scripts/prepare_data.py cifar10 tiny_imagenet.

Interrupted, killed or without a network for a while: the same command continues. What is there already is verified and
left alone. Exit codes: 0 ready, 2 wrong arguments, missing or damaged data, 5 a file cannot be written, 75 interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from datasets.places import data_root  # noqa: E402
from datasets.preparing import prepare  # noqa: E402
from datasets.preparing.progress import size_words  # noqa: E402
from datasets.preparing.sets import ENTRIES, Entry  # noqa: E402
from randomix.errors import INTERRUPTED, OK, RunError  # noqa: E402

SHARDS = "imagenet-shards"
VERSIONS = {"v0.02": "speech_commands", "v0.01": "speech_commands_v0.01"}
NAMES = sorted(set(ENTRIES) - {"speech_commands_v0.01"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: a line, and 75
    try:
        if arguments[:1] == [SHARDS]:
            from datasets import imagenet
            from datasets.streams import make_shards

            return make_shards.main(list(arguments[1:]), imagenet.open_folders)
        parser = _parser()
        options = parser.parse_args(arguments)
        if options.list:
            _list()
            return OK
        unknown = [name for name in options.names if name not in NAMES]
        if unknown or not options.names:
            parser.error(f"{unknown[0] if unknown else 'no name'}: expected data sets of {', '.join(NAMES)}, or --list")
        return max(_prepare(name, options) for name in options.names)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED


def _prepare(name: str, options: argparse.Namespace) -> int:
    """One data set; its failure leaves the others their turn."""
    entry = ENTRIES[VERSIONS[options.version] if name == "speech_commands" else name]
    try:
        report = prepare.run(
            entry, options.root, url=options.url, keep_archive=options.keep_archive, verify_only=options.verify
        )
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(report)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare_data.py",
        description=__doc__.partition("\n")[0],
        epilog=f"prepare_data.py {SHARDS} --help: write ImageNet as tar shards for streaming",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--root", metavar="DIR", help="default: $RANDOMIX_DATA, else data")
    parser.add_argument(
        "--url", metavar="PREFIX", help="a mirror: the address (http, https, file) before the archive's name"
    )
    parser.add_argument(
        "--version", choices=list(VERSIONS), default="v0.02", help="of speech_commands (default: v0.02)"
    )
    parser.add_argument(
        "--keep-archive",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave the archives beside the unpacked files, to unpack them again without a "
        "download (default); --no-keep-archive deletes them once the files were verified, those of "
        "ImageNet too",
    )
    parser.add_argument("--verify", action="store_true", help="check what is there, change nothing")
    parser.add_argument("--list", action="store_true", help="the data sets, their space, and what each comes from")
    return parser


def _list() -> None:
    for entry in ENTRIES.values():
        archives = sum(archive.size or 0 for archive in entry.archives)
        print(
            f"{entry.command or entry.name}: {_source(entry)}, {size_words(archives)} -> "
            f"{data_root() / entry.folder}, {size_words(entry.unpacked)}"
        )


def _source(entry: Entry) -> str:
    prefix = entry.archives[0].prefix
    return f"{prefix}/{entry.archives[0].name}" if len(entry.archives) == 1 else prefix or f"{entry.page} (account)"


if __name__ == "__main__":
    sys.exit(main())
