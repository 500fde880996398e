"""Small sets in the layout of Speech Commands, and what is to come of them."""

import datasets
from datasets.speech_commands import COMMANDS
from tests.datasets.sounds import word_sound

OTHERS = ("bed", "zero")
SOME = (*COMMANDS, *OTHERS)


def build(root, **options):
    return datasets.build({"name": "speech_commands", "root": str(root), "verify": False, **options})


def contents(clips):
    """Label and samples of every clip."""
    return [(int(label), clip.tobytes()) for label, clip in zip(clips.labels, clips[0 : len(clips)], strict=True)]


def expected(names, classes, words=SOME):
    return sorted(
        (
            classes.index(n.partition("/")[0]) if n.partition("/")[0] in classes else 10,
            word_sound(words.index(n.partition("/")[0]), int(n.partition("/")[2][:8])).tobytes(),
        )
        for n in names
    )
