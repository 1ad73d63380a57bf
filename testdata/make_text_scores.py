"""Makes golden/text_scores.json: what rouge-score and sacrebleu say of a few texts.

    pip install rouge-score==0.1.2 sacrebleu==2.6.0
    python testdata/make_text_scores.py
"""

import json
from pathlib import Path

import sacrebleu
from rouge_score import rouge_scorer

PAIRS = [
    ("The Eagle is a cheap pub near Burger King.", "The Eagle is a cheap pub close to Burger King."),
    ("There is a place in the city centre, Alimentum.", "Alimentum is not family-friendly; it lies in the city centre."),
    ("the the the the the the the", "The cat is on the mat."),
    ("It is a guide to action which ensures that the military always obeys the commands of the party.",
     "It is a guide to action that ensures that the military will forever heed Party commands."),
    ("", "Nothing was written here."),
    ("Something was written here.", ""),
    ("Prices are between £20-25 & more, i.e. 3.5 of 5 stars (rated 1-5).",
     "Prices are between £20-25 & more, i.e. 3,5 of 5 stars (rated 1-5)!"),
    ("&quot;Good&quot; food &amp; wine &lt;cheap&gt;", '"Good" food & wine <cheap>'),
    ("A hyphen-\nated line\nand <skipped> another", "A hyphenated line and another"),
    ("Très bon café à Paris, naïve déjà vu.", "Très bon café à Paris; naïve, déjà vu!"),
    ("好的 餐厅 在 城市 中心", "好的 餐厅 在 城市 中心"),
    ("one", "one"),
    ("one two", "one two three"),
    ("a b c d e f g", "g f e d c b a"),
    ("$5,000.00 in U.S.A., 50% off @ 7:30", "$5,000 in the U.S.A., 50% off at 7:30"),
    ("x [y] {z} ~ `w` ^v_ |u| \\t", "x [y] {z} `w` ^v_ |u| \\t ~"),
]


def main():
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    corpora = [[i] for i in range(len(PAIRS))]
    corpora += [list(range(len(PAIRS))), list(range(0, len(PAIRS), 2)), [0, 3], [2, 4, 5], [11, 12, 13]]

    def bleu(indices):
        texts, wanted = zip(*(PAIRS[i] for i in indices))
        return sacrebleu.corpus_bleu(list(texts), [list(wanted)]).score

    golden = {
        "pairs": PAIRS,
        "rouge_l": [rouge.score(wanted, text)["rougeL"].fmeasure for text, wanted in PAIRS],
        "corpora": [{"pairs": indices, "bleu": bleu(indices)} for indices in corpora],
    }
    path = Path(__file__).parent / "golden" / "text_scores.json"
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
