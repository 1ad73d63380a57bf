"""Makes data/*.parquet: labels and numbers as Hugging Face `datasets` and pandas write them.

    python make_parquet.py

Pinned versions (checked at start): datasets 4.8.4   pyarrow 26.0.1
"""

import sys
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, Value

OUT = Path(__file__).resolve().parent / "data"
PINNED = {"datasets": "4.8.4", "pyarrow": "26.0.1"}

GOOD = ["warm", "bright", "charming", "a fine film", "lovely", "good fun", "tender", "a joy", "witty", "great"]
BAD = ["dull", "flat", "loud", "a poor film", "grim", "no fun", "tiresome", "a bore", "stale", "weak"]


def rows():
    """Twenty texts, good and bad ones in turn."""
    return [(text, label) for pair in zip(GOOD, BAD) for text, label in zip(pair, (1, 0))]


def main():
    found = {"datasets": datasets.__version__, "pyarrow": pyarrow.__version__}
    print("versions:", found)
    if found != PINNED and "--any-version" not in sys.argv:
        sys.exit(f"these are not the pinned versions {PINNED}; --any-version goes on")
    OUT.mkdir(exist_ok=True)
    texts, labels = zip(*rows())
    columns = {"text": list(texts), "label": list(labels)}

    def features(names):
        return Features({"text": Value("string"), "label": ClassLabel(names=names)})

    Dataset.from_dict(columns, features=features(["negative", "positive"])).to_parquet(OUT / "class_label.parquet")
    # The same classes in another order: 0 is positive.
    turned = {"text": list(texts), "label": [1 - label for label in labels]}
    Dataset.from_dict(turned, features=features(["positive", "negative"])).to_parquet(OUT / "class_label_turned.parquet")
    # As pandas writes a column of numbers in which one was missing; one text is missing, and one share is no number.
    table = {
        "text": pyarrow.array([*texts[:-1], None]),
        "label": pyarrow.array([float(label) for label in labels]),
        "share": pyarrow.array([0.1, 1e-9, 1e20, float("nan")] + [0.5] * (len(texts) - 4), pyarrow.float32()),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), OUT / "numbers.parquet", compression="snappy")


main()
