"""prepare_data.py with a test's checksums: prepare_driver.py SECONDS_A_FILE {"set": {"file": "md5"}} ARGUMENTS.

Negative seconds: files come at once, and before the fourth it sleeps so long, for a signal to find it there.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.preparing.archive_tree import Tree
from datasets.preparing.sets import ENTRIES
from scripts import prepare_data


def toy_entry(entry, digests, **changes):
    """The entry of a set with other archives: only those named, with these MD5s and any size."""
    archives = tuple(
        replace(archive, digest=digests[archive.name], size=None, algorithm="md5")
        for archive in entry.archives
        if archive.name in digests
    )
    return replace(entry, **{"archives": archives, "unpacked": 0, "subfolders": {}, "counts": {}} | changes)


def main(delay, digests, *arguments):
    seconds, added = float(delay), []
    for name, files in json.loads(digests).items():
        ENTRIES[name] = toy_entry(ENTRIES[name], files)
    add_file = Tree.add_file

    def slow(self, member, source):
        time.sleep(max(seconds, 0) if len(added) != 3 else abs(seconds))
        add_file(self, member, source)
        added.append(member)

    Tree.add_file = slow
    return prepare_data.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
